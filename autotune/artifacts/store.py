"""The cache: one folder for each result of a stage, named by the digest of everything that decides the result.

A result is made in a folder aside, under a lock, and renamed when it is complete; its manifest is written last. Only
successes are kept. Sweeps share the cache. What a killed process left aside is removed when the same result is made again,
or by `autotune cache prune`.

Beside a result `KEY` may lie `KEY.lock` and `KEY.N.maker` of the process that makes it (`makers.py`); `KEY.use/`, the marks
of the processes that use it (`leases.py`); and `KEY.checkpoint`, from which a training that was stopped goes on. `pins/`
says which results a sweep's front needs.

It is one module because making, finding, keeping and removing results share the layout of a result's folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autotune.artifacts.leases import LEASE_S, USE, Leases
from autotune.artifacts.makers import MAKER, Maker, Turns, is_made, making, result_of, unmade
from autotune.artifacts.place import user_folder
from autotune.artifacts.shared_store import BothTurns, SharedStore, folder_of, store_of
from autotune.candidate import digest
from autotune.durable import ASIDE, GONE, empty_folder, move_away, put, remove_tree, sync_tree, write_aside
from autotune.errors import StageError
from autotune.machine import longest_path
from autotune.model_files import PICKLED
from autotune.paths import folder_named_by, size_mb
from autotune.remote.objects import is_store
from autotune.stages.protocol import Job, Result

MANIFEST = "manifest.json"
PINS = "pins"
INPUTS = "inputs"
"""The folder of files from outside the cache in a shared store."""
CHECKPOINT = ".checkpoint"
RUN, HERE = "cluster-", "here"
"""The beginning of the folder's name for a run on a cluster, and the file in it that nodes must see: it names the tuner's lease.
"""
_QUICK = ("merge", "build")
"""Stages whose results are not flushed to the disk: they are large and made again in seconds, and their content is compared
with its digest before it is used."""
_CHECKED = 10_000
"""The number of latest results that a process remembers as compared with their digests; more would cost a long sweep memory."""
_STALE_S = 86_400.0
"""A temporary file that was not written for so many seconds has been abandoned."""
BELOW = 150
"""The most characters of a path below the cache's folder, with a reserve: a stage, a key, and the file of a model."""


def default_root() -> Path:
    """Return the folder of the cache: `AUTOTUNE_CACHE`, or the user's cache folder; for a store, its folder on this machine.

    Raises UsageError, MachineError.
    """
    named = os.environ.get("AUTOTUNE_CACHE")
    if is_store(named):
        return folder_of(str(named))
    return folder_named_by("AUTOTUNE_CACHE") or user_folder()


def too_deep(root: Path) -> str:
    """Return why a cache cannot lie at `root`, with the remedy; empty where it can."""
    most = longest_path()
    length = len(str(root.absolute()))
    if most is None or length + BELOW <= most:
        return ""
    remedy = f"set AUTOTUNE_CACHE to a folder with a path of at most {most - BELOW} characters, or switch on long paths in Windows"
    return f"the cache's folder {root} has a path of {length} characters, too long for the files in it; {remedy}"


@dataclass(frozen=True)
class Stored:
    """A stage result: its folder, the stage's report, and the seconds that it took when it was made."""

    folder: Path
    """Its folder on this machine, where its files lie once they are here."""
    result: Result
    seconds: float
    cached: bool
    """Whether it existed already."""
    made: float = 0.0
    """When it was made, seconds since 1970."""
    afar: Cache | None = field(default=None, compare=False, repr=False)
    """The cache whose shared store has it, where its files may be missing on this machine."""

    @property
    def path(self) -> Path:
        """Its folder, with its files copied here first if need be. Raises StageError (`lost`), MachineError, OSError."""
        return self.folder if self.afar is None else self.afar.bring(self.folder.parent.name, self.folder.name)

    def text(self, name: str) -> str:
        """Return the text of one of its files, without copying others here. Raises as `path`."""
        if self.afar is None or self.afar.shared is None or (self.folder / MANIFEST).exists():
            return (self.path / name).read_text(encoding="utf-8")
        content = self.afar.shared.read(self.folder, name)
        if content is None:
            self.afar.shared.drop(self.folder)
            raise StageError("lost", f"what was made as {self.folder.name[:12]} is damaged in {self.afar.shared}")
        return content.decode()


@dataclass(frozen=True)
class Entry:
    """A result in a list of the cache."""

    stage: str
    path: Path
    size_mb: float
    seconds: float
    """The seconds that it took to make."""
    used: float
    """When it was made or last used, seconds since 1970."""
    model: str
    state: str
    """`whole`, or `damaged`."""
    kept_for: str
    """The process that uses it, or the results folder whose front needs it; empty: nobody needs it."""


