"""What an order needs on a node that shares no folder with the tuner, only a store: where it lies there, and what is made anew.

Results of jobs, the base model and the items come from the store, each copied to a node once, when a job there reads it.
What stays on the machine that made it (a merged model) is made again on the node that lacks it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from autotune.artifacts.shared_store import HERE as STAYS
from autotune.artifacts.store import INPUTS, Cache
from autotune.execution.cluster_stages import ClusterStages
from autotune.execution.worker import to_plain
from autotune.models import PICKLED, model_files
from autotune.stages.jobs import BaseJob, Job, TurnsJob

CODE = ("file", "root", "code_file", "code_root", "model_file", "graph_file")
"""Paths of a job to the user's own functions: nodes must have these themselves."""


class Carried:
    """What one tuner has put into the store for its nodes. It belongs to one thread."""

    def __init__(self, cache: Cache) -> None:
        """`cache`: one with a shared store."""
        self._cache = cache
        self._sent: dict[Path, str] = {}

    def fields(self, job: Job, artifacts: ClusterStages) -> dict[str, Any]:
        """Return what an order says of where its inputs lie, and its result is to be. Raises as `inputs`."""
        there, again = self.inputs(job, artifacts.places, artifacts.job_of)
        where: dict[str, Any] = {"cache": str(self._cache.shared), "places": {}, "there": there, "again": again}
        return where | {"publish": isinstance(job, BaseJob), "done_with": artifacts.done_with}

    def inputs(
        self, job: Job, places: dict[str, Path], made_by: Callable[[str], Job | None]
    ) -> tuple[dict[str, str], dict[str, dict[str, Any]]]:
        """Return where the inputs of a job lie in the store, by key or by path, and the jobs by key that make the others anew.

        `places`: where inputs from outside the cache lie, by their keys; `made_by`: the job that makes what has a key. Inputs
        from outside are put there. Raises MachineError, OSError.
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
        """Put a file, or the files of a model, there, once. Returns where: `inputs/KEY`, and the name of a single file below it."""
        if path not in self._sent and path.is_dir() and path.parent.parent == self._cache.root:
            assert self._cache.shared is not None
            self._cache.shared.offer(path, always=True)
            self._sent[path] = f"{path.parent.name}/{path.name}"
        if path not in self._sent:
            key = self._cache.put_inputs(_files_of(path))
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
    """Return what an order says of where its inputs lie, and its result is to be, in a folder that all nodes share."""
    places = {key: str(place.resolve()) for key, place in artifacts.places.items()}
    return {"cache": str(artifacts.cache.root.resolve()), "places": places}


def inputs_of(job: Job) -> list[str]:
    """Return the keys of what a job reads."""
    jobs = job.graphs if isinstance(job, TurnsJob) else (job,)
    return [key for one in jobs for field in one.sources.values() if (key := getattr(one, field))]


def brought(job: Job, there: dict[str, str], place: Callable[[str], Path]) -> Job:
    """Return a job whose paths of the tuner's machine are those of this one: `place` brings what lies somewhere in the store."""
    if isinstance(job, TurnsJob):
        return job.model_copy(update={"graphs": tuple(brought(graph, there, place) for graph in job.graphs)})
    paths = {name: getattr(job, name) for name in type(job).model_fields}
    known = {
        name: there[str(value)] for name, value in paths.items() if isinstance(value, Path) and str(value) in there
    }
    return job.model_copy(update={name: place(where) for name, where in known.items()})


def bring(cache: Cache, where: str) -> Path:
    """Copy what lies at `STAGE/KEY` or `STAGE/KEY/FILE` of the store to this machine; return its place. Raises as `Cache.bring`."""
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
