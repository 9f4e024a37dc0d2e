"""Reads and writes the objects below an address of a store (`s3://`, `gs://`, `abfs://`, `azureml://`), through fsspec.

fsspec's client of each store finds login and endpoint (`AWS_PROFILE`, `AWS_ENDPOINT_URL`, `GOOGLE_APPLICATION_CREDENTIALS`,
...). Beyond reading and writing, a store must be able to refuse to overwrite an object; `Objects` tests that once.
"""

from __future__ import annotations

import contextlib
import importlib.util
import threading
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from autotune.distribution import pip_install
from autotune.errors import AutotuneError, MachineError, Problem, UsageError
from autotune.remote.addresses import SCHEME
from autotune.remote.files import filesystem, read_address
from autotune.secrets import redact

_CLIENTS = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "abfss": "adlfs", "az": "adlfs"}
"""By scheme, the package of fsspec's client."""
_EXTRAS = {"s3fs": "s3", "gcsfs": "gcs", "adlfs": "abfs"}
_FORMS = "s3://BUCKET/FOLDER, gs://BUCKET/FOLDER, abfs://CONTAINER@ACCOUNT.dfs.core.windows.net/FOLDER or azureml://datastores/STORE/paths/FOLDER"


def is_store(text: object) -> bool:
    """Whether a text is an address of a store, and not a folder."""
    return isinstance(text, str) and "://" in text


class Objects:
    """The objects below one address, for any thread. Every method raises MachineError where the store fails or refuses."""

    def __init__(self, text: str, key: str) -> None:
        """`key`: the key or variable that names the address. Sends no request yet. Raises UsageError, MachineError."""
        scheme, _, rest = text.partition("://")
        if text.lower().startswith(SCHEME):
            address = read_address(text, key)
            if address.kind != "datastore" or not address.path:
                remedy = "e.g. azureml://datastores/workspaceblobstore/paths/autotune-cache"
                raise UsageError(Problem("must name a folder of a datastore", key, value=text, remedy=remedy))
            self.address, self._files, self._folders = str(address), filesystem(), True
        else:
            bucket, _, folder = rest.strip("/").partition("/")
            if scheme not in _CLIENTS or not bucket or not folder:
                rule = "must be a folder of this machine, or name a folder of a store"
                raise UsageError(Problem(rule, key, value=redact(text), remedy=f"e.g. {_FORMS}"))
            if ":" in bucket:
                remedy = "leave it out; name it as the store's client finds it, e.g. AWS_PROFILE"
                raise UsageError(Problem("must not hold a password", key, remedy=remedy))
            if importlib.util.find_spec(package := _CLIENTS[scheme]) is None:
                raise MachineError(f"{scheme}:// needs the package {package}; {pip_install(_EXTRAS[package])}")
            import fsspec

            self.address, self._folders = text.rstrip("/"), False
            # No cached listings: another host may just have written.
            self._files = fsspec.filesystem(scheme, use_listings_cache=False)
        self._tried, self._trying = False, threading.Lock()

    def __str__(self) -> str:
        return self.address

    def read(self, name: str) -> bytes | None:
        """Return the content of an object; None where there is none."""
        with self._speaking():
            try:
                return bytes(self._files.cat_file(self._at(name)))
            except FileNotFoundError:
                return None

    def write(self, name: str, content: bytes) -> None:
        """Write an object, over an earlier one."""
        with self._speaking(writing=True):
            self._make_folder(name)
            self._files.pipe_file(self._at(name), content)

    def create(self, name: str, content: bytes) -> bool:
        """Write an object unless it exists. Returns whether this call wrote it; of several hosts exactly one does."""
        self._try()
        return self._create(name, content)

    def _create(self, name: str, content: bytes) -> bool:
        with self._speaking(writing=True):
            self._make_folder(name)
            try:
                self._files.pipe_file(self._at(name), content, mode="create")
            except FileExistsError:
                return False
        return True

    def _try(self) -> None:
        """Raise MachineError if the store overwrites an object that it is asked only to create. Tests it once."""
        with self._trying:
            if self._tried:
                return
            probe = f"leases/.probe.{uuid.uuid4().hex}"
            refused = self._create(probe, b"1") and not self._create(probe, b"2")
            self.remove(probe)
            if not refused:
                what = "overwrites objects although it is asked not to, so that two hosts could write one result"
                raise MachineError(f"{self} {what}; use a store with conditional writes, or a shared folder")
            self._tried = True

    def names(self, below: str) -> list[str]:
        """Return the names of the objects that begin with `below`: a folder, `/`, and the beginning of a name."""
        folder, _, start = below.rpartition("/")
        with self._speaking():
            try:
                found = self._files.ls(self._at(folder), detail=False)
            except FileNotFoundError:
                return []
        last = (str(name).rstrip("/").rpartition("/")[2] for name in found)
        return [f"{folder}/{name}" for name in last if name.startswith(start)]

    def modified(self, name: str) -> datetime | None:
        """Return the time of an object's last write, by the store's clock; None where there is no object."""
        with self._speaking():
            try:
                when: datetime = self._files.modified(self._at(name))
            except FileNotFoundError:
                return None
        return when if when.tzinfo else when.replace(tzinfo=UTC)

    def get(self, name: str, file: Path) -> None:
        """Download an object to a file. Raises FileNotFoundError where there is no object, and OSError of the local disk."""
        with self._speaking():
            self._files.get_file(self._at(name), str(file))

    def put(self, file: Path, name: str) -> None:
        """Upload a file as an object, over an earlier one."""
        with self._speaking(writing=True):
            self._make_folder(name)
            self._files.put_file(str(file), self._at(name))

    def remove(self, *names: str) -> None:
        """Remove those of the objects that exist."""
        with self._speaking():
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    self._files.rm_file(self._at(name))

    def _at(self, name: str) -> str:
        return f"{self.address}/{name}"

    def _make_folder(self, name: str) -> None:
        if self._folders:  # a filesystem registered for azureml may have folders; object stores have none
            self._files.makedirs(self._at(name).rpartition("/")[0], exist_ok=True)

    @contextlib.contextmanager
    def _speaking(self, writing: bool = False) -> Iterator[None]:
        """Turn the errors of stores' clients into MachineError; `writing`: also FileNotFoundError, which reading passes on."""
        try:
            yield
        except (AutotuneError, FileExistsError):
            raise
        except FileNotFoundError as error:
            if not writing or error.filename is not None:
                raise
            raise MachineError(f"{self} cannot be written: {_said(error)}; make it, or correct its address") from None
        except PermissionError as error:
            raise MachineError(f"{self} may not be used by this login: {_said(error)}; ask for the right to") from None
        except OSError as error:
            if error.filename is not None:  # of the disk here
                raise
            raise MachineError(f"{self} does not answer as it should: {_said(error)}") from None
        except Exception as error:
            if type(error).__module__.partition(".")[0] in _LIBRARIES:
                raise MachineError(f"{self} does not answer as it should: {_said(error)}") from None
            raise


_LIBRARIES = ("botocore", "aiobotocore", "aiohttp", "gcsfs", "google", "azure", "asyncio", "fsspec", "s3fs", "adlfs")
"""Packages whose exceptions come from the store or the connection."""


def _said(error: BaseException) -> str:
    return redact(" ".join(str(error).split())[:300] or type(error).__name__)
