"""Workers that outlive their command, so that the next command of the tests finds one that has loaded its libraries.

They are the real worker processes. Only their end is put off, and before each job they get the working directory, the
environment and the module path that a new one would have. What is tested of workers themselves, or of modules that users
write, does without.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pebble import ProcessPool

from autotune.execution import warm_worker, worker, workers
from autotune.execution.warm_worker import WarmWorker

OWN = {"CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS"}
"""Variables that a worker sets itself when it starts."""
READ_ONCE = ("HF_", "OMP_", "GOMP_", "MKL_", "PYTHON", "TRANSFORMERS_", "CUDA_", "ORT_", "VK_")
"""Beginnings of the names of variables that libraries read when they are imported."""


class Performing:
    """`worker.perform`, where the tuner is: it is pickled with the tuner's working directory, environment and module path."""

    def __init__(
        self, folder: str = "", variables: dict[str, str] | None = None, path: list[str] | None = None
    ) -> None:
        self.folder, self.variables, self.path = folder, variables or {}, path or []

    def __reduce__(self) -> tuple[type[Performing], tuple[str, dict[str, str], list[str]]]:
        return Performing, (str(Path.cwd()), dict(os.environ), list(sys.path))

    def __call__(self, *given: Any) -> Any:
        """Do a job, in a worker."""
        os.chdir(self.folder)
        for name in set(os.environ) - set(self.variables) - OWN:
            del os.environ[name]
        os.environ.update({name: value for name, value in self.variables.items() if name not in OWN})
        sys.path[:] = self.path
        return worker.perform(*given)


class KeptWorker(WarmWorker):
    """A worker whose process waits for the next worker of its kind when it should end."""

    idle: ClassVar[dict[object, list[ProcessPool]]] = {}
    kind: object = None

    def _kind(self) -> object:
        read = sorted((name, value) for name, value in os.environ.items() if name.startswith(READ_ONCE))
        return self.memory_mb, tuple(sorted(self.environment.items())), tuple(read)

    def _started(self) -> ProcessPool:
        if self._pool is None:
            self.kind = self._kind()
        waiting = self.idle.get(self.kind, [])
        while self._pool is None and waiting:
            pool = waiting.pop()
            if pool.active:
                self._pool = pool
            else:
                pool.stop()
                pool.join()
        return super()._started()

    def end(self, gently: bool = False) -> None:
        if gently and self._pool is not None and self._pool.active and not self.idle.get(self.kind):
            self.idle[self.kind] = [self._pool]
            self._pool = None
        super().end(gently)


def keep(patch: pytest.MonkeyPatch) -> None:
    """Let commands in this process keep their workers."""
    patch.setattr(workers, "WarmWorker", KeptWorker)
    patch.setattr(warm_worker, "perform", Performing())


def end_all() -> None:
    """End the workers that wait."""
    while KeptWorker.idle:
        for pool in KeptWorker.idle.popitem()[1]:
            pool.close()
            pool.join()
