"""A cache on a store that several machines reach: `AUTOTUNE_CACHE=s3://BUCKET/FOLDER` (`gs://`, `abfs://`, `azureml://`).

Each machine keeps results in its own folder, and puts a copy of each into the store. Before a machine makes a result it looks
for it in the store, and it copies the files only when they are needed. A result in the store is:

- its files below `STAGE/KEY/TOKEN/`, where TOKEN belongs to one maker alone;
- then `STAGE/KEY/manifest.json`, which names that TOKEN. The store writes the manifest only where there is none. So of several
  makers one wins, and the result never changes afterwards; the others remove what they have put there.

A maker of a result owns the object `makers/STAGE.KEY.N`, and renews its lease, `leases/ID`, meanwhile. Only one can create the
next number; it may be taken once the process of the maker before is known to have ended, because it was one of this machine, or
else once its lease was not renewed for `MAKER_S` by the store's own clock.

Results that are made again in seconds, or that hold for one machine alone, are not put into the store.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from autotune.artifacts.leases import BEAT_S, this_process
from autotune.artifacts.makers import MAKER_S, Maker, Turn, maker_here, read_maker
from autotune.artifacts.place import user_folder
from autotune.candidate import digest
from autotune.durable import ASIDE
from autotune.errors import AutotuneError, MachineError
from autotune.model_files import PICKLED
from autotune.remote.objects import Objects, is_store

MANIFEST = "manifest.json"
"""The file that completes a result; `artifacts.store` uses the same name."""
HERE = ("base", "merge", "probe", "devices", "capability", "tiny", "push", "prompt", "verify")
"""Stages whose results stay on the machine that made them."""
_POLL_S = 1.0
"""Seconds between two looks while waiting for a maker."""
_STILL_S = 10.0
"""Seconds between two checks of a maker whether another has taken over."""


def folder_of(address: str) -> Path:
    """Return the folder of a store's results on this machine. Raises MachineError where no home folder is known."""
    kind = "azureml" if address.lower().startswith("azureml:") else "shared"
    return user_folder() / kind / digest(address)[:16]


def store_of(root: Path) -> SharedStore | None:
    """Return the store of AUTOTUNE_CACHE if `root` is its folder on this machine; else None. Raises UsageError, MachineError."""
    named = os.environ.get("AUTOTUNE_CACHE", "")
    return SharedStore(named) if is_store(named) and folder_of(named) == root else None


@dataclass(frozen=True)
class Transfer:
    """A copy of one result's files: from the store (`fetch`), or to it (`send`)."""

    kind: str
    result: str
    """`STAGE/KEY`."""
    bytes: int
    began: float
    """Seconds since 1970, as `ended`."""
    ended: float


class StoreTurn:
    """The turn of one maker, over all machines."""

    def __init__(self, objects: Objects, name: str, token: str) -> None:
        self._objects, self.name, self.token = objects, name, token
        self._seen, self._still = time.monotonic(), True

    def still(self) -> bool:
        """Whether no other maker has taken over, by a look at most `_STILL_S` old."""
        if self._still and time.monotonic() - self._seen > _STILL_S:
            self._seen, self._still = time.monotonic(), self._mine()
        return self._still

    def end(self) -> None:
        """End this turn."""
        if self._mine():
            self._objects.remove(self.name)

    def _mine(self) -> bool:
        maker = read_maker(self._objects.read(self.name) or b"")
        return maker is not None and maker.token == self.token


class BothTurns:
    """The turn of a maker on this machine and, over all machines, in the shared store."""

    def __init__(self, here: Turn, there: StoreTurn) -> None:
        self._here, self._there, self.aside = here, there, here.aside

    def still(self) -> bool:
        """As `Turn.still`."""
        return self._here.still() and self._there.still()

    def confirm(self) -> bool:
        """As `Turn.confirm`; between machines the store decides, when the result is published."""
        return self._here.confirm()


