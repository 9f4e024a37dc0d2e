"""Kill a tiny real sweep at random moments, resume it each time, and compare with an undisturbed run.

The strategy is `random`, whose choices do not depend on timings: candidates, statuses and scores must come out the same.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest

from autotune.store.record import read_results

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")

ROOT = Path(__file__).parent.parent


def write_sweep(folder: Path, model: Path) -> Path:
    """Write a sweep of six quick candidates on the tiny model."""
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
        "target": {"provider": "cpu", "workload": {"prompt_tokens": 8, "new_tokens": 4}},
        "space": {
            "lora": {"r": {"choice": [2, 4]}, "learning_rate": {"loguniform": [1e-4, 1e-2]}, "steps": 6},
            "build": [{"precision": "int8"}, {"precision": "int4"}],
        },
        "strategy": "random",
        "budget": {"trials": 6},
    }  # fmt: skip
    file = folder / "sweep.json"
    file.write_text(json.dumps(sweep), encoding="utf-8")
    return file


def start(sweep: Path, out: Path, cache: Path) -> subprocess.Popen[str]:
    """Start the sweep in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "autotune", "run", str(sweep), "--out", str(out)],
        cwd=ROOT, env={**os.environ, "AUTOTUNE_CACHE": str(cache)}, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, encoding="utf-8",
    )  # fmt: skip


def outcome(out: Path) -> list[tuple[Any, ...]]:
    """Return what must not depend on disturbances: candidates in order, statuses, scores."""
    rows = sorted(read_results(out), key=lambda row: row["trial"])
    return [
        (row["trial"], row["candidate"], row["status"], row["accuracy"], row["train_loss"], row["graph"])
        for row in rows
    ]


def wait_for_none(pids: list[int], seconds: float = 10.0) -> list[int]:
    """Wait until none of the processes is left; return those that are."""
    end = time.monotonic() + seconds
    left = pids
    while left and time.monotonic() < end:
        left = [pid for pid in left if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]
        time.sleep(0.1)
    return left


def disturb(folder: Path, model: Path, kills: int, seed: int) -> Counter[str]:
    """Disturb a sweep `kills` times, let it finish, and compare. Returns what was killed how often."""
    rng = random.Random(seed)
    sweep = write_sweep(folder, model)
    calm = start(sweep, folder / "calm", folder / "cache-calm")
    began = time.monotonic()
    _, errors = calm.communicate(timeout=300)
    assert calm.returncode == 0, errors
    whole = time.monotonic() - began

    out, cache = folder / "disturbed", folder / "cache-disturbed"
    done: Counter[str] = Counter()
    truncated = 0
    while sum(done.values()) < kills:
        process = start(sweep, out, cache)
        time.sleep(rng.uniform(0.3, 0.7 * whole))
        if process.poll() is not None:  # it had finished: begin a new one, the cache alone remembers
            assert process.returncode == 0, process.stderr.read() if process.stderr else ""
            done["finished in between"] += 0
            for file in ("results.csv", "curves.csv"):
                table = out / file
                lines = table.read_text(encoding="utf-8").splitlines(keepends=True)
                table.write_text("".join(lines[: rng.randint(1, len(lines))]), encoding="utf-8")
            continue
        children = psutil.Process(process.pid).children(recursive=True)
        what = rng.choice(["tuner", "worker", "group"])
        if what == "worker" and children:
            rng.choice(children).kill()
            process.communicate(timeout=300)
            assert process.returncode in (0, 5)
        elif what == "group":
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate(timeout=60)
        else:
            what = "tuner"
            process.kill()
            process.communicate(timeout=60)
        done[what] += 1
        assert wait_for_none([child.pid for child in children]) == [], f"a process outlived the {what}"
        if rng.random() < 0.3 and (out / "results.csv").exists():  # a power cut on top: half a line
            with (out / "results.csv").open("rb+") as stream:
                size = stream.seek(0, os.SEEK_END)
                stream.truncate(max(0, size - rng.randint(1, 40)))
            truncated += 1
    last = start(sweep, out, cache)
    _, errors = last.communicate(timeout=300)
    assert last.returncode == 0, errors
    assert outcome(out) == outcome(folder / "calm")
    made = Counter(path.parent.name for path in cache.glob("*/*/manifest.json"))
    calm_made = Counter(path.parent.name for path in (folder / "cache-calm").glob("*/*/manifest.json"))
    assert made == calm_made
    assert not list(out.glob("running.json"))
    done["half a line cut off"] = truncated
    return done


def test_a_dozen_kills(tmp_path: Path, tiny_llama: Path) -> None:
    counts = disturb(tmp_path, tiny_llama, kills=12, seed=1)
    print(dict(counts))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_fifty_kills(tmp_path: Path, tiny_llama: Path) -> None:
    counts = disturb(tmp_path, tiny_llama, kills=50, seed=2)
    print(dict(counts))
