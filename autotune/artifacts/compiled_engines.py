"""The cache of engines that a provider compiles while a graph is timed. No stage makes them.

Each folder belongs to one graph on one device and driver, with one version of provider and runtime and one set of options. It
describes itself as results do, so the cache can remove folders that were not used for long and keep those in use. The provider
alone reads and checks the files in it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from autotune.artifacts.store import MANIFEST, Cache
from autotune.candidate import digest
from autotune.durable import write_aside
from autotune.errors import StageError
from autotune.providers import PROVIDERS, installed
from autotune.stages.jobs import TimeJob
from autotune.stages.protocol import Result

ENGINES = "engines"


def described(job: TimeJob) -> dict[str, Any] | None:
    """Return the inputs that decide the engines of a timing; None where its provider compiles none."""
    provider = PROVIDERS.get(job.provider)
    if provider is None or not provider.engines_option:
        return None
    return {
        "graph": job.graph, "provider": job.provider, "options": job.provider_options,
        "device": [job.device_index, job.hardware, job.machine],
        "versions": provider.packages | {package: installed(package) for package in job.packages},
    }  # fmt: skip


def with_engines(cache: Cache, job: TimeJob) -> TimeJob:
    """Return a timing with the folder of its engines, where its provider compiles some."""
    known = described(job)
    if known is None:
        return job
    return job.model_copy(update={"engines_dir": cache.root / ENGINES / digest(known)[:32]})


@contextmanager
def in_use(cache: Cache, jobs: Sequence[TimeJob]) -> Iterator[None]:
    """Protect the engines of timings while they run. After a failure, remove engines that have no manifest yet: they may be
    half compiled, and the next timing of the graph compiles them anew.
    """
    folders = {job.engines_dir for job in jobs if job.engines_dir is not None}
    for folder in folders:
        cache.leases.mark(folder)
    failed = False
    try:
        yield
    except StageError:
        failed = True
        raise
    finally:
        for folder in folders:
            cache.leases.unmark(folder)
            if failed and folder.is_dir() and not (folder / MANIFEST).exists():
                cache.remove(folder)


def note(job: TimeJob, processes: Sequence[Result]) -> None:
    """Write the manifest of the engines of a timing that has ended. The seconds to make them are those of its slowest warm-up."""
    folder = job.engines_dir
    if folder is None or not folder.is_dir():
        return
    file = folder / MANIFEST
    with suppress(OSError):  # it is described after the next timing
        if file.exists():
            os.utime(file)
            return
        seconds = max((float(process.get("warm_up_s") or 0.0) for process in processes), default=0.0)
        about = {
            "described": described(job),
            "result": {},
            "seconds": seconds,
            "made": 0.0,
            "model": "",
            "files": {},
        }
        write_aside(file, json.dumps(about, ensure_ascii=False))
