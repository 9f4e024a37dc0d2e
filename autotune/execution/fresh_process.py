"""A fresh process for one job, which holds nothing else: timings need that."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from autotune.errors import MachineError, StageError
from autotune.execution.worker import TOO_LARGE, starting, to_plain
from autotune.machine import oom_kills
from autotune.scratch import Scratch
from autotune.stages.protocol import Job, Result

_ENDED = ("SIGTERM", "SIGINT", "SIGHUP")
"""Signals by which a user or the system ends a process: the candidate did not cause them."""
_NT_ERROR = 0xC0000000
"""An exit code of Windows from here on is the status of a crash."""
_NT_ENDED = {0xC000013A: "Ctrl-C", 0xC0000142: "the session ended", 0x40010004: "the session ended"}
"""Statuses of processes that a user or Windows ends: STATUS_CONTROL_C_EXIT, STATUS_DLL_INIT_FAILED (at log-off),
DBG_TERMINATE_PROCESS."""
_NT_NO_MEMORY = (0xC0000017, 0xC000009A, 0xC000012D)
"""STATUS_NO_MEMORY, STATUS_INSUFFICIENT_RESOURCES, STATUS_COMMITMENT_LIMIT."""
_GROUP = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
"""On Windows a process of a group of its own hears no Ctrl-C, from its first instruction on; elsewhere there is no such
flag."""
_CODE = "import sys; sys.path[:] = {path!r}; from autotune.execution.worker import main; sys.exit(main(sys.argv[1:]))"
"""A fresh process finds modules where the tuner does, and not (as `python -m` would) in the folder where it was started."""


def died(code: int, stage: str, oom_kills: int = 0, memory_mb: float = 0.0) -> StageError:
    """Return the error that an exit code of a dead worker means; `oom_kills`: kills by the system since the stage began."""
    if code == TOO_LARGE:
        return StageError("out_of_memory", f"{stage} needed more memory than workers.memory_mb = {memory_mb:.0f}")
    if sys.platform != "win32" and code == -signal.SIGKILL:
        if oom_kills:
            return StageError("out_of_memory", f"{stage}: the system ran out of memory and killed the process")
        return StageError("lost", f"{stage}: the process was ended from outside (SIGKILL)")
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        if name in _ENDED:
            return StageError("lost", f"{stage}: the process was ended from outside ({name})")
        return StageError("failed", f"{stage}: the process crashed ({name})")
    if code in _NT_ENDED:
        return StageError("lost", f"{stage}: the process was ended from outside ({_NT_ENDED[code]})")
    if code in _NT_NO_MEMORY:
        return StageError("out_of_memory", f"{stage}: the system had no memory left (status {code:#x})")
    if code >= _NT_ERROR:
        return StageError("failed", f"{stage}: the process crashed (status {code:#x})")
    return StageError("lost", f"{stage}: the process ended with exit code {code}")


class Fresh:
    """A fresh process at work. Use it as a context: leaving it ends the process.

    A process with `turns` gets ready and then works only on request, so that several can live side by side.
    """

    def __init__(
        self, job: Job, log: Path, memory_mb: float, timeout: float | None = None, *, turns: bool = False
    ) -> None:
        """`memory_mb`: the most memory of the process, 10^6 bytes; `timeout`: seconds after which it is stopped."""
        self.job, self.memory_mb, self.timeout = job, memory_mb, timeout
        self._kills, self._late = oom_kills(), False
        self._scratch = Scratch("job")
        folder = self._scratch.folder
        file = folder / "job.json"
        file.write_text(json.dumps(to_plain(job)), encoding="utf-8")
        arguments = [sys.executable, "-P", "-c", _CODE.format(path=sys.path), str(file), str(folder), str(log)]
        arguments += [str(os.getpid()), str(memory_mb), *(["turns"] if turns else [])]
        log.parent.mkdir(parents=True, exist_ok=True)
        self._began = time.perf_counter()
        with log.open("ab") as stream, starting():
            pipe = subprocess.PIPE
            self.process = subprocess.Popen(
                arguments,
                bufsize=0,
                stdin=pipe if turns else subprocess.DEVNULL,
                stdout=pipe if turns else stream,
                stderr=stream,
                creationflags=_GROUP,
            )
        self._timer = threading.Timer(min(timeout or threading.TIMEOUT_MAX, threading.TIMEOUT_MAX), self._stop)
        self._timer.daemon = True
        self._timer.start()

    def _stop(self) -> None:
        self._late = True
        self.process.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
        self._scratch.remove()

    def ready(self) -> None:
        """Wait until it can take turns. Raises as `result`."""
        assert self.process.stdout is not None
        if not self.process.stdout.read(1):
            self.result()
            raise StageError("lost", f"{self.job.stage}: the process ended before its turn")

    def turn(self) -> None:
        """Give it a turn, and wait until the turn has ended. Raises as `result`."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):  # it is dead: there will be no answer, and `ready` says why
            self.process.stdin.write(b".")
        self.ready()

    def result(self) -> tuple[Result, float]:
        """Wait for its end. Returns its result, and the seconds since it was started. Raises StageError, MachineError."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        code = self.process.wait()
        seconds = time.perf_counter() - self._began
        if self._late:
            raise StageError("timeout", f"{self.job.stage} ran past {self.timeout:g} s and was stopped")
        answer = self._scratch.folder / "result.json"
        if code != 0 or not answer.exists():
            raise died(code, self.job.stage, oom_kills() - self._kills, self.memory_mb)
        outcome = json.loads(answer.read_text(encoding="utf-8"))
        if "machine" in outcome:
            raise MachineError(outcome["machine"])
        if "status" in outcome:
            raise StageError(outcome["status"], outcome["message"])
        return outcome["result"], seconds
