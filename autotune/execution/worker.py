"""Inside a worker process: do one stage, with all its output going to a log file.

Called as `main([JOB, OUT, LOG, PARENT, MEMORY_MB])` this is a fresh process for one stage (a timing); with `turns` at the
end it works only when the tuner asks. Called by the warm worker's pool it is one task among many.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import io
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import psutil
from pydantic_core import to_jsonable_python

from autotune.errors import Interrupted, MachineError, StageError
from autotune.execution.openmp_waiting import OpenMPWaiting
from autotune.providers import in_worker
from autotune.secrets import redact
from autotune.stages.library_errors import reason, short_of_memory
from autotune.stages.protocol import Job, Result, function_of

QUIET = {
    "ORT_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "PYTHONUTF8": "1",
    "FOR_DISABLE_CONSOLE_CTRL_HANDLER": "1",
}
"""The environment of every process: no telemetry, UTF-8. The last one, for Windows, keeps Intel's Fortran runtime, which
numerical libraries load, from ending a process at Ctrl-C before Python handles it."""

OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
"""Added where the sweep names nothing remote."""

TOO_LARGE = 77
"""The exit code of a worker that needed more memory than it may have."""
_WATCH_S = 0.5


@contextlib.contextmanager
def starting(*, tracked: bool = False) -> Iterator[None]:
    """Keep Ctrl-C and the end of a terminal from processes that are started inside, until `start` has said what they do then.

    Both go to all processes of a terminal, and one that still imports its modules would end with a traceback: its stage would
    count as lost, although the tuner was asked to stop. Windows has no such mask.
    `tracked`: they are of `multiprocessing`, whose own helper must outlive the terminal, too.
    """
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        if tracked:
            resource_tracker.ensure_running()  # first, because its start ends a block of SIGINT
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def start(parent: int, memory_mb: float, often: Callable[[], None] = lambda: None) -> None:
    """Prepare a worker: it ignores Ctrl-C, and ends when the tuner ends or when it needs more than `memory_mb` (10^6 bytes).

    `often` is called twice a second while it lives.
    """
    for name in ("SIGINT", "SIGBREAK"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGHUP})
    in_worker()
    this = psutil.Process()
    alive = _living(parent)

    def watch() -> None:
        while alive():
            if this.memory_info().rss > memory_mb * 1e6:
                os._exit(TOO_LARGE)
            often()
            time.sleep(_WATCH_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _living(tuner: int) -> Callable[[], bool]:
    """Return a function that says whether the tuner, a process that lives now, still lives."""
    if sys.platform != "win32":
        return lambda: os.getppid() == tuner
    # A venv's python.exe starts another one, so the tuner is not the direct parent; and process ids are reused.
    try:
        process = psutil.Process(tuner)
    except psutil.Error:
        return lambda: False
    return process.is_running


def start_warm(parent: int, memory_mb: float, environment: Mapping[str, str] | None = None) -> None:
    """Prepare a worker that does task after task. `environment`: variables of its slot.

    PyTorch's threads wait as the load of the machine asks for. Those of a timing do not, because deployed models do not either.
    """
    environment = dict(environment or {})
    if (gpu := environment.pop("CUDA_VISIBLE_DEVICES", None)) is not None:  # one of those in the user's own value
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    for name, value in environment.items():  # PyTorch reads them when it is imported, later
        os.environ.setdefault(name, value)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    start(parent, memory_mb, OpenMPWaiting().adjust)
    with contextlib.suppress(ImportError):
        from tqdm import tqdm

        # Its own lock is a semaphore between processes, which is left behind when a worker is stopped.
        tqdm.set_lock(threading.RLock())


def _write_to_descriptors() -> None:
    """Make Python's own output follow the descriptors 1 and 2.

    On Windows the stream of a console is bound to the console: once its descriptor points to a file, each print fails. And
    a process without a console has no stream at all. On other systems nothing is changed.
    """
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is None or isinstance(getattr(getattr(stream, "buffer", None), "raw", None), _console()):
            with contextlib.suppress(AttributeError, OSError, ValueError):
                stream.flush()
            raw = io.FileIO(number, "w", closefd=False)
            plain = io.TextIOWrapper(io.BufferedWriter(raw), "utf-8", errors="replace", line_buffering=True)
            setattr(sys, name, plain)


def _console() -> type | tuple[type, ...]:
    """Return the class of a Windows console's raw stream, for `isinstance`; an empty tuple on other systems."""
    found = getattr(io, "_WindowsConsoleIO", None)
    return found if isinstance(found, type) else ()


