"""Kill a tiny real sweep again and again, resume it each time, and compare with an undisturbed run.

A kill comes a random while after a random number of stages, so that every start gets somewhere. `random` chooses without
regard to timings: its candidates, statuses and scores must come out the same. `tpe` learns from them: there every
finished row must stay.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from filelock import FileLock
from waiting import HANG_S, until

from autotune.artifacts.store import MANIFEST, Cache
from autotune.errors import Exit
from autotune.results.folder import read_results, read_running

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")

ROOT = Path(__file__).parent.parent
KINDS = ("tuner", "worker", "group", "SIGTERM")
STALLED_S = 240.0


def write_sweep(folder: Path, model: Path, strategy: str) -> Path:
    """Write a sweep of quick candidates on the tiny model."""
    rows = [{"text": f"{word} number {n}", "label": word} for n in range(12) for word in ("yes", "no", "maybe")]
    data = folder / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    sweep = {
        "name": "faults",
        "model": str(model),
        "data": {
            "train": str(data), "holdout": 0.4, "test_holdout": 0.2,
            "prompt": "Text: {text}\nLabel:", "completion": " {label}",
        },
        "target": {"provider": "cpu", "workload": {"prompt_tokens": 8, "new_tokens": 4}, "timing": {"processes": 2, "most": 2, "repeats": 0}},
        "space": {
            "lora": {"r": {"choice": [2, 4]}, "learning_rate": {"loguniform": [1e-4, 1e-2]}, "steps": 12},
            "build": [{"precision": "int8"}, {"precision": "int4"}],
        },
        "strategy": strategy,
        "budget": {"trials": 1000},
    }  # fmt: skip
    file = folder / "sweep.json"
    file.write_text(json.dumps(sweep), encoding="utf-8")
    return file


class Victim:
    """A sweep in a folder that is started, disturbed and started again."""

    def __init__(self, sweep: Path, out: Path, cache: Path) -> None:
        self.sweep, self.out, self.cache = sweep, out, cache
        self.made: dict[Path, float] = {}
        """When each result that was ever seen in the cache was made."""

    def start(self, *more: str) -> subprocess.Popen[str]:
        """Start it in a process group of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "autotune", "run", str(self.sweep), "--out", str(self.out), *more],
            cwd=ROOT, env={**os.environ, "AUTOTUNE_CACHE": str(self.cache)}, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, encoding="utf-8",
        )  # fmt: skip

    def finish(self, trials: int) -> None:
        """Run it to the end of so many trials."""
        process = self.start("--trials", str(trials))
        _, errors = process.communicate(timeout=600)
        assert process.returncode == Exit.OK, errors

    def stages(self, process: subprocess.Popen[str]) -> Iterator[str]:
        """Yield every stage that the running sweep begins."""
        seen, end = "", time.monotonic() + STALLED_S
        while time.monotonic() < end:
            if process.poll() is not None:
                _, errors = process.communicate()
                raise AssertionError(f"it ended by itself with {process.returncode}: {errors}")
            running = read_running(self.out) or {}
            now = f"{running.get('pid')} {running.get('trial')} {running.get('stage')} {running.get('since')}"
            if running.get("pid") == process.pid and "since" in running and now != seen:
                seen, end = now, time.monotonic() + STALLED_S
                yield now
            time.sleep(0.01)
        raise AssertionError("no stage has begun for minutes")

    def rows(self) -> list[tuple[Any, ...]]:
        """Return what must not depend on disturbances: candidates in order, statuses, scores.

        A candidate whose worker was lost is tried again, and has not ended.
        """
        if not (self.out / "results.csv").exists():
            return []
        rows = sorted(read_results(self.out), key=lambda row: row["trial"])
        rows = [row for row in rows if row["status"] != "lost"]
        names = ("trial", "candidate", "status", "accuracy", "train_loss", "graph")
        return [tuple(row[name] for name in names) for row in rows]

    def nothing_was_made_twice(self) -> None:
        """Check that what had been finished is as it was (but for merged models, which are not kept)."""
        for file in self.cache.glob(f"*/*/{MANIFEST}"):
            with contextlib.suppress(FileNotFoundError):
                if file.parent.parent.name != "merge":
                    made = json.loads(file.read_text(encoding="utf-8"))["made"]
                    assert self.made.setdefault(file, made) == made, f"{file} was made twice"


def gone(processes: list[psutil.Process]) -> bool:
    """Whether all processes are gone, or will be in a while."""
    _, alive = psutil.wait_procs(processes, timeout=HANG_S)
    return all(process.status() == psutil.STATUS_ZOMBIE for process in alive)