class Cache:
    """A folder of stage results. Threads may share it."""

    def __init__(self, root: Path, leases: Leases | None = None, shared: SharedStore | None = None) -> None:
        """`shared`: the store behind the cache; None: that of AUTOTUNE_CACHE, if `root` is its folder on this machine."""
        self.shared = shared or store_of(root)
        self.root = root
        self.leases = leases or Leases(root)
        self._checked: dict[Path, float] = {}
        """The results whose content this process has compared with the manifest, and when they were made."""

    def folder(self, job: Job) -> Path:
        """Return the folder of a job's result, whether or not it exists."""
        return self.root / job.stage / job.key

    def locate(self, key: str) -> Path | None:
        """Return the folder of the result with this key, of any stage; None where it does not exist."""
        return next((folder for folder in self.root.glob(f"*/{key}") if folder.is_dir()), None)

    def checkpoint(self, job: Job) -> Path:
        """Return the folder of a training's checkpoints."""
        folder = self.folder(job)
        return folder.with_name(folder.name + CHECKPOINT)

    def find(self, job: Job) -> Stored | None:
        """Return a job's result if it exists and is undamaged; a process compares the content with the digests once."""
        found = self._whole(self.folder(job))
        if found is not None and self.shared is not None:
            self.shared.offer(found.path)
        return found

    def find_key(self, stage: str, key: str) -> Stored | None:
        """Return the result of a stage with this key, as `find`: also one whose job would have another key today."""
        return self._whole(self.root / stage / key) if key.isalnum() else None

    def _whole(self, folder: Path) -> Stored | None:
        try:
            manifest = _manifest(folder)
            if self._checked.get(folder) != manifest["made"]:
                if any(_sha256(folder / name) != file["sha256"] for name, file in manifest["files"].items()):
                    return None
                self._compared(folder, manifest["made"])
            os.utime(folder / MANIFEST)
            return Stored(
                folder, dict(manifest["result"]), float(manifest["seconds"]), cached=True, made=float(manifest["made"])
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError):  # not there, or damaged
            return None

    def peek(self, job: Job) -> Result | None:
        """Return the stage's report on a job, if its result seems to exist; the content is not checked."""
        try:
            return dict(_manifest(self.folder(job))["result"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def make(
        self,
        job: Job,
        run: Callable[[Path], tuple[Result, float]],
        model: str = "",
        what: str = "",
        waiting: Callable[[Maker | None, float], None] = lambda *_: None,
        token: str = "",
        over: Collection[str] = (),
        began: Callable[[Turns], None] = lambda _: None,
    ) -> Stored:
        """Return a job's result; `run(folder)` makes it if it does not exist.

        `model` is noted in the manifest, for estimates. If `run` raises, nothing is kept. While another process or thread makes
        the result, `waiting` is called again and again with that maker, if it is known, and the seconds waited; it may raise to
        end the wait. `what`: see `Maker.what`; `token`: the name of this turn; `over`: tokens of turns that are lost; `began` is
        called with the turn. Raises OSError, and what `run` and `waiting` raise.
        """
        while True:
            found = self.find(job)
            if found is not None:
                return found
            folder = self.folder(job)
            with making(folder, self.leases, what, waiting, token, over) as turn:
                found = self.find(job) or self._pulled(folder)
                if found is not None:
                    return found
                if self.shared is None or not self.shared.takes(folder):
                    began(turn)
                    found = self._made(job, run, turn, model)
                else:
                    with self.shared.making(folder, what, waiting, token, over) as whole:
                        found = self._pulled(folder)  # another maker may have published it just now
                        if found is not None:
                            return found
                        began(both := BothTurns(turn, whole))
                        found = self._made(job, run, both, model)
                        if found is not None and not self.shared.publish(folder, whole.token):
                            remove_tree(folder)
                            found = None
                if found is not None:
                    return found
            # Another maker took over while this one was suspended or cut off: its result counts, once it exists.

    def _made(self, job: Job, run: Callable[[Path], tuple[Result, float]], turn: Turns, model: str) -> Stored | None:
        """Make a job's result. Returns None where another maker has taken over. Raises OSError, and what `run` raises."""
        folder, aside = self.folder(job), empty_folder(turn.aside)
        try:
            result, seconds = run(aside)
            made = self._described(job, aside, result, seconds, model)
            if self._placed(folder, turn, sync=job.stage not in _QUICK):
                shutil.rmtree(self.checkpoint(job), ignore_errors=True)
                self._compared(folder, made)
                return Stored(folder, result, seconds, cached=False, made=made)
        except (StageError, OSError):
            if turn.still():
                raise  # else another maker has removed the folder: the error means nothing
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        return None

    @staticmethod
    def _described(job: Job, aside: Path, result: Result, seconds: float, model: str) -> float:
        """Write the manifest, and flush results that are slow to make. Returns the time of making. Raises OSError."""
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
        write_aside(aside / MANIFEST, json.dumps(manifest, ensure_ascii=False), sync=False)
        if job.stage not in _QUICK:
            sync_tree(aside)  # the manifest with it
        return made

    def _placed(self, folder: Path, turn: Turns, *, sync: bool) -> bool:
        """Publish a result. Returns False where another maker has taken over. Raises OSError."""
        if not turn.confirm():
            return False
        if folder.exists():
            if self._whole(folder) is not None:
                return False
            remove_tree(folder)  # a damaged one
        try:
            put(turn.aside, folder, sync=sync)
        except OSError:
            if turn.still() and self._whole(folder) is None:
                raise
            return False  # another maker took over, or was first, between two steps of this one
        return True

    def trust(self, stored: Stored) -> None:
        """Count a result as compared with its digests: its maker on another host has just computed them."""
        self._compared(stored.path, stored.made)

    def _compared(self, folder: Path, made: float) -> None:
        self._checked[folder] = made
        if len(self._checked) > _CHECKED:
            with contextlib.suppress(RuntimeError):  # another thread is adding one: the next call removes it
                self._checked.pop(next(iter(self._checked)), None)

    def doubt(self, key: str) -> None:
        """Compare the content of the result with this key again at its next use."""
        for folder in [folder for folder in self._checked if folder.name == key]:
            del self._checked[folder]

    def find_afar(self, job: Job) -> Stored | None:
        """Return a job's result in the shared store, whose files are copied only when they are needed; else None.

        Raises MachineError.
        """
        folder = self.folder(job)
        if self.shared is None or not self.shared.takes(folder):
            return None
        found = self.shared.manifest(folder)
        return None if found is None else Stored(folder, found["result"], found["seconds"], True, found["made"], self)

    def bring(self, stage: str, key: str) -> Path:
        """Return the folder of a result, copied here from the shared store if need be.

        Raises StageError (`lost`) where it is missing or damaged; MachineError, OSError.
        """
        folder = self.root / stage / key
        if self._whole(folder) is None and self.shared is not None:
            with making(folder, self.leases):
                if self._whole(folder) is None:
                    self._fetched(folder)
        if self._whole(folder) is None:
            raise StageError("lost", f"what was made as {key[:12]} is no longer in {self.shared or self.root}")
        return folder

    def put_inputs(
        self, files: Mapping[str, Path], waiting: Callable[[Maker | None, float], None] = lambda *_: None
    ) -> str:
        """Put files from outside the cache into the shared store, for other machines. Returns the key.

        `waiting`: is called while another process sends the same files, as in `make`. Raises MachineError, OSError, and what
        `waiting` raises.
        """
        assert self.shared is not None
        described = {name: {"size": file.stat().st_size, "sha256": _sha256(file)} for name, file in files.items()}
        key = digest(described)
        place = self.root / INPUTS / key
        manifest = {
            "described": {"inputs": sorted(files)},
            "result": {},
            "seconds": 0.0,
            "made": time.time(),
            "model": "",
            "files": described,
        }
        shared = self.shared
        shared.send_once(place, lambda: shared.put(place, files, manifest), waiting)
        return key

    def _pulled(self, folder: Path) -> Stored | None:
        """Return a result that the shared store has, copied here."""
        return self._fetched(folder) if self.shared is not None and self.shared.takes(folder) else None

    def _fetched(self, folder: Path) -> Stored | None:
        """As `_pulled`, for any stage. A result that arrives damaged is removed from the store, so that it is made anew."""
        if self.shared is None or not self.shared.pull(folder):
            return None
        self._checked.pop(folder, None)
        found = self._whole(folder)
        if found is None:
            self.shared.drop(folder)
        return found

    # --- results in use ----------------------------------------------------------------------------------------------

    def hold(self, job: Job) -> None:
        """Mark a job's result, existing or still to be made, as used by this process until `let_go`.

        It does not wait for the result's maker. Raises OSError, MachineError.
        """
        self.leases.mark(self.folder(job))

    def let_go(self, job: Job) -> None:
        """End the use that `hold` began."""
        self.leases.unmark(self.folder(job))

    def discard(self, job: Job) -> None:
        """Remove a job's result, unless another living process holds it."""
        self.let_go(job)
        self.remove(self.folder(job))

    def pin(self, owner: Path, jobs: Iterable[Job]) -> None:
        """Keep the results of `jobs`, and no others, for the results folder `owner`, as long as that folder exists."""
        place = self.root / PINS
        place.mkdir(parents=True, exist_ok=True)
        name = hashlib.sha256(str(owner.resolve()).encode()).hexdigest()[:16]
        keys = sorted(f"{job.stage}/{job.key}" for job in jobs)
        file, text = place / f"{name}.json", json.dumps({"folder": str(owner.resolve()), "results": keys})
        try:
            same = file.read_text(encoding="utf-8") == text
        except (OSError, ValueError):
            same = False
        if not same:
            write_aside(file, text)

    def pinned(self) -> dict[Path, str]:
        """Return the results that are pinned, each with the results folder that needs it."""
        found: dict[Path, str] = {}
        for file in (self.root / PINS).glob("*.json"):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                pins = json.loads(file.read_text(encoding="utf-8"))
                if (Path(pins["folder"]) / "results.csv").exists():
                    found |= {self.root / key: str(pins["folder"]) for key in pins["results"]}
        return found

    # --- housekeeping ------------------------------------------------------------------------------------------------

    def entries(self) -> list[Entry]:
        """Return every result, the longest unused first. Only manifests are read."""
        pinned = self.pinned()
        others = (CHECKPOINT, USE, ASIDE, GONE)
        folders = (path for path in self.root.glob("*/*") if path.suffix not in others and path.is_dir())
        found = [self._entry(folder, pinned.get(folder, "")) for folder in folders]
        return sorted(filter(None, found), key=lambda entry: entry.used)

    def _entry(self, folder: Path, pinned_by: str) -> Entry | None:
        """Return the entry of a result; None where another process has just removed it."""
        try:
            size = size_mb(folder)
            kept_for = self.leases.holder(folder) or pinned_by
            try:
                manifest = _manifest(folder)
                used, model = (folder / MANIFEST).stat().st_mtime, str(manifest["model"])
                return Entry(
                    folder.parent.name, folder, size, float(manifest["seconds"]), used, model, "whole", kept_for
                )
            except (OSError, ValueError, KeyError, TypeError, AttributeError):
                used = folder.stat().st_mtime
                return Entry(folder.parent.name, folder, size, 0.0, used, "", "damaged", kept_for)
        except FileNotFoundError:
            return None

    def leftovers(self) -> list[Path]:
        """Return the leftovers of killed processes (half-made results, files of makers, runs) and checkpoints of finished jobs."""
        self.leases.clean()
        results = ((path, result_of(path)) for path in self.root.glob(f"*/.*{ASIDE}"))
        # Not every file system shows locks to other hosts, so the lease of a maker counts, too.
        found = [path for path, result in results if not self._is_made(result) and not self.leases.holder(result)]
        found += self.root.glob(f"*/.*{GONE}")
        found += (path for path in self.root.glob(f"*/*{MAKER}") if not self._is_made(result_of(path)))
        found += (path for deep in ("", "*/") for path in self.root.glob(f"{deep}[!.]*{ASIDE}") if _stale(path))
        found += (run for run in self.root.glob(f"{RUN}*") if _stale(run / HERE) and not self._runs(run))
        checkpoints = (path for path in self.root.glob(f"*/*{CHECKPOINT}") if not self._is_made(path.with_suffix("")))
        return found + [path for path in checkpoints if path.with_suffix("").exists()]

    def _runs(self, run: Path) -> bool:
        """Whether the tuner of a run on a cluster, with this folder, still lives."""
        with contextlib.suppress(OSError, ValueError):
            return self.leases.lasts((run / HERE).read_text(encoding="utf-8"), LEASE_S)
        return False

    def _is_made(self, result: Path) -> bool:
        return is_made(result, self.leases)

    def remove(self, folder: Path) -> bool:
        """Remove a result, unless a living process holds or makes it. Returns whether it is gone."""
        if self.leases.holder(folder):
            return False
        try:
            with unmade(folder, self.leases) as (locked, idle):
                if not (locked and idle):
                    return False
                with self.leases.alone():
                    if self.leases.holder(folder):
                        return False
                    self.leases.clear(folder)
                    gone = move_away(folder)
                shutil.rmtree(gone, ignore_errors=True)
        except OSError:  # it cannot be renamed, because a process reads it
            return False
        return not folder.exists()

    def measured(self, stage: str, model: str, last: int = 200) -> list[tuple[dict[str, Any], Result, float]]:
        """Return (inputs, result, seconds) of a stage's last results for a model, the latest first."""
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
    """Return a result's manifest. Raises OSError, ValueError, KeyError, TypeError where the result is incomplete."""
    manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    for name, file in manifest["files"].items():
        if name.endswith(PICKLED):  # no stage of ours writes such a file
            raise ValueError(name)
        if (folder / name).stat().st_size != file["size"]:
            raise ValueError(name)
    return manifest


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _stale(file: Path) -> bool:
    """Whether a temporary file has been abandoned."""
    with contextlib.suppress(OSError):
        return file.is_file() and time.time() - file.stat().st_mtime > _STALE_S
    return False
