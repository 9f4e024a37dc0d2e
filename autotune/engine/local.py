"""Run stages on this machine: one warm worker process, and fresh processes for timings.

The warm worker imports torch once and does task after task. It is killed when a task runs past its time, and replaced
when it dies; both cost the task alone.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import TimeoutError as TaskTimeout
from concurrent.futures import wait
from pathlib import Path
from types import TracebackType
from typing import Self

from pebble import ProcessExpired, ProcessPool

from autotune.engine.quiet import HostLock
from autotune.engine.worker import OFFLINE, QUIET, TOO_LARGE, perform, start_warm, to_plain
from autotune.errors import MachineError, StageError
from autotune.machine import oom_kills, total_memory_mb
from autotune.metrics import RESOLUTION_MS
from autotune.search.statistics import paired_ratio, t_interval
from autotune.secrets import redact_file
from autotune.stages.jobs import Job, Result, TimeJob, TurnsJob

_ENDED = ("SIGTERM", "SIGINT", "SIGHUP")
"""Signals by which somebody ends a process; it is not the candidate's doing."""
MEMORY_SHARE = 0.95
"""The share of this machine's memory beyond which a worker would only make it swap."""
_NT_ERROR = 0xC0000000
"""From here on an exit code of Windows is the status that a process crashed with."""


def _died(code: int, stage: str, oom_kills: int = 0, memory_mb: float = 0.0) -> StageError:
    """Say what an exit code of a dead worker means; `oom_kills`: of the system since the stage began."""
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
    if code >= _NT_ERROR:
        return StageError("failed", f"{stage}: the process crashed (status {code:#x})")
    return StageError("lost", f"{stage}: the process ended with exit code {code}")


def narrow(rounds: Sequence[Sequence[Result]], precision: float) -> bool:
    """Whether the times between tokens are known to a share of `precision`, or well enough: that of the first model as
    the mean over its processes where it is alone, else those of the others in relation to it. `rounds`: [round][model].
    """
    if len(rounds) < 2:
        return False
    first, *others = ([statistics.median(result["itl_ms"]) for result in model] for model in zip(*rounds, strict=True))
    enough = max(precision, RESOLUTION_MS / statistics.fmean(first))
    if not others:
        low, high = t_interval(first)
        return high - low <= 2 * enough * statistics.fmean(first)
    ratios = [paired_ratio(other, first) for other in others]
    return all(ratio.high - ratio.low <= 2 * enough * ratio.value for ratio in ratios)


_FRESH = "import sys; sys.path[:] = {path!r}; from autotune.engine.worker import main; sys.exit(main(sys.argv[1:]))"
"""A fresh process finds modules where the tuner does, and not (as `python -m` would) in the folder where it was started."""
LEAVE_S = 20
"""Seconds that a worker has to end by itself."""
_POLL_S = 0.5
"""How often the tuner looks up from waiting: on Windows a signal is heard only then."""


