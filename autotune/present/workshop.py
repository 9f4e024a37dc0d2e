"""Sets up workers, cache and log for a command that makes or tests one model."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from autotune.artifacts.place import check_place
from autotune.artifacts.room import Room, budget_mb
from autotune.artifacts.store import Cache, default_root
from autotune.errors import MachineError, StageError, printable, refused_by_system
from autotune.execution.executor import Stages
from autotune.execution.local import LocalEngine
from autotune.machine import name_full_disk
from autotune.secrets import redact
from autotune.stages.protocol import Job, Result


def say(line: str) -> None:
    """Print a progress line or a note to stderr."""
    sys.stderr.write(f"autotune: {printable(redact(line))}\n")
    sys.stderr.flush()


@dataclass(frozen=True)
class Workshop:
    """The workers and the cache of a command."""

    cache: Cache
    stages: Stages
    engine: LocalEngine
    log: Path

    def alone(self, job: Job) -> Result:
        """Do a job in a fresh process that holds nothing else. Raises StageError."""
        return self.stages.alone(job)[0]


@contextlib.contextmanager
def workshop(name: str, model: str = "", offline: bool = True) -> Iterator[Workshop]:
    """Open a workshop for the command `name`, whose log is in the cache. Errors of the disk become MachineError."""
    cache = Cache(default_root())
    log = cache.root / "logs" / f"{name}.log"
    check_place(cache.root)
    try:
        with LocalEngine(offline, say=say) as engine:
            stages = Stages(cache, engine, lambda: log, model, room=Room(cache, budget_mb()), say=say)
            with contextlib.closing(stages):
                yield Workshop(cache, stages, engine, log)
    except StageError as error:
        raise MachineError(f"{error}; the log is {log}") from None
    except OSError as error:
        if isinstance(error, BrokenPipeError):  # whoever reads what we print has gone
            raise
        name_full_disk(error, cache.root)
        raise MachineError(refused_by_system(error)) from error
