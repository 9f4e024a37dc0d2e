"""Engines that a provider compiles while a graph is timed: kept in the cache, as results that no stage has made.

Each folder is of one graph on one device with its driver, in one version of provider and runtime, with one set of options,
and describes itself as results do; so room is made of those that were not used for long, and never of those in use. What a
provider writes there is its own, and it checks that itself.
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
from autotune.stages.jobs import Result, TimeJob

ENGINES = "engines"


def described(job: TimeJob) -> dict[str, Any] | None:
    """Return what a timing's engines are known by; None where its provider keeps none."""
    provider = PROVIDERS.get(job.provider)
    if provider is None or not provider.engines_option:
        return None
    return {
        "graph": job.graph, "provider": job.provider, "options": job.provider_options,
        "device": [job.device_index, job.hardware, job.machine],
        "versions": provider.packages | {package: installed(package) for package in job.packages},
    }  # fmt: skip


def with_engines(cache: Cache, job: TimeJob) -> TimeJob:
    """Return a timing that knows where its provider keeps engines."""
    known = described(job)
    if known is None:
        return job
    return job.model_copy(update={"engines_dir": cache.root / ENGINES / digest(known)[:32]})


@contextmanager
def in_use(cache: Cache, jobs: Sequence[TimeJob]) -> Iterator[None]:
    """Keep the engines of timings while they run; after a timing that failed, remove those that no timing has described:
    they may be half compiled, and the next timing of the graph compiles them anew.
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
    """Describe the engines of a timing that has ended: what they took to compile is what its slowest first sequence took."""
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