def kill_a_worker(tuner: int, rng: random.Random) -> None:
    """Kill one of the tuner's workers; the process of a timing may end between the look and the kill."""

    def killed() -> bool:
        with contextlib.suppress(psutil.NoSuchProcess):
            children = psutil.Process(tuner).children(recursive=True)
            # The other one is Python's own: it keeps count of semaphores.
            workers = [child for child in children if "resource_tracker" not in " ".join(child.cmdline())]
            if workers:
                rng.choice(workers).kill()
                return True
        return False

    until(killed, "a worker to kill")


def strike(victim: Victim, kind: str, rng: random.Random) -> None:
    """Start the sweep, and kill a part of it at a random moment."""
    process = victim.start()
    stages = victim.stages(process)
    for _ in range(rng.randint(1, 4)):
        next(stages)
    time.sleep(rng.uniform(0, 0.5))
    children = psutil.Process(process.pid).children(recursive=True)
    if kind == "worker":
        kill_a_worker(process.pid, rng)
        for _ in range(2):  # it goes on
            next(stages)
        process.send_signal(signal.SIGTERM)
        code: int = Exit.INTERRUPTED
    elif kind == "SIGTERM":
        process.send_signal(signal.SIGTERM)
        code = Exit.INTERRUPTED
    elif kind == "group":
        os.killpg(process.pid, signal.SIGKILL)
        code = -signal.SIGKILL
    else:
        process.kill()
        code = -signal.SIGKILL
    _, errors = process.communicate(timeout=HANG_S)
    assert process.returncode == code, errors
    # A worker that Python is just starting when the tuner is killed says so itself.
    assert "Traceback" not in errors or code == -signal.SIGKILL
    assert gone(children), f"a process outlived the {kind}"
    victim.nothing_was_made_twice()


def cut(file: Path, rng: random.Random) -> None:
    """Take the end off a table's last line, as a power cut may."""
    with file.open("rb+") as stream:
        content = stream.read()
        last = content[:-1].rfind(b"\n") + 1
        if last > 0:
            stream.truncate(rng.randint(last, len(content) - 1))


def disturb(folder: Path, model: Path, strategy: str, kills: int, seed: int) -> Counter[str]:
    """Disturb a sweep `kills` times, let it finish, and compare. Returns how often what was done to it."""
    rng = random.Random(seed)
    sweep = write_sweep(folder, model, strategy)
    victim = Victim(sweep, folder / "disturbed", folder / "cache")
    done: Counter[str] = Counter()
    finished: list[tuple[Any, ...]] = []
    for number in range(kills):
        kind = KINDS[number % len(KINDS)]
        strike(victim, kind, rng)
        done[kind] += 1
        rows = victim.rows()
        assert rows[: len(finished)] == finished, "a finished row has changed"
        finished = rows
        if rows and rng.random() < 0.3:
            cut(victim.out / "results.csv", rng)
            finished = [row for row in finished if row in victim.rows()]
            done["half a line"] += 1
    trials = len(finished) + 1
    victim.finish(trials)
    victim.nothing_was_made_twice()
    assert victim.rows()[: len(finished)] == finished
    assert [row[0] for row in victim.rows()] == list(range(trials + 1))
    assert {row[2] for row in victim.rows()} == {"ok"}
    assert {row["attempt"] for row in read_results(victim.out)} <= {1, 2, 3}
    if strategy == "random":
        calm = Victim(sweep, folder / "calm", folder / "cache-calm")
        calm.finish(trials)
        assert victim.rows() == calm.rows()
    for lock in [*victim.cache.glob("*/*.lock"), victim.out / ".lock"]:
        with FileLock(str(lock), timeout=0):
            pass
    assert Cache(victim.cache).leftovers() == []
    assert not (victim.out / "running.json").exists()
    done["rows"] = trials + 1
    return done


def test_a_kill_of_each_kind_changes_nothing(tmp_path: Path, tiny_llama: Path) -> None:
    done = disturb(tmp_path, tiny_llama, "random", kills=len(KINDS), seed=1)
    assert all(done[kind] == 1 for kind in KINDS)


@pytest.mark.slow
@pytest.mark.marathon
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("strategy", "kills"), [("random", 40), ("tpe", 16)])
def test_fifty_kills_change_nothing(
    strategy: str, kills: int, tmp_path: Path, tiny_llama: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    counts = disturb(tmp_path, tiny_llama, strategy, kills, seed=2)
    with capsys.disabled():
        print(f"\n{strategy}: " + ", ".join(f"{count} {name}" for name, count in counts.items()))  # noqa: T201
