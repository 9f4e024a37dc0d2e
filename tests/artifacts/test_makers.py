"""One maker a key: who may begin, and that nobody who was stopped or cut off meanwhile puts his result in place."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from waiting import HANG_S

from autotune.artifacts import leases as leases_room
from autotune.artifacts import makers
from autotune.artifacts.leases import Leases, this_process
from autotune.artifacts.makers import MAKER_S, Maker, Turn, is_made, maker_here, making, newest, read_maker
from autotune.artifacts.store import Cache
from autotune.stages.preparation_jobs import TinyJob
from autotune.stages.protocol import Result

TINY = TinyJob()
Run = Callable[[Path], tuple[Result, float]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tiny").mkdir()
    return tmp_path / "tiny" / TINY.key


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(makers, "_POLL_S", 0.02)


class GaveUpError(Exception):
    """Who waits has waited enough."""


def once(maker: Maker | None, seconds: float) -> None:
    raise GaveUpError(str(maker))


def elsewhere(folder: Path, age_s: float, **fields: Any) -> Leases:
    """Let a maker on another host be at work whose lease was renewed so long ago."""
    leases = Leases(folder.parent.parent)
    said = {
        "pid": 7, "host": "elsewhere", "since": "2026-01-01T00:00:00Z", "what": "", "token": "theirs",
        "lease": leases.id, "boot": "another boot", "locked": True,
    }  # fmt: skip
    folder.with_name(f"{folder.name}.3.maker").write_text(json.dumps(said | fields), encoding="utf-8")
    leases.folder.mkdir(exist_ok=True)
    (leases.folder / leases.id).write_text("{}", encoding="utf-8")
    os.utime(leases.folder / leases.id, (time.time() - age_s,) * 2)
    return leases


def takes(folder: Path, **more: Any) -> int:
    """Return the number of the turn that can be had at once. Raises GaveUpError."""
    with making(folder, Leases(folder.parent.parent), waiting=once, **more) as turn:
        return turn.number


def test_a_maker_on_another_host_has_its_turn_as_long_as_its_lease_is_renewed(folder: Path) -> None:
    elsewhere(folder, MAKER_S / 2)
    with pytest.raises(GaveUpError, match="process 7 on elsewhere makes it since"):
        takes(folder)
    assert is_made(folder, Leases(folder.parent.parent))
    elsewhere(folder, MAKER_S * 2)
    assert not is_made(folder, Leases(folder.parent.parent))
    assert takes(folder) == 4
    assert newest(folder) == (0, None)


def test_who_waits_for_a_maker_on_another_host_is_told_until_when(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not where the system's lock is held: it is free at once when its holder ends."""
    monkeypatch.setattr(makers, "MAKER_S", 1e6)
    leases = elsewhere(folder, 100.0)
    with pytest.raises(GaveUpError) as raised, making(folder, Leases(folder.parent.parent), waiting=once):
        pass
    end = datetime.fromtimestamp((leases.folder / leases.id).stat().st_mtime + 1e6, UTC)
    told = datetime.fromisoformat(str(raised.value).rpartition("; if it was killed, this goes on at ")[2])
    assert told >= end - timedelta(seconds=2)  # whole seconds, by the clock of the file system
    elsewhere(folder, 100.0, boot=this_process().boot)
    with (
        FileLock(f"{folder}.lock"),
        pytest.raises(GaveUpError) as raised,
        making(folder, Leases(folder.parent.parent), waiting=once),
    ):
        pass
    assert "killed" not in str(raised.value)


