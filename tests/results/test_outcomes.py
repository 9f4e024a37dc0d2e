"""Outcomes are read the same from the candidates' files and from the packed copy, and a stale copy is not used."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autotune.results import outcomes
from autotune.results.outcomes import PACKED, parts_of

GOLD = [0, 1, 2, 1, 0, 2, 2, 1, 0]


def keep(folder: Path, name: str, seed: int, **more: Any) -> None:
    """Write one candidate's outcomes, as a sweep does."""
    predicted = np.random.default_rng(seed).integers(3, size=len(GOLD)).tolist()
    kept = {"metric": "choice", "split": "validation", "predicted": predicted, "gold": GOLD} | more
    (folder / "outcomes").mkdir(exist_ok=True)
    (folder / "outcomes" / f"{name}.json").write_text(json.dumps(kept), encoding="utf-8")


def plain(parts: dict[str, outcomes.Parts]) -> dict[str, tuple[str, list[float], bool]]:
    return {name: (one.column, [float(x) for x in one.items], one.grouped) for name, one in parts.items()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three hundred candidates: right or wrong, function values, perplexity, grouped parts, and damaged ones."""
    for i in range(300):
        if i % 50 == 1:
            keep(tmp_path, f"c{i}", i, metric="lm-eval:task", parts=[0.25, 0.5], score=0.4, predicted=[], gold=[])
        elif i % 50 == 2:
            keep(tmp_path, f"c{i}", i, metric="perplexity", nll=[1.5, 2.0 + i], tokens=[2, 3])
        elif i % 50 == 3:
            keep(tmp_path, f"c{i}", i, metric="f1")
        else:
            keep(tmp_path, f"c{i}", i)
    (tmp_path / "outcomes" / "c4.json").write_text('{"metric": "choice", "predicted": 3}', encoding="utf-8")
    (tmp_path / "outcomes" / "items.validation.json").write_text("[]", encoding="utf-8")
    past(tmp_path)
    return tmp_path


def past(folder: Path) -> None:
    """Let the files have been written a while ago."""
    for file in (folder / "outcomes").glob("*.json"):
        os.utime(file, ns=(1_000_000_000_000_000_000, 1_000_000_000_000_000_000))


NAMES = [f"c{i}" for i in range(301)]  # the last one has no outcomes


def test_a_packed_copy_holds_what_the_files_hold(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    single = {name: parts_of(folder, [name]).get(name) for name in NAMES}
    assert not (folder / "outcomes" / PACKED).exists()  # few are not worth it
    first = parts_of(folder, NAMES)
    assert (folder / "outcomes" / PACKED).exists()
    monkeypatch.setattr(outcomes, "_read", lambda *_: pytest.fail("a file was read that the copy holds"))
    damaged = {"c4"}
    second = parts_of(folder, [name for name in NAMES if name not in damaged])
    assert plain(first) == plain(second) == plain({n: p for n, p in single.items() if p is not None})
    assert set(NAMES) - set(first) == {"c4", "c300"}
    assert first["c1"].grouped
    assert not list((folder / "outcomes").glob("*.new"))


def test_a_file_that_changed_is_read_again(folder: Path) -> None:
    before = plain(parts_of(folder, NAMES))
    kept = json.loads((folder / "outcomes" / "c10.json").read_text(encoding="utf-8"))
    kept["predicted"] = [(x + 1) % 3 for x in kept["predicted"]]  # the size stays
    (folder / "outcomes" / "c10.json").write_text(json.dumps(kept), encoding="utf-8")
    stamp = (folder / "outcomes" / PACKED).stat().st_mtime_ns + 1
    os.utime(folder / "outcomes" / "c10.json", ns=(stamp, stamp))
    (folder / "outcomes" / "c11.json").unlink()
    after = plain(parts_of(folder, NAMES))
    assert {name for name in before if before[name] != after.get(name)} == {"c10", "c11"}
    assert "c11" not in after


@pytest.mark.parametrize(
    "damage", [b"", b"{}\n", b'{"version": 1, "blocks": [{}]}\n', b"\xff\xff\n", b'{"version": 9}\n']
)
def test_a_damaged_copy_is_not_used(damage: bytes, folder: Path) -> None:
    before = plain(parts_of(folder, NAMES))
    (folder / "outcomes" / PACKED).write_bytes(damage)
    assert plain(parts_of(folder, NAMES)) == before


def test_a_copy_that_was_cut_off_is_not_used(folder: Path) -> None:
    before = plain(parts_of(folder, NAMES))
    content = (folder / "outcomes" / PACKED).read_bytes()
    (folder / "outcomes" / PACKED).write_bytes(content[:-5])
    assert plain(parts_of(folder, NAMES)) == before
