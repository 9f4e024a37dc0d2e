"""The cache: a folder for every stage result, named by the digest of all that went into it.

A result is made aside, under a lock, and renamed when it is whole, its manifest written last. Only successes are kept.
Sweeps share it. What a killed process left aside is removed when the same result is made again.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs
import psutil
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


def _held(folder: Path) -> bool:
    marks = folder.parent.glob(f"{folder.name}.*.use")
    return any(psutil.pid_exists(int(mark.name.split(".")[1])) for mark in marks)


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
            return Stored(folder, dict(manifest["result"]), float(manifest["seconds"]), cached=True)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):  # not there, or damaged
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
            aside = folder.with_name(f".{folder.name}.new")
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir()
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

    def hold(self, job: Job) -> None:
        """Note that this process uses a job's result, made or still to be made, until it says `release`."""
        folder = self.folder(job)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(str(folder) + ".lock"):
            folder.with_name(f"{folder.name}.{os.getpid()}.use").touch()

    def release(self, stage: str) -> None:
        """Remove the results of a stage that were held and are no more, by this process or by others that have died.

        For results that are large and made again in seconds (merged models).
        """
        here = self.root / stage
        for mark in here.glob(f"*.{os.getpid()}.use"):
            mark.unlink(missing_ok=True)
            self._remove(here / mark.name.partition(".")[0])
        for mark in here.glob("*.use"):
            self._remove(here / mark.name.partition(".")[0])

    def _remove(self, folder: Path) -> None:
        """Remove a result that no living process holds."""
        if _held(folder):
            return
        with FileLock(str(folder) + ".lock"):
            if not _held(folder):
                shutil.rmtree(folder, ignore_errors=True)
                for mark in folder.parent.glob(f"{folder.name}.*.use"):
                    mark.unlink(missing_ok=True)

    def measured(self, stage: str, model: str) -> list[tuple[dict[str, Any], Result, float]]:
        """Return (inputs, result, seconds) of a stage's results for a model: what earlier sweeps cost here."""
        found = []
        for file in (self.root / stage).glob(f"*/{MANIFEST}"):
            try:
                manifest = json.loads(file.read_text(encoding="utf-8"))
                if manifest["model"] == model:
                    found.append((manifest["described"]["inputs"], manifest["result"], float(manifest["seconds"])))
            except (OSError, ValueError, KeyError, TypeError):
                continue
        return found
