"""Stages that make trouble, for worker processes: imported there by name."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

from autotune.errors import StageError
from autotune.stages.jobs import TimeJob
from autotune.stages.protocol import Job, Result


class TroubleJob(Job):
    """Do what `what` says."""

    stage: ClassVar[str] = "trouble"
    function: ClassVar[str] = "stages_for_tests:trouble"

    what: str = "nothing"
    signal: int = 0
    pid_file: str = ""


class QuickTimeJob(TimeJob):
    """A timing that measures nothing."""

    function: ClassVar[str] = "stages_for_tests:quick"


def quick(job: QuickTimeJob, out: Path, turns: Iterable[None] | None = None) -> Result:
    """Return which process this is. With turns: of a graph "b 0.3" that it is about twice as slow as others, and not steady: by that share.

    `since` names a trouble.
    """
    found: Result = {"pid": os.getpid(), "torch": "torch" in sys.modules, "itl_ms": [10.0], "began": time.time()}
    if job.since == "refused":
        raise StageError("unsupported", "the build does not load")
    if turns is None:
        return found
    if job.since == "out of memory in turns":
        raise MemoryError
    slow, _, wobble = job.graph.partition(" ")
    pace = 10.0
    if slow == "b":  # every other process of it is slower by that share: chance would now and then make it steady
        earlier = len(list(job.model_dir.glob("b-*")))
        (job.model_dir / f"b-{os.getpid()}").touch()
        pace = 20.0 * (1 + float(wobble) * (earlier % 2))
    when, laps = [], []
    for lap, _ in enumerate(turns):
        match job.since:
            case "refused at a turn":
                raise StageError("unsupported", "the build does not run")
            case "exit at a turn":
                os._exit(3)
            case "hang at a turn":
                time.sleep(600)
        when.append(time.time())
        laps.append({"itl_ms": [pace * 1.1**lap] * 3} if lap % 2 else {"ttft_ms": [50.0]})
    return found | {"when": when, "laps": laps, "itl_ms": [ms for lap in laps[1::2] for ms in lap["itl_ms"]]}


def trouble(job: TroubleJob, out: Path) -> Result:
    """Make the trouble that is asked for; without any, report on this process."""
    if job.pid_file:
        Path(job.pid_file).write_text(str(os.getpid()), encoding="utf-8")
    match job.what:
        case "stage error":
            raise StageError("diverged", "the loss became nan")
        case "error":
            raise KeyError("a line\nand another")
        case "error without words":
            raise ValueError
        case "memory":
            raise MemoryError
        case "gpu memory":
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
        case "disk":
            raise OSError(28, "No space left on device", str(out / "model.onnx"))
        case "disk said by a library":
            raise RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")
        case "exit":
            raise SystemExit(2)
        case "exit at once":
            os._exit(3)
        case "exit at once, well":
            os._exit(0)
        case "signal":
            os.kill(os.getpid(), job.signal)
            time.sleep(600)
        case "sleep":
            time.sleep(600)
        case "sleep without ears":
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
            time.sleep(600)
        case "print":
            print("printed by Python")  # noqa: T201 - into the log
            os.write(1, b"written to fd 1\n")
            os.write(2, b"written to fd 2\n")
            subprocess.run([sys.executable, "-c", "print('printed by a child')"], check=True)
        case "file":
            (out / "file.txt").write_text("content", encoding="utf-8")
        case "nothing":
            pass
        case _:
            raise AssertionError(job.what)
    names = [thread.name for thread in threading.enumerate()]
    return {"pid": os.getpid(), "torch": "torch" in sys.modules, "environment": dict(os.environ), "threads": names}