@contextlib.contextmanager
def printed_to(log: Path) -> Iterator[None]:
    """Send what this process prints, native libraries included, to the end of `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    _write_to_descriptors()
    sys.stdout.flush()
    sys.stderr.flush()
    saved = [(fd, os.dup(fd)) for fd in (1, 2)]
    with log.open("ab", buffering=0) as stream:
        try:
            for fd, _ in saved:
                os.dup2(stream.fileno(), fd)
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for fd, copy in saved:
                os.dup2(copy, fd)
                os.close(copy)


_NO_SPACE = ("no space left on device", "not enough space on the disk", "disk quota exceeded")


def _understood(stage: str, error: BaseException) -> StageError | MachineError:
    """Return the error of ours for an unforeseen exception, with a message of one line without secrets."""
    said, kind = redact(reason(error)), type(error).__name__
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    if full or any(words in str(error).lower() for words in _NO_SPACE):
        remedy = "free some space, then run the same command again"
        return MachineError(f"{stage}: the disk is full ({said}); {remedy}")
    if short_of_memory(error):
        return StageError("out_of_memory", f"{stage} ran out of memory: {said}"[:500])
    return StageError("failed", f"{stage}: {kind}: {said}"[:500] if said != kind else f"{stage}: {kind}")


def perform(job: Job, out: str, log: str, *more: Any) -> tuple[Result, float]:
    """Do `job` into the folder `out`; `more`: arguments of its function. Returns its result and its seconds.

    Running out of memory and every unforeseen exception become a StageError with one line; the log has the traceback. Raises
    StageError; MachineError where the disk is full; Interrupted.
    """
    began = time.perf_counter()
    with printed_to(Path(log)):
        print(f"--- {job.stage} {json.dumps(job.described(), ensure_ascii=False)}", flush=True)  # noqa: T201
        try:
            result = function_of(job)(job, Path(out), *more)
        except StageError as error:
            traceback.print_exc()
            raise StageError(error.status, redact(str(error))) from None
        except Interrupted:
            raise
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a library raises costs one candidate
            traceback.print_exc()
            raise _understood(job.stage, error) from None
        finally:
            _free()
    return result, time.perf_counter() - began


def _free() -> None:
    """Free the memory that a stage left behind, above all the GPU's."""
    import gc

    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def to_plain(job: Job) -> dict[str, Any]:
    """Return a job with all its fields, paths included, as plain data for another process."""
    plain = job.model_dump(mode="json")
    for name, info in type(job).model_fields.items():
        value = getattr(job, name)
        if isinstance(value, tuple) and value and all(isinstance(one, Job) for one in value):
            plain[name] = [to_plain(one) for one in value]
        elif info.exclude:
            plain[name] = to_jsonable_python(value)
    return {"module": type(job).__module__, "class": type(job).__name__, "fields": plain}


def from_plain(data: dict[str, Any]) -> Job:
    """The inverse of `to_plain`."""
    kind: type[Job] = getattr(importlib.import_module(data["module"]), data["class"])
    return kind.model_validate({name: _jobs_in(value) for name, value in data["fields"].items()})


def _jobs_in(value: Any) -> Any:
    """Return a field's value with the jobs in it restored from plain data."""
    jobs = isinstance(value, list) and bool(value) and all(isinstance(one, dict) and "class" in one for one in value)
    return tuple(from_plain(one) for one in value) if jobs else value


def _turns(answers: int) -> Iterator[None]:
    """Yield each time that the tuner requests a turn, and answer when the turn has ended; end when the tuner closes the pipe.

    A request is a byte on standard input, and an answer a byte on the descriptor `answers`. The first answer means ready.
    """
    os.write(answers, b".")
    while os.read(0, 1):
        yield
        os.write(answers, b".")


def main(arguments: list[str]) -> int:
    """Do one job in this fresh process; the outcome goes to `result.json` in the output folder."""
    file, out, log, parent, memory_mb, *turns = arguments
    asked = [_turns(os.dup(1))] if turns else []  # standard output will be the log's
    start(int(parent), float(memory_mb))
    job = from_plain(json.loads(Path(file).read_text(encoding="utf-8")))
    outcome: dict[str, Any]
    try:
        result, seconds = perform(job, out, log, *asked)
        outcome = {"result": result, "seconds": seconds}
    except StageError as error:
        outcome = {"status": error.status, "message": str(error)}
    except MachineError as error:
        outcome = {"machine": str(error)}
    (Path(out) / "result.json").write_text(json.dumps(outcome), encoding="utf-8")
    return 0
