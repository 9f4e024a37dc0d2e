"""The inputs of an order for a node that shares no folder with the tuner, only a store.

The node copies results, the base model and the items from the store, each once, when a job there reads them. Results that
stay on the machine that made them (merged models) are made again on a node that lacks them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from autotune.artifacts.makers import Maker
from autotune.artifacts.shared_store import HERE as STAYS
from autotune.artifacts.store import INPUTS, Cache
from autotune.execution.cluster_stages import ClusterStages
from autotune.execution.worker import to_plain
from autotune.model_files import PICKLED
from autotune.models import model_files
from autotune.stages.jobs import TurnsJob
from autotune.stages.preparation_jobs import BaseJob
from autotune.stages.protocol import Job

CODE = ("file", "root", "code_file", "code_root", "model_file", "graph_file")
"""Fields of a job with paths to the user's own functions: these files must be on all nodes."""


class SentInputs:
    """The inputs that one tuner has put into the store for its nodes. It belongs to one thread."""

    def __init__(self, cache: Cache, waiting: Callable[[str], Callable[[Maker | None, float], None]]) -> None:
        """`cache`: one with a shared store; `waiting` returns for an input, in words, what is called while another process sends
        it, as in `Cache.make`.
        """
        self._cache, self._waiting = cache, waiting
        self._sent: dict[Path, str] = {}

    def fields(self, job: Job, artifacts: ClusterStages) -> dict[str, Any]:
        """Return the fields of an order that say where its inputs lie and where its result belongs. Raises as `inputs`."""
        there, again = self.inputs(job, artifacts.places, artifacts.job_of)
        where: dict[str, Any] = {"cache": str(self._cache.shared), "places": {}, "there": there, "again": again}
        return where | {"publish": isinstance(job, BaseJob), "done_with": artifacts.done_with}

    def inputs(
        self, job: Job, places: dict[str, Path], made_by: Callable[[str], Job | None]
    ) -> tuple[dict[str, str], dict[str, dict[str, Any]]]:
        """Return the places of a job's inputs in the store, by key or path, and by key the jobs that make the other inputs anew.

        `places`: paths of inputs from outside the cache, by key; they are put into the store. `made_by`: returns the job that
        makes the result with a key. Raises MachineError, OSError.
        """
        there: dict[str, str] = {}
        again: dict[str, dict[str, Any]] = {}
        waiting: list[Job] = list(job.graphs) if isinstance(job, TurnsJob) else [job]
        while waiting:
            one = waiting.pop()
            for path, key_field in one.sources.items():
                key, given = getattr(one, key_field), getattr(one, path)
                if given not in (None, Path()) or not key or key in there or key in again:
                    continue
                made = made_by(key)
                if key in places:
                    there[key] = self._put(places[key])
                elif made is not None and made.stage in STAYS:
                    again[key] = to_plain(made)
                    waiting.append(made)
                elif made is not None:
                    there[key] = f"{made.stage}/{key}"
            for name in type(one).model_fields:
                value = getattr(one, name)
                if name not in CODE and isinstance(value, Path) and value != Path() and value.exists():
                    there[str(value)] = self._put(value)
        return there, again

    def _put(self, path: Path) -> str:
        """Put a file, or the files of a model, into the store, once. Returns `inputs/KEY`, or `inputs/KEY/FILE` for one file."""
        if path not in self._sent and path.is_dir() and path.parent.parent == self._cache.root:
            assert self._cache.shared is not None
            waiting = self._waiting(f"{path.parent.name} {path.name[:8]} in the shared cache")
            self._cache.shared.offer(path, always=True, waiting=waiting)
            self._sent[path] = f"{path.parent.name}/{path.name}"
        if path not in self._sent:
            key = self._cache.put_inputs(_files_of(path), self._waiting(f"{path} in the shared cache"))
            self._sent[path] = f"{INPUTS}/{key}" + ("" if path.is_dir() else f"/{path.name}")
        return self._sent[path]


def _files_of(path: Path) -> dict[str, Path]:
    """Return a file, or the files of a model's folder, by their names."""
    if not path.is_dir():
        return {path.name: path}
    built = (path / "genai_config.json").exists() or not (path / "config.json").exists()
    files = [file for file in path.rglob("*") if file.is_file()] if built else model_files(path)
    names = ((file.relative_to(path).as_posix(), file) for file in sorted(files) if not file.name.endswith(PICKLED))
    return dict(names)


def in_folder(artifacts: ClusterStages) -> dict[str, Any]:
    """Return the same fields of an order, for nodes that share the folder of the cache."""
    places = {key: str(place.resolve()) for key, place in artifacts.places.items()}
    return {"cache": str(artifacts.cache.root.resolve()), "places": places}


def inputs_of(job: Job) -> list[str]:
    """Return the keys of a job's inputs."""
    jobs = job.graphs if isinstance(job, TurnsJob) else (job,)
    return [key for one in jobs for field in one.sources.values() if (key := getattr(one, field))]


def brought(job: Job, there: dict[str, str], place: Callable[[str], Path]) -> Job:
    """Return a job with paths of this machine in place of the tuner's; `place` copies an input from its place in the store."""
    if isinstance(job, TurnsJob):
        return job.model_copy(update={"graphs": tuple(brought(graph, there, place) for graph in job.graphs)})
    paths = {name: getattr(job, name) for name in type(job).model_fields}
    known = {
        name: there[str(value)] for name, value in paths.items() if isinstance(value, Path) and str(value) in there
    }
    return job.model_copy(update={name: place(where) for name, where in known.items()})


def bring(cache: Cache, where: str) -> Path:
    """Copy `STAGE/KEY` or `STAGE/KEY/FILE` from the store to this machine. Returns its path. Raises as `Cache.bring`."""
    stage, key, *file = where.split("/")
    return cache.bring(stage, key).joinpath(*file)


@contextlib.contextmanager
def in_use(cache: Cache, where: list[Path]) -> Iterator[None]:
    """Keep results of this machine's cache while a job reads them. Raises OSError, MachineError."""
    for folder in where:
        cache.leases.mark(folder)
    try:
        yield
    finally:
        for folder in where:
            cache.leases.unmark(folder)
