"""The cache: a folder for every stage result, named by the digest of all that went into it.

A result is made aside, under a lock, and renamed when it is whole, its manifest written last. Only successes are kept.
Sweeps share it.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs
from filelock import FileLock

from autotune.stages.jobs import Job, Result

MANIFEST = "manifest.json"


def default_root() -> Path:
    """Return where the cache lies: `AUTOTUNE_CACHE`, or the user's cache folder."""
    named = os.environ.get("AUTOTUNE_CACHE")
    return Path(named).expanduser() if named else Path(platformdirs.user_cache_dir("autotune", appauthor=False))


@dataclass(frozen=True)
class Stored:
    """A stage result: its folder, what the stage reported, and the seconds that it took when it was made."""

    path: Path
    result: Result
    seconds: float
    cached: bool
    """Whether it was there already."""


class Cache:
    """A folder of stage results."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, job: Job) -> Path:
        """Return where a job's result lies, or would lie."""
        return self.root / job.stage / job.key

    def find(self, job: Job) -> Stored | None:
        """Return a job's result if it is there and whole."""
        folder = self.folder(job)
        try:
            manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            for name, size in manifest["files"].items():
                if (folder / name).stat().st_size != size:
                    return None
            return Stored(folder, manifest["result"], manifest["seconds"], cached=True)
        except (OSError, ValueError, KeyError):
            return None

    def make(self, job: Job, run: Callable[[Path], tuple[Result, float]], model: str = "") -> Stored:
        """Return a job's result, made by `run(folder)` if it is not there.

        `model` is noted beside it, for estimates. What `run` raises passes, and nothing is kept.
        """
        found = self.find(job)
        if found is not None:
            return found
        folder = self.folder(job)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(str(folder) + ".lock"):
            found = self.find(job)
            if found is not None:
                return found
            aside = Path(tempfile.mkdtemp(prefix=f".{job.key[:12]}-", dir=folder.parent))
            try:
                result, seconds = run(aside)
                files = {
                    path.relative_to(aside).as_posix(): path.stat().st_size
                    for path in aside.rglob("*")
                    if path.is_file()
                }
                manifest = {
                    "described": job.described(),
                    "result": result,
                    "seconds": seconds,
                    "made": time.time(),
                    "model": model,
                    "files": files,
                }
                (aside / MANIFEST).write_text(json.dumps(manifest, ensure_ascii=False), encoding="utf-8")
                shutil.rmtree(folder, ignore_errors=True)
                aside.rename(folder)
            except BaseException:
                shutil.rmtree(aside, ignore_errors=True)
                raise
        return Stored(folder, result, seconds, cached=False)

    def drop(self, stage: str, except_keys: Collection[str] = ()) -> None:
        """Remove the results of a stage that can be made again cheaply (merged models), but for some."""
        for folder in (self.root / stage).glob("[0-9a-f]*"):
            if folder.is_dir() and folder.name not in except_keys:
                with FileLock(str(folder) + ".lock"):
                    shutil.rmtree(folder, ignore_errors=True)

    def measured(self, stage: str, model: str) -> list[tuple[dict[str, Any], Result, float]]:
        """Return (inputs, result, seconds) of a stage's results for a model: what earlier sweeps cost here."""
        found = []
        for file in (self.root / stage).glob(f"*/{MANIFEST}"):
            try:
                manifest = json.loads(file.read_text(encoding="utf-8"))
                if manifest["model"] == model:
                    found.append((manifest["described"]["inputs"], manifest["result"], float(manifest["seconds"])))
            except (OSError, ValueError, KeyError):
                continue
        return found
