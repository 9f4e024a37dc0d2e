"""A cache on Azure ML: `AUTOTUNE_CACHE=azureml://.../paths/FOLDER`. Results lie on this machine as ever, and there as well.

What is not here is looked for there before it is made; what was made here is put there, its manifest last, so that a result
is there whole or not at all. Results are addressed by their content and never change, so copies cannot differ. What is made
again in seconds, or holds for this machine alone, stays here.
"""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path

import platformdirs

from autotune.candidate import digest
from autotune.durable import ASIDE
from autotune.errors import AutotuneError, MachineError, Problem, UsageError
from autotune.remote.addresses import Address, is_address
from autotune.remote.files import fetch_folder, filesystem, put_folder, read_address

MANIFEST = "manifest.json"
"""Says that a result is whole; the name that `artifacts.store` gives it."""
HERE = ("base", "merge", "probe", "devices", "capability", "tiny", "push", "prompt", "verify")
"""Stages whose results stay here."""


def folder_of(address: str) -> Path:
    """Return where the results of a cache on Azure lie on this machine."""
    return Path(platformdirs.user_cache_dir("autotune", appauthor=False)) / "azureml" / digest(address)[:16]


def mirror_of(root: Path) -> Mirror | None:
    """Return the cache on Azure whose results lie in `root` here, where AUTOTUNE_CACHE names one. Raises UsageError."""
    named = os.environ.get("AUTOTUNE_CACHE", "")
    return Mirror(named) if is_address(named) and folder_of(named) == root else None


class Mirror:
    """A folder of a datastore that holds results of stages. Threads may share it."""

    def __init__(self, text: str) -> None:
        self.address: Address = read_address(text, "AUTOTUNE_CACHE")
        if self.address.kind != "datastore" or not self.address.path:
            remedy = "e.g. azureml://datastores/workspaceblobstore/paths/autotune-cache"
            raise UsageError(Problem("must name a folder of a datastore", "AUTOTUNE_CACHE", value=text, remedy=remedy))
        self._missing: set[str] = set()
        self._lock = threading.Lock()

    def pull(self, folder: Path) -> bool:
        """Bring a result here that is there. Returns whether it is here now. Raises MachineError; OSError of the disk here."""
        stage, key = folder.parent.name, folder.name
        place = f"{stage}/{key}"
        if stage in HERE or place in self._missing:
            return False
        there = self.address.below(stage, key)
        try:
            if not filesystem().exists(f"{there}/{MANIFEST}"):
                with self._lock:
                    self._missing.add(place)  # whoever else makes it meanwhile: it is made twice, and is the same
                return False
            aside = folder.with_name(f".{key}.pulled{ASIDE}")
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)
            try:
                fetch_folder(there, aside)
                shutil.rmtree(folder, ignore_errors=True)
                aside.replace(folder)
            finally:
                shutil.rmtree(aside, ignore_errors=True)
        except AutotuneError as error:
            raise MachineError(f"the cache on Azure cannot be read: {error}") from None
        return True

    def push(self, folder: Path) -> None:
        """Put a result there. Raises MachineError."""
        if folder.parent.name in HERE:
            return
        try:
            put_folder(folder, self.address.below(folder.parent.name, folder.name), last=MANIFEST)
        except AutotuneError as error:
            raise MachineError(f"the cache on Azure cannot be written: {error}") from None
        with self._lock:
            self._missing.discard(f"{folder.parent.name}/{folder.name}")