@pytest.mark.parametrize("dead", [True, False])
def test_without_the_systems_lock_a_process_that_is_seen_to_have_ended_has_no_turn(
    folder: Path, dead: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some file systems have no locks, and a lease lasts for a minute; here it never ends."""
    monkeypatch.setattr(makers, "MAKER_S", 1e9)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        own = this_process()
        seen = {
            "pid": process.pid,
            "boot": own.boot,
            "namespace": own.namespace,
            "began": leases_room._began(process.pid),
        }
        if dead:
            process.kill()
            process.wait()
        elsewhere(folder, 0.0, locked=False, **seen)
        with contextlib.suppress(GaveUpError), making(folder, Leases(folder.parent.parent), waiting=once):
            assert dead
            return
        assert not dead
        process.communicate(b"\n")


@pytest.mark.parametrize(
    ("changed", "ended"),
    [({}, False), ({"pid": 2**22 + 5}, True), ({"began": 3.0}, True), ({"boot": "another"}, False),
     ({"namespace": "another"}, False), ({"namespace": ""}, False), ({"began": None}, False)],
)  # fmt: skip
def test_a_maker_has_ended_only_where_its_process_can_be_looked_up(changed: dict[str, Any], ended: bool) -> None:
    """Files of earlier versions say less."""
    said = asdict(maker_here("", "token", "lease", locked=False)) | changed
    found = read_maker(json.dumps(said).encode())
    assert found is not None
    assert found.ended is ended
    assert found == Maker(**said)


def test_a_maker_elsewhere_who_has_no_lease_any_more_has_no_turn(folder: Path) -> None:
    leases = elsewhere(folder, 0.0)
    (leases.folder / leases.id).unlink()
    assert takes(folder) == 4


def test_a_maker_who_is_said_to_be_lost_has_no_turn_though_it_lives(folder: Path) -> None:
    elsewhere(folder, 0.0)
    with pytest.raises(GaveUpError):
        takes(folder, over=["another"])
    assert takes(folder, over=["another", "theirs"]) == 4


@pytest.mark.parametrize("held", [True, False])
def test_on_one_system_the_lock_tells_the_truth(folder: Path, held: bool) -> None:
    """Over containers too, where process ids say nothing; but a maker that could not have the lock is known by its lease."""
    boot = makers.this_process().boot
    with FileLock(str(folder) + ".lock") if held else FileLock(str(folder) + ".another"):
        elsewhere(folder, MAKER_S * 2, boot=boot)
        if held:
            with pytest.raises(GaveUpError):
                takes(folder)
        else:
            assert takes(folder) == 4
        elsewhere(folder, 0.0, boot=boot, locked=False)
        with pytest.raises(GaveUpError):
            takes(folder)
        elsewhere(folder, MAKER_S * 2, boot=boot, locked=False)
        assert takes(folder) == 4


def test_a_file_of_an_earlier_version_counts_while_the_lock_is_held(folder: Path) -> None:
    said = {"pid": 7, "host": "elsewhere", "since": "2026-01-01T00:00:00Z", "what": "abc"}
    file = folder.with_name(f"{folder.name}.maker")
    file.write_text(json.dumps(said), encoding="utf-8")
    with FileLock(str(folder) + ".lock"), pytest.raises(GaveUpError, match="for abc"):
        takes(folder)
    assert takes(folder) == 1
    assert not file.exists()


def files(run: str) -> Run:
    def make(out: Path) -> tuple[Result, float]:
        (out / "who").write_text(run, encoding="utf-8")
        return {"who": run}, 1.0

    return make


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize(
    "when", ["the other works", "the other has ended", "the other has ended, and it is gone again"]
)
def test_who_goes_on_after_another_took_over_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool, when: str
) -> None:
    """A maker is cut off, another begins, and the first goes on at different moments."""
    if not links:

        def refuse(*_: object) -> None:
            raise OSError(95, "Operation not supported")

        monkeypatch.setattr(os, "link", refuse)
    stale, cache = Cache(tmp_path), Cache(tmp_path)
    begun, go_on, second, end = (threading.Event() for _ in range(4))
    found: dict[str, Any] = {}

    begins: list[Path] = []

    def cut_off(out: Path) -> tuple[Result, float]:
        begins.append(out)
        begun.set()
        assert go_on.wait(HANG_S)
        return files("stale")(out)

    def new(out: Path) -> tuple[Result, float]:
        second.set()
        if when == "the other works":
            go_on.set()
            assert not end.wait(0.3)  # the first must not end before this one
        return files("new")(out)

    def first() -> None:
        found["stale"] = stale.make(TINY, cut_off, token="a" * 32)
        end.set()

    def other() -> None:
        found["new"] = cache.make(TINY, new, over=["a" * 32])

    one, two = threading.Thread(target=first), threading.Thread(target=other)
    one.start()
    assert begun.wait(HANG_S)
    two.start()
    assert second.wait(HANG_S)
    if when != "the other works":
        two.join(HANG_S)
        if when.endswith("again"):
            shutil.rmtree(cache.folder(TINY))
        go_on.set()
    one.join(HANG_S)
    two.join(HANG_S)
    assert found["new"].result == {"who": "new"}
    assert not found["new"].cached
    if when.endswith("again"):  # it makes it in a turn of its own
        assert len(begins) == 2
        assert not found["stale"].cached
        return
    assert len(begins) == 1
    assert found["stale"].result == {"who": "new"}
    assert found["stale"].cached
    assert (cache.folder(TINY) / "who").read_text(encoding="utf-8") == "new"
    assert cache.leftovers() == []


def test_a_turn_is_confirmed_once_and_by_its_own_maker_alone(folder: Path) -> None:
    leases = Leases(folder.parent.parent)
    with making(folder, leases, token="a" * 32) as one:
        assert one.still()
        with making(folder, leases, token="b" * 32, over=["a" * 32]) as other:
            assert not one.still()
            assert not one.confirm()
            assert other.confirm()
            assert other.still()
        assert not one.confirm()  # the other is done, and its files are gone
    assert newest(folder) == (0, None)


@pytest.mark.parametrize("seed", range(6))
def test_many_makers_that_are_lost_at_random_leave_one_whole_result(tmp_path: Path, seed: int) -> None:
    """Whoever wins, the result is that of one maker, and nothing is left beside it."""
    draw, cache, guard = random.Random(seed), Cache(tmp_path), threading.Lock()
    tokens, placed, found = list[str](), list[str](), list[Result]()

    def work(n: int) -> None:
        token = f"{n:012d}" + 20 * "0"
        with guard:
            over, pause = list(tokens), draw.random() * 0.05
            tokens.append(token)

        def run(out: Path) -> tuple[Result, float]:
            time.sleep(pause)
            return files(token)(out)

        stored = Cache(cache.root).make(TINY, run, token=token, over=over)
        found.append(stored.result)
        if not stored.cached:
            placed.append(token)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
        time.sleep(0.01)
    for thread in threads:
        thread.join(HANG_S)
    assert len(placed) == 1
    assert found == [{"who": placed[0]}] * 8
    kept = cache.find(TINY)
    assert kept is not None
    assert kept.result == {"who": placed[0]}
    assert cache.leftovers() == []


def test_turns_are_named(folder: Path) -> None:
    turn = Turn(folder, 2, Maker(1, "host", "now", "", token="abcdef0123456789"))
    assert turn.aside.name == f".{TINY.key}.abcdef012345.new"
    assert makers.result_of(turn.aside) == folder
    assert makers.result_of(folder.with_name(f"{TINY.key}.12.maker")) == folder
    assert makers.result_of(folder.with_name(f".{TINY.key}.new")) == folder


def test_a_maker_looks_beside_its_result_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of a long sweep has tens of thousands of entries."""
    looks, really = list[str](), os.listdir

    def noted(place: Any) -> list[str]:
        looks.append(str(place))
        return really(place)

    monkeypatch.setattr(makers.os, "listdir", noted)
    cache = Cache(tmp_path)
    assert not cache.make(TINY, files("one")).cached
    assert looks.count(str(cache.folder(TINY).parent)) == 1
