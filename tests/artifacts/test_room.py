"""Room in the cache: what goes first, what never goes, and a clear word where nothing more can."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from autotune.artifacts import room as room_module
from autotune.artifacts.room import Room, budget_mb, by_worth, evict, tidy
from autotune.artifacts.store import MANIFEST, Cache
from autotune.candidate import Recipe
from autotune.errors import MachineError, UsageError
from autotune.stages.jobs import BuildJob, MergeJob
from autotune.stages.preparation_jobs import TinyJob
from autotune.stages.protocol import Job, Result

pytestmark = pytest.mark.usefixtures("own_temporary")

NOWHERE = Path()
DAY = 86400.0


def maker(mb: float, seconds: float) -> Callable[[Path], tuple[Result, float]]:
    def run(out: Path) -> tuple[Result, float]:
        (out / "weights").write_bytes(bytes(round(mb * 1e6)))
        return {}, seconds

    return run


def merge(name: str) -> MergeJob:
    return MergeJob(adapter=name, base="b", base_dir=NOWHERE, adapter_dir=NOWHERE)


def build(name: str) -> BuildJob:
    return BuildJob(source=name, recipe=Recipe(precision="int8"), provider="cpu", source_dir=NOWHERE)


def fill(cache: Cache) -> dict[str, Job]:
    """Make results that are cheap and dear by the MB, and return them from the least worth to the most."""
    jobs: dict[str, tuple[Job, float, float]] = {
        "merged": (merge("m"), 0.5, 100.0),
        "cheap": (build("cheap"), 1.0, 1.0),
        "dear": (build("dear"), 1.0, 10.0),
        "score": (TinyJob(), 0.001, 5.0),
    }
    for job, mb, seconds in jobs.values():
        cache.make(job, maker(mb, seconds))
    return {name: job for name, (job, _, _) in jobs.items()}


def names(cache: Cache, jobs: dict[str, Job], now: float = 0.0) -> list[str]:
    there = {cache.folder(job): name for name, job in jobs.items()}
    return [there[entry.path] for entry in by_worth(cache.entries(), now)]


def test_the_least_worth_goes_first(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    jobs = fill(cache)
    assert names(cache, jobs) == ["merged", "cheap", "dear"]
    made = (cache.folder(jobs["cheap"]) / MANIFEST).stat().st_mtime
    os.utime(cache.folder(jobs["dear"]) / MANIFEST, (made - 100 * DAY, made - 100 * DAY))
    assert names(cache, jobs, made) == ["merged", "dear", "cheap"]  # long unused
    (cache.folder(jobs["cheap"]) / MANIFEST).unlink()
    assert names(cache, jobs, made)[0] == "cheap"  # damaged


def test_eviction_stops_when_it_is_enough_and_spares_what_is_needed(tmp_path: Path) -> None:
    cache, out = Cache(tmp_path / "cache"), tmp_path / "results"
    jobs = fill(cache)
    out.mkdir()
    (out / "results.csv").touch()
    cache.pin(out, [jobs["cheap"]])
    cache.hold(jobs["merged"])
    dry = evict(cache, lambda mb: mb >= 0.5, cache.entries(), dry=True)
    assert len(cache.entries()) == 4
    assert evict(cache, lambda mb: mb >= 0.5, cache.entries()) == dry
    assert cache.find(jobs["dear"]) is None  # the only one that could go and was enough
    assert all(cache.find(jobs[name]) for name in ("merged", "cheap", "score"))
    assert [item.size_mb for item in dry] == pytest.approx([1.0], rel=0.01)


def test_tidying_removes_leftovers_and_what_is_damaged(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    jobs = fill(cache)
    half = cache.folder(jobs["dear"]).with_name(f".{'0' * 64}.new")
    half.mkdir()
    (half / "weights").write_bytes(bytes(1000))
    (cache.folder(jobs["cheap"]) / "weights").write_bytes(b"")
    assert len(tidy(cache, dry=True)) == 2
    assert half.exists()
    assert [item.what.split()[0] for item in tidy(cache)] == ["leftover", f"build/{jobs['cheap'].key[:16]}"]
    assert not half.exists()
    assert len(cache.entries()) == 3
    assert tidy(cache) == []


def test_a_budget_is_kept(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    jobs = fill(cache)
    room = Room(cache, budget=3.0)
    assert room.make(0.1) == []
    room.added(cache.make(build("new"), maker(0.4, 1.0)).path)
    assert [item.size_mb for item in room.make(0.2)] == pytest.approx([0.5], rel=0.01)  # the merged model
    assert cache.find(jobs["merged"]) is None
    assert len(room.make(100.0)) == 3  # never enough: all that may go,
    assert cache.find(jobs["score"]) is not None  # but for what is too small to matter
    assert Room(cache, budget=None).make(0.0) == []


def test_a_disk_without_room_has_a_clear_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(tmp_path)
    fill(cache)
    monkeypatch.setattr(room_module, "free_disk_mb", lambda folder: 30.0)
    with pytest.raises(MachineError, match=r"has 30 MB free, and the next stage needs about 40 MB; free some space"):
        Room(cache, None).make(40.0)
    assert [entry.stage for entry in cache.entries()] == ["tiny"]
    assert Room(cache, None).make(29.0) == []


@pytest.mark.parametrize("text", ["ten", "-1", "0", "nan", "inf", "1e999"])
def test_a_wrong_budget_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOTUNE_CACHE_MB", text)
    with pytest.raises(UsageError, match=r"AUTOTUNE_CACHE_MB: must be a number of megabytes above 0"):
        budget_mb()


def test_the_budget_of_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AUTOTUNE_CACHE_MB", raising=False)
    assert budget_mb() is None
    monkeypatch.setenv("AUTOTUNE_CACHE_MB", " 5e3 ")
    assert budget_mb() == 5000.0
