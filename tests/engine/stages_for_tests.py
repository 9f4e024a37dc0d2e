"""Stages that make trouble, for worker processes: imported there by name."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import ClassVar

from autotune.errors import StageError
from autotune.stages.jobs import Job, Result, TimeJob


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


def quick(job: QuickTimeJob, out: Path) -> Result:
    """Return which process this is."""
    return {"pid": os.getpid(), "torch": "torch" in sys.modules, "itl_ms": [10.0]}


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
            time.sleep(60)
        case "sleep":
            time.sleep(60)
        case "sleep without ears":
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
            time.sleep(60)
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
    return {"pid": os.getpid(), "torch": "torch" in sys.modules, "environment": dict(os.environ)}
