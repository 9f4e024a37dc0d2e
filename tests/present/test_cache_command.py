"""`autotune cache`: what it lists, and what it removes."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from autotune.artifacts.store import MANIFEST, Cache
from autotune.cli import main
from autotune.errors import Exit
from autotune.stages.preparation_jobs import TinyJob
from autotune.stages.protocol import Job, Result

pytestmark = pytest.mark.usefixtures("own_temporary")

DAY = 86400.0


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    """Three results of 1 MB, unused for 0, 10 and 20 days; the oldest is on the front of a sweep."""
    monkeypatch.setenv("AUTOTUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("AUTOTUNE_CACHE_MB", raising=False)
    cache = Cache(tmp_path / "cache")

    def run(out: Path) -> tuple[Result, float]:
        (out / "file").write_bytes(bytes(1_000_000))
        return {}, 60.0

    for seed, days in enumerate((0, 10, 20)):
        manifest = cache.make(TinyJob(seed=seed), run, "a model").path / MANIFEST
        os.utime(manifest, (time.time() - days * DAY,) * 2)
    out = tmp_path / "results"
    out.mkdir()
    (out / "results.csv").touch()
    cache.pin(out, [TinyJob(seed=2)])
    return cache


def there(cache: Cache) -> list[int]:
    def found(job: Job) -> bool:
        return cache.folder(job).exists()

    return [seed for seed in range(3) if found(TinyJob(seed=seed))]


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["cache", *arguments, "--json"]) == Exit.OK
    said: dict[str, Any] = json.loads(capsys.readouterr().out)
    return said


def test_the_cache_is_listed(cache: Cache, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listed = answer(capsys)
    (group,) = listed["groups"]
    assert (group["stage"], group["model"], group["results"], group["seconds"]) == ("tiny", "a model", 3, 180.0)
    assert listed["size_mb"] == pytest.approx(3.0, rel=0.01)
    assert group["kept_mb"] == pytest.approx(1.0, rel=0.01)
    assert group["unused_days"] == pytest.approx(20.0, rel=0.01)
    assert listed["kept_for"] == [str(tmp_path / "results")]
    assert main(["cache"]) == Exit.OK
    said = capsys.readouterr().out
    for word in (str(cache.root), "3 MB", "tiny", "a model", " 20.0", f"kept for the front of {tmp_path / 'results'}"):
        assert word in said


def test_an_empty_cache_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AUTOTUNE_CACHE", str(tmp_path / "nothing"))
    assert main(["cache"]) == Exit.OK
    assert capsys.readouterr().out.strip() == f"{tmp_path / 'nothing'}: 0 MB"


def test_pruning_by_age_spares_the_front(cache: Cache, capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(capsys, "prune", "--unused", "5", "--dry-run")["removed_mb"] == pytest.approx(1.0, rel=0.01)
    assert there(cache) == [0, 1, 2]
    pruned = answer(capsys, "prune", "--unused", "5")
    assert pruned["removed"][0]["what"] == f"tiny/{TinyJob(seed=1).key[:16]}"
    assert there(cache) == [0, 2]


def test_pruning_to_a_size_spares_the_front(cache: Cache, capsys: pytest.CaptureFixture[str]) -> None:
    pruned = answer(capsys, "prune", "--to", "2.5")
    assert pruned["left_mb"] == pytest.approx(2.0, rel=0.01)
    assert there(cache) == [0, 2]  # the one that was unused for longer
    pruned = answer(capsys, "prune", "--to", "0")
    assert there(cache) == [2]
    assert pruned["kept_mb"] == pruned["left_mb"] == pytest.approx(1.0, rel=0.01)


def test_pruning_without_a_size_keeps_what_is_whole(
    cache: Cache, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    half = cache.root / "tiny" / f".{'0' * 64}.new"
    half.mkdir()
    (half / "file").write_bytes(bytes(2_000_000))
    assert main(["cache"]) == Exit.OK
    assert "2.0 MB are leftovers of killed processes" in capsys.readouterr().out
    assert main(["cache", "prune"]) == Exit.OK
    assert "removed 2 MB; 3 MB are there, of which 1 MB are in use or on a front" in capsys.readouterr().out
    assert (half.exists(), there(cache)) == (False, [0, 1, 2])
    monkeypatch.setenv("AUTOTUNE_CACHE_MB", "1.5")
    assert main(["cache", "prune"]) == Exit.OK
    assert there(cache) == [2]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--to", "3"], "--to, --unused and --dry-run belong to prune; autotune cache prune --to MB"),
        (["prune", "--to", "-1"], "must be a number, 0 or more, got '-1'"),
        (["prune", "--unused", "soon"], "must be a number, 0 or more, got 'soon'"),
        (["remove"], "invalid choice: 'remove'"),
    ],
)
def test_wrong_arguments_are_refused(
    arguments: list[str], says: str, cache: Cache, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = main(["cache", *arguments])
    except SystemExit as error:
        code = int(str(error.code))
    assert code == Exit.USAGE
    assert says in capsys.readouterr().err
    assert there(cache) == [0, 1, 2]
