"""Inside a worker process: do one stage, with everything that it prints going to a log file.

Run as `python -m autotune.engine.worker JOB OUT LOG` it is a fresh process for one stage (a timing); called by the
warm worker's pool it is one task among many.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from autotune.errors import StageError
from autotune.stages import jobs
from autotune.stages.jobs import Job, Result

QUIET = {
    "ORT_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "PYTHONUTF8": "1",
}
"""The environment of every process: no telemetry, UTF-8."""

OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
"""Added where the sweep names nothing remote."""


def start(parent: int) -> None:
    """Prepare a worker: Ctrl-C is the tuner's business, and nobody outlives the tuner."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while psutil.pid_exists(parent) and os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextlib.contextmanager
def printed_to(log: Path) -> Iterator[None]:
    """Send what this process prints, native libraries included, to the end of `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
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


def perform(job: Job, out: str, log: str) -> tuple[Result, float]:
    """Do `job` into the folder `out`. Returns its result and its seconds. Raises StageError only.

    Running out of memory and every unforeseen exception become a StageError with one line; the log has the whole.
    """
    began = time.perf_counter()
    with printed_to(Path(log)):
        print(f"--- {job.stage} {json.dumps(job.described(), ensure_ascii=False)}", flush=True)  # noqa: T201
        try:
            result = jobs.function_of(job.stage)(job, Path(out))
        except StageError:
            traceback.print_exc()
            raise
        except MemoryError as error:
            traceback.print_exc()
            raise StageError("out_of_memory", f"{job.stage} ran out of memory") from error
        except Exception as error:  # noqa: BLE001 - whatever a library raises costs one candidate, not the sweep
            traceback.print_exc()
            text = (str(error).strip().splitlines() or [""])[0]
            kind = type(error).__name__
            if "out of memory" in str(error).lower() or "can't allocate memory" in str(error).lower():
                raise StageError("out_of_memory", f"{job.stage} ran out of memory: {text}") from None
            raise StageError("failed", f"{job.stage}: {kind}: {text}"[:500]) from None
        finally:
            _free()
    return result, time.perf_counter() - began


def _free() -> None:
    """Give back what a stage left behind, the GPU's memory above all."""
    import gc

    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def to_plain(job: Job) -> dict[str, Any]:
    """Return a job with all its fields, where things lie included, as plain data for a fresh process."""
    fields = {name: getattr(job, name) for name in type(job).model_fields}
    plain = job.model_dump(mode="json")
    plain |= {name: str(value) for name, value in fields.items() if isinstance(value, Path)}
    return {"class": type(job).__name__, "fields": plain}


def from_plain(data: dict[str, Any]) -> Job:
    """The inverse of `to_plain`."""
    kind: type[Job] = getattr(jobs, data["class"])
    return kind.model_validate(data["fields"])


def main(arguments: list[str]) -> int:
    """Do one job in this fresh process; the outcome goes to `result.json` in the output folder."""
    file, out, log, parent = arguments
    start(int(parent))
    job = from_plain(json.loads(Path(file).read_text(encoding="utf-8")))
    importlib.import_module("autotune.stages")
    outcome: dict[str, Any]
    try:
        result, seconds = perform(job, out, log)
        outcome = {"result": result, "seconds": seconds}
    except StageError as error:
        outcome = {"status": error.status, "message": str(error)}
    (Path(out) / "result.json").write_text(json.dumps(outcome), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
