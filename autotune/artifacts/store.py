"""The cache: a folder for every stage result, named by the digest of all that went into it.

A result is made aside, under a lock, and renamed when it is whole, its manifest written last. Only successes are kept.
Sweeps share it. What a killed process left aside is removed when the same result is made again, or by `autotune cache prune`.

Beside a result `KEY` may lie `KEY.lock`; `KEY.use/PID`, by which a living process keeps it from being removed; and
`KEY.checkpoint`, from which a training that was stopped goes on. `pins/` says which results a sweep's front needs.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs
import psutil
from filelock import FileLock, Timeout

from autotune.models import PICKLED
from autotune.paths import size_mb
from autotune.stages.jobs import Job, Result

MANIFEST = "manifest.json"
PINS = "pins"
CHECKPOINT, USE = ".checkpoint", ".use"


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
    made: float = 0.0
    """When, seconds since 1970."""


@dataclass(frozen=True)
class Entry:
    """A result as the cache's housekeeping sees it."""

    stage: str
    path: Path
    size_mb: float
    seconds: float
    """What it took to make, seconds."""
    used: float
    """When it was made or last used, seconds since 1970."""
    model: str
    state: str
    """`whole`, or `damaged`."""
    kept_for: str
    """Who needs it: a process, or the results folder whose front it is on; empty: nobody."""


class Cache:
    """A folder of stage results."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._checked: dict[Path, float] = {}
        """Results whose content was compared with the manifest by this process, and when that was written."""

    def folder(self, job: Job) -> Path:
        """Return where a job's result lies, or would lie."""
        return self.root / job.stage / job.key

    def locate(self, key: str) -> Path | None:
        """Return where the result of the job with this key lies, whatever its stage; None where it is not there."""
        return next((folder for folder in self.root.glob(f"*/{key}") if folder.is_dir()), None)

    def checkpoint(self, job: Job) -> Path:
        """Return where a training keeps its checkpoints."""
        folder = self.folder(job)
        return folder.with_name(folder.name + CHECKPOINT)

    def find(self, job: Job) -> Stored | None:
        """Return a job's result if it is there and whole, its content included; a process reads that once."""
        folder = self.folder(job)
        try:
            manifest = _manifest(folder)
            if self._checked.get(folder) != manifest["made"]:
                if any(_sha256(folder / name) != file["sha256"] for name, file in manifest["files"].items()):
                    return None
                self._checked[folder] = manifest["made"]
            os.utime(folder / MANIFEST)
            return Stored(
                folder, dict(manifest["result"]), float(manifest["seconds"]), cached=True, made=float(manifest["made"])
            )
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
        with _locked(folder):
            found = self.find(job)
            if found is not None:
                return found
            aside = folder.with_name(f".{folder.name}.new")
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir()
            try:
                result, seconds = run(aside)
                made = time.time()
                manifest = {
                    "described": job.described(),
                    "result": result,
                    "seconds": seconds,
                    "made": made,
                    "model": model,
                    "files": {
                        path.relative_to(aside).as_posix(): {"size": path.stat().st_size, "sha256": _sha256(path)}
                        for path in sorted(aside.rglob("*"))
                        if path.is_file()
                    },
                }
                (aside / MANIFEST).write_text(json.dumps(manifest, ensure_ascii=False), encoding="utf-8")
                shutil.rmtree(folder, ignore_errors=True)
                aside.rename(folder)
            except BaseException:
                shutil.rmtree(aside, ignore_errors=True)
                raise
            shutil.rmtree(self.checkpoint(job), ignore_errors=True)
            self._checked[folder] = made
        return Stored(folder, result, seconds, cached=False, made=made)

    # --- what is needed stays ----------------------------------------------------------------------------------------

    def hold(self, job: Job) -> None:
        """Note that this process uses a job's result, made or still to be made, until it says `let_go`."""
        folder = self.folder(job)
        with _locked(folder):
            while True:
                _marks(folder).mkdir(exist_ok=True)
                with contextlib.suppress(FileNotFoundError):  # somebody let go just now, and was the last
                    (_marks(folder) / str(os.getpid())).touch()
                    return

    def let_go(self, job: Job) -> None:
        """Take back `hold`."""
        marks = _marks(self.folder(job))
        with contextlib.suppress(OSError):  # another process has marked it, too; or nobody has
            (marks / str(os.getpid())).unlink(missing_ok=True)
            marks.rmdir()

    def discard(self, job: Job) -> None:
        """Remove a job's result, unless another living process holds it."""
        self.let_go(job)
        self.remove(self.folder(job))

    def pin(self, owner: Path, jobs: Iterable[Job]) -> None:
        """Keep the results of `jobs`, and of no others, for the results folder `owner`, as long as that is there."""
        place = self.root / PINS
        place.mkdir(parents=True, exist_ok=True)
        name = hashlib.sha256(str(owner.resolve()).encode()).hexdigest()[:16]
        keys = sorted(f"{job.stage}/{job.key}" for job in jobs)
        aside = place / f"{name}.{os.getpid()}.new"
        aside.write_text(json.dumps({"folder": str(owner.resolve()), "results": keys}), encoding="utf-8")
        aside.replace(place / f"{name}.json")

    def pinned(self) -> dict[Path, str]:
        """Return the results that some results folder needs, and which."""
        found: dict[Path, str] = {}
        for file in (self.root / PINS).glob("*.json"):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                pins = json.loads(file.read_text(encoding="utf-8"))
                if (Path(pins["folder"]) / "results.csv").exists():
                    found |= {self.root / key: str(pins["folder"]) for key in pins["results"]}
        return found

    # --- housekeeping ------------------------------------------------------------------------------------------------

    def entries(self) -> list[Entry]:
        """Return every result, the longest unused first. Nothing is read but manifests."""
        pinned = self.pinned()
        folders = (
            path for path in self.root.glob("*/*") if path.is_dir() and path.suffix not in (CHECKPOINT, USE, ".new")
        )
        found = [_entry(folder, pinned.get(folder, "")) for folder in folders]
        return sorted(found, key=lambda entry: entry.used)

    def leftovers(self) -> list[Path]:
        """Return what no result needs: half-made ones of processes that were killed, checkpoints of finished jobs."""
        found = [path for path in self.root.glob("*/.*.new") if _unlocked(path.with_name(path.name[1:-4]))]
        checkpoints = (path for path in self.root.glob(f"*/*{CHECKPOINT}") if _unlocked(path.with_suffix("")))
        return found + [path for path in checkpoints if path.with_suffix("").exists()]

    def remove(self, folder: Path) -> bool:
        """Remove a result that no living process holds. Returns whether it is gone."""
        if _holder(folder):
            return False
        try:
            with FileLock(str(folder) + ".lock", timeout=0):
                if _holder(folder):
                    return False
                shutil.rmtree(_marks(folder), ignore_errors=True)
                (folder / MANIFEST).unlink(missing_ok=True)  # first: half a result must not look whole
                shutil.rmtree(folder, ignore_errors=True)
        except Timeout:  # it is being made
            return False
        return not folder.exists()

    def measured(self, stage: str, model: str, last: int = 200) -> list[tuple[dict[str, Any], Result, float]]:
        """Return (inputs, result, seconds) of a stage's last results for a model: what earlier sweeps cost here."""
        dated = []
        for file in (self.root / stage).glob(f"*/{MANIFEST}"):
            with contextlib.suppress(OSError):
                dated.append((file.stat().st_mtime, file))
        found = []
        for _, file in sorted(dated, reverse=True)[:last]:
            try:
                manifest = json.loads(file.read_text(encoding="utf-8"))
                if manifest["model"] == model:
                    found.append((manifest["described"]["inputs"], manifest["result"], float(manifest["seconds"])))
            except (OSError, ValueError, KeyError, TypeError):
                continue
        return found