class LocalEngine:
    """Workers of this machine. Use it as a context: leaving it ends every process."""

    def __init__(self, offline: bool = True, memory_mb: float | None = None) -> None:
        """`memory_mb`: the memory of one worker, 10^6 bytes; None: nearly all that this machine has."""
        os.environ.update(QUIET)
        if offline:
            os.environ.update(OFFLINE)
        self.memory_mb = memory_mb if memory_mb is not None else MEMORY_SHARE * total_memory_mb()
        self.host = HostLock()
        self._pool: ProcessPool | None = None
        self._log, self._clean = Path(), 0
        """The log that was written last, and how many bytes of it hold no secrets."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(gently=error is None)

    def _end(self, gently: bool = False) -> None:
        """End the worker; `gently` it may clean up, or Python warns of semaphores that libraries left there."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        try:
            if gently and pool.active:
                pool.close()
                with contextlib.suppress(TimeoutError):
                    pool.join(timeout=LEAVE_S)
                    return
            pool.stop()
            pool.join()
        finally:
            self._cleaned(self._log)

    def _cleaned(self, log: Path) -> None:
        """Take secrets out of what was written to a log: libraries write there by themselves.

        A log is read from its beginning at first, because a run of the command that was killed may have left some.
        """
        if log != self._log:
            self._log, self._clean = log, 0
        self._clean = redact_file(log, self._clean)

    def _warm(self) -> ProcessPool:
        # A worker that dies between two tasks (a system short of memory takes the largest) breaks pebble's pool.
        if self._pool is not None and not self._pool.active:
            self._end()
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPool(
                max_workers=1, context=context, initializer=start_warm, initargs=[os.getpid(), self.memory_mb]
            )
        return self._pool

    def run(self, job: Job, out: Path, log: Path, timeout: float | None = None) -> tuple[Result, float]:
        """Do a job in the warm worker. Returns its result and its seconds. Raises StageError, MachineError, Interrupted."""
        kills = oom_kills()
        try:
            with self.host.shared():
                future = self._warm().schedule(perform, args=[job, str(out), str(log)], timeout=timeout)
                while not future.done():
                    wait([future], timeout=_POLL_S)
            result: tuple[Result, float] = future.result()
        except TaskTimeout:
            raise StageError("timeout", f"{job.stage} ran past {timeout:g} s and was stopped") from None
        except ProcessExpired as error:
            raise _died(error.exitcode or 0, job.stage, oom_kills() - kills, self.memory_mb) from None
        except RuntimeError as error:  # pebble's pool is broken
            self._end()
            raise StageError("lost", f"{job.stage}: the worker process was lost ({error})") from None
        finally:
            self._cleaned(log)
        return result

    def run_fresh(self, job: Job, log: Path, timeout: float | None = None) -> tuple[Result, float]:
        """Do a job in a process of its own that holds nothing else. Returns as `run`. Raises as `run`."""
        with tempfile.TemporaryDirectory(prefix="autotune-") as scratch:
            file = Path(scratch) / "job.json"
            file.write_text(json.dumps(to_plain(job)), encoding="utf-8")
            arguments = [sys.executable, "-P", "-c", _FRESH.format(path=sys.path), str(file), scratch, str(log)]
            arguments += [str(os.getpid()), str(self.memory_mb)]
            kills = oom_kills()
            log.parent.mkdir(parents=True, exist_ok=True)
            began = time.perf_counter()
            with log.open("ab") as stream:
                process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream)
                try:
                    code = process.wait(timeout)
                except subprocess.TimeoutExpired:
                    raise StageError("timeout", f"{job.stage} ran past {timeout:g} s and was stopped") from None
                finally:
                    process.kill()
                    process.wait()
                    self._cleaned(log)
            answer = Path(scratch) / "result.json"
            if code != 0 or not answer.exists():
                raise _died(code, job.stage, oom_kills() - kills, self.memory_mb)
            outcome = json.loads(answer.read_text(encoding="utf-8"))
        if "machine" in outcome:
            raise MachineError(outcome["machine"])
        if "status" in outcome:
            raise StageError(outcome["status"], outcome["message"])
        return outcome["result"], time.perf_counter() - began

    def time(
        self, job: TimeJob | TurnsJob, log: Path, timeout: float | None = None
    ) -> tuple[list[list[Result]], float]:
        """Time a model, or several in turns, in fresh processes, one after another and alone on this host.

        A round is one process of each model, every other round in the opposite order. At least `job.processes` rounds,
        and more until their medians are known to `job.precision`, or `job.most` have run. Returns what was measured
        [round][model], and the seconds in all. Raises as `run`.
        """
        jobs = job.graphs if isinstance(job, TurnsJob) else (job,)
        rounds: list[list[Result]] = []
        total = 0.0
        with self.host.alone():
            while len(rounds) < job.processes or (len(rounds) < job.most and not narrow(rounds, job.precision)):
                places = range(len(jobs))
                results: dict[int, Result] = {}
                for place in places if len(rounds) % 2 == 0 else reversed(places):
                    results[place], seconds = self.run_fresh(jobs[place], log, timeout)
                    total += seconds
                rounds.append([results[place] for place in places])
        return rounds, total