class SharedStore:
    """Results on a store. Threads may share it."""

    def __init__(self, text: str) -> None:
        """Raises UsageError where AUTOTUNE_CACHE names no folder of a store, MachineError where the store's client is
        missing.
        """
        self.objects = Objects(text, "AUTOTUNE_CACHE")
        self.moved: Callable[[Transfer], None] = lambda _: None
        """Is called after each copy."""
        self.around: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext
        """A context in which files are copied."""
        self._id = uuid.uuid4().hex
        self._there: set[str] = set()
        """The results that this process has seen in the store."""
        self._guard = threading.Lock()
        self._makes = 0
        self._unended: list[StoreTurn] = []
        """Turns that are over, and whose objects may still be in the store."""
        self._beat: threading.Event | None = None
        """Tells the thread that renews the lease to end."""

    def __str__(self) -> str:
        return str(self.objects)

    @staticmethod
    def takes(folder: Path) -> bool:
        """Whether the result in `folder` is kept in the store as well."""
        return folder.parent.name not in HERE

    # --- results -----------------------------------------------------------------------------------------------------

    def manifest(self, folder: Path) -> dict[str, Any] | None:
        """Return the manifest of a result in the store; None where there is none. Raises MachineError."""
        content = self.objects.read(f"{_name(folder)}/{MANIFEST}")
        if content is None:
            return None
        try:
            found = json.loads(content)
            names = [*found["files"], str(found.get("at", ""))]
            if any(PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts for name in names):
                raise ValueError(names)
        except (ValueError, KeyError, TypeError, RecursionError):
            self.objects.remove(f"{_name(folder)}/{MANIFEST}")  # unreadable: the result is made anew
            return None
        self._there.add(_name(folder))
        return dict(found)

    def read(self, folder: Path, name: str) -> bytes | None:
        """Return the content of one file of a result, without copying others; None where it is gone or damaged.

        Raises MachineError.
        """
        found = self.manifest(folder)
        if found is None or name not in found["files"]:
            return None
        with self._copying("fetch", folder) as count:
            content = self.objects.read(_file(folder, found, name))
            count(len(content or b""))
        whole = content is not None and hashlib.sha256(content).hexdigest() == found["files"][name]["sha256"]
        return content if whole else None

    def pull(self, folder: Path) -> bool:
        """Copy a result from the store to this machine. Returns whether the store had it.

        The content is not yet compared with the manifest. Raises MachineError; OSError of the local disk.
        """
        found = self.manifest(folder)
        if found is None:
            return False
        aside = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:12]}.pulled{ASIDE}")
        try:
            with self._copying("fetch", folder) as count:
                for name in (name for name in found["files"] if not name.endswith(PICKLED)):
                    target = aside / name
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with contextlib.suppress(FileNotFoundError):  # the reader will find the result damaged
                        self.objects.get(_file(folder, found, name), target)
                        count(target.stat().st_size)
            aside.mkdir(parents=True, exist_ok=True)
            found.pop("at", None)
            (aside / MANIFEST).write_text(json.dumps(found, ensure_ascii=False), encoding="utf-8")
            shutil.rmtree(folder, ignore_errors=True)
            aside.replace(folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        return True

    def drop(self, folder: Path) -> None:
        """Remove a damaged result from the store, so that it is made anew. Raises MachineError."""
        self._there.discard(_name(folder))
        self.objects.remove(f"{_name(folder)}/{MANIFEST}")

    def publish(self, folder: Path, token: str = "") -> bool:
        """Put a result into the store. Returns False where the store has it already. Raises MachineError."""
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return self.put(folder, {name: folder / name for name in manifest["files"]}, manifest, token)

    def put(self, folder: Path, files: Mapping[str, Path], manifest: Mapping[str, Any], token: str = "") -> bool:
        """Put files into the store, by name, as the result that `folder` would hold. Returns and raises as `publish`."""
        at, name = token or uuid.uuid4().hex, _name(folder)
        sent = {f"{name}/{at}/{place}": file for place, file in files.items()}
        with self._copying("send", folder) as count:
            for there, file in sent.items():
                self.objects.put(file, there)
                count(file.stat().st_size)
        content = json.dumps({**manifest, "at": at}, ensure_ascii=False).encode()
        if not self.objects.create(f"{name}/{MANIFEST}", content):
            self.objects.remove(*sent)
            return False
        self._there.add(name)
        return True

    def offer(
        self, folder: Path, always: bool = False, waiting: Callable[[Maker | None, float], None] = lambda *_: None
    ) -> None:
        """Put a local result into the store if the store lacks it: it may have been unreachable when the result was made.

        `always`: also a result of a stage in `HERE`, with `waiting` as in `send_once`. Otherwise nothing is done while another
        maker makes the same result.
        """
        if always:
            self.send_once(folder, lambda: self.publish(folder), waiting)
        elif self.takes(folder):
            with contextlib.suppress(_OtherMakerError):
                self.send_once(folder, lambda: self.publish(folder), _leave)

    def send_once(
        self, folder: Path, send: Callable[[], object], waiting: Callable[[Maker | None, float], None] = lambda *_: None
    ) -> None:
        """Call `send`, which puts a result into the store, if the store lacks it: one machine sends it, others wait.

        `waiting`: as in `makers.making`. Raises MachineError, and what `waiting` raises.
        """
        if _name(folder) in self._there or self.manifest(folder) is not None:
            return
        with self.making(folder, "the shared cache", waiting):
            if self.manifest(folder) is None:
                send()

    @contextlib.contextmanager
    def _copying(self, kind: str, folder: Path) -> Iterator[Callable[[int], None]]:
        """Report a copy to `moved` at its end. Yields a function that counts bytes."""
        copied, done = 0, False

        def count(size: int) -> None:
            nonlocal copied
            copied += size

        with self.around():
            began = time.time()
            try:
                yield count
                done = True
            except AutotuneError as error:
                what = "read" if kind == "fetch" else "written"
                raise MachineError(f"the shared cache cannot be {what}: {error}") from None
            finally:
                if done or copied:
                    self.moved(Transfer(kind, _name(folder), copied, began, time.time()))

    # --- makers ------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def making(
        self,
        folder: Path,
        what: str = "",
        waiting: Callable[[Maker | None, float], None] = lambda *_: None,
        token: str = "",
        over: Collection[str] = (),
    ) -> Iterator[StoreTurn]:
        """Become the only maker of a result on all machines. Arguments as for `makers.making`. Raises MachineError."""
        began = time.monotonic()
        with self._held():
            while True:
                taken = self._take(folder, what, token or uuid.uuid4().hex, over)
                if isinstance(taken, StoreTurn):
                    try:
                        yield taken
                    finally:
                        self._unended.append(taken)
                        self._end_turns()
                    return
                waiting(taken, time.monotonic() - began)
                time.sleep(_POLL_S)

    def _end_turns(self) -> None:
        """End the turns that are over. Where the store does not answer, they are tried again with the next sign of life: this
        process may hold its lease for hours, and others would wait for what nobody makes.
        """
        for turn in list(self._unended):
            with contextlib.suppress(AutotuneError, ValueError):  # another thread has ended it just now
                turn.end()
                self._unended.remove(turn)

    def _take(self, folder: Path, what: str, token: str, over: Collection[str]) -> StoreTurn | Maker | None:
        """Take the next number, if it is free. Returns the turn; else the maker of the result, or None if it is unknown."""
        self._end_turns()
        start = f"makers/{folder.parent.name}.{folder.name}."
        numbers = {int(end): name for name in self.objects.names(start) if (end := name[len(start) :]).isdecimal()}
        last = max(numbers, default=0)
        maker = read_maker(self.objects.read(numbers[last]) or b"") if numbers else None
        if maker is not None and maker.token not in over and not maker.ended:
            left_s = self._left_s(maker.lease)
            if left_s >= 0:
                return maker.waited_for(left_s)
        mine = maker_here(what, token, self._id, locked=False)
        name = f"{start}{last + 1}"
        if not self.objects.create(name, json.dumps(asdict(mine)).encode()):
            return maker
        self.objects.remove(*numbers.values())
        return StoreTurn(self.objects, name, token)

    def _left_s(self, lease: str) -> float:
        """Return for how long a lease lasts that ends `MAKER_S` after it was renewed, by the store's clock: below 0 where it has
        ended.
        """
        if not lease.isalnum() or (renewed := self.objects.modified(f"leases/{lease}")) is None:
            return -math.inf
        self._renew()
        now = self.objects.modified(f"leases/{self._id}") or renewed
        return MAKER_S - (now - renewed).total_seconds()

    def _renew(self) -> None:
        self.objects.write(f"leases/{self._id}", str(this_process()).encode())

    @contextlib.contextmanager
    def _held(self) -> Iterator[None]:
        """Hold a lease inside the block."""
        with self._guard:
            if self._beat is None:
                self._renew()
                self._beat = threading.Event()
                threading.Thread(target=self._renewing, args=(self._beat,), name="store lease", daemon=True).start()
            self._makes += 1
        try:
            yield
        finally:
            with self._guard:
                self._makes -= 1
                if not self._makes and self._beat is not None:
                    self._beat.set()
                    self._beat = None
                    with contextlib.suppress(AutotuneError):
                        self.objects.remove(f"leases/{self._id}")

    def _renewing(self, over: threading.Event) -> None:
        while not over.wait(BEAT_S):
            with contextlib.suppress(AutotuneError):  # it is tried again; meanwhile another maker may take over
                self._renew()
                self._end_turns()


class _OtherMakerError(Exception):
    """Another maker makes the result."""


def _leave(*_: object) -> None:
    raise _OtherMakerError


def _name(folder: Path) -> str:
    """Return the name of a result in the store."""
    return f"{folder.parent.name}/{folder.name}"


def _file(folder: Path, manifest: dict[str, Any], name: str) -> str:
    """Return the name of a result's file in the store; earlier versions put it beside the manifest."""
    return "/".join(filter(None, (_name(folder), str(manifest.get("at", "")), name)))