def _manifest(folder: Path) -> dict[str, Any]:
    """Return a result's manifest. Raises OSError, ValueError, KeyError, TypeError where the result is not whole."""
    manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    for name, file in manifest["files"].items():
        if name.endswith(PICKLED):  # no stage of ours writes such a file
            raise ValueError(name)
        if (folder / name).stat().st_size != file["size"]:
            raise ValueError(name)
    return manifest


def _entry(folder: Path, pinned_by: str) -> Entry:
    size = size_mb(folder)
    kept_for = _holder(folder) or pinned_by
    try:
        manifest = _manifest(folder)
        used, model, seconds = (folder / MANIFEST).stat().st_mtime, str(manifest["model"]), float(manifest["seconds"])
        return Entry(folder.parent.name, folder, size, seconds, used, model, "whole", kept_for)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Entry(folder.parent.name, folder, size, 0.0, folder.stat().st_mtime, "", "damaged", kept_for)


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(str(folder) + ".lock"):
        yield


def _unlocked(folder: Path) -> bool:
    try:
        with FileLock(str(folder) + ".lock", timeout=0):
            return True
    except Timeout:
        return False


def _marks(folder: Path) -> Path:
    return folder.with_name(folder.name + USE)


def _holder(folder: Path) -> str:
    """Return the living process that holds a result; empty where none does."""
    try:
        pids = [int(mark.name) for mark in _marks(folder).iterdir()]
    except (OSError, ValueError):
        return ""
    return next((f"process {pid}" for pid in pids if psutil.pid_exists(pid)), "")
