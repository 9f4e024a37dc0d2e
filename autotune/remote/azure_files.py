"""Datastores of Azure ML as an fsspec filesystem, so that fsspec opens `azureml://.../datastores/...`.

Microsoft's own (azureml-fsspec) exists for Python up to 3.12, installs 70 MB and sends telemetry. This one looks up a
datastore's container, and reads and writes its blobs with Azure's storage library; Data Lake Storage Gen2 has the same
protocol. A filesystem that the user registers for `azureml` goes first, see `files.filesystem`.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, ClassVar

from fsspec import AbstractFileSystem
from fsspec.spec import AbstractBufferedFile

from autotune.errors import Problem, UsageError
from autotune.remote.addresses import SCHEME, Address, parse
from autotune.remote.workspace import client, credential, speaking, workspace_at_hand

if TYPE_CHECKING:
    from azure.storage.blob import ContainerClient

_KINDS = "datastores of Azure Blob Storage and of Data Lake Storage Gen2 are read"


class AzureMLFiles(AbstractFileSystem):  # type: ignore[misc]
    """Files and folders of datastores; a path is an address without its scheme."""

    protocol: ClassVar[str] = "azureml"
    cachable = True

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._containers: dict[str, ContainerClient] = {}

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(one) for one in path]
        return str(path).removeprefix(SCHEME).rstrip("/")

    def unstrip_protocol(self, name: str) -> str:
        """Return the address of a path."""
        return f"{SCHEME}{self._strip_protocol(name)}"

    def _place(self, path: str) -> tuple[ContainerClient, str, Address]:
        """Return the container of a path, the blob's name in it, and the address. Raises UsageError, MachineError."""
        text = SCHEME + self._strip_protocol(path)
        try:
            address = parse(text)
        except ValueError as error:
            raise UsageError(Problem(str(error), value=text)) from None
        if address.kind != "datastore":
            raise UsageError(
                Problem("names no file of a datastore", value=text, remedy="name datastores/STORE/paths/PATH")
            )
        address = address.within(workspace_at_hand())
        store = str(address.below()).partition("/paths/")[0]
        if store not in self._containers:
            self._containers[store] = _container(address)
        return self._containers[store], address.path, address

    def info(self, path: str, **options: Any) -> dict[str, Any]:
        """Return name, size in bytes and type, and for a file its etag and when it was written. Raises FileNotFoundError."""
        del options
        container, blob, address = self._place(path)
        name = self._strip_protocol(str(address))
        with speaking(str(address)):
            found = _details(container, blob) if blob else None
            if found is not None:
                return {"name": name, "type": "file", **found}
            start = f"{blob}/" if blob else ""
            if not blob or next(iter(container.list_blobs(name_starts_with=start, results_per_page=1)), None):
                return {"name": name, "type": "directory", "size": 0}
        raise FileNotFoundError(str(address))

    def modified(self, path: str) -> Any:
        """Return the time of a file's last write. Raises FileNotFoundError."""
        found = self.info(path)
        if "written" not in found:
            raise FileNotFoundError(path)
        return found["written"]

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **options: Any) -> bytes:
        """Return a file's content, all of it in one request. Raises FileNotFoundError."""
        if start is not None or end is not None:
            return bytes(super().cat_file(path, start, end, **options))
        content = io.BytesIO()
        container, blob, address = self._place(path)
        with speaking(str(address)):
            if _details(container, blob) is None:
                raise FileNotFoundError(str(address))
            container.download_blob(blob).readinto(content)
        return content.getvalue()

    def rm_file(self, path: str) -> None:
        """Remove a file. Raises FileNotFoundError."""
        if self.info(path)["type"] != "file":
            raise FileNotFoundError(path)
        self._rm(path)

    def ls(self, path: str, detail: bool = True, **options: Any) -> list[Any]:
        """Return the entries of a folder. Raises FileNotFoundError."""
        del options
        container, blob, address = self._place(path)
        start = f"{blob}/" if blob else ""
        found: list[dict[str, Any]] = []
        with speaking(str(address)):
            for one in container.walk_blobs(name_starts_with=start, include=["metadata"], delimiter="/"):
                name = self._strip_protocol(str(address.below(one.name[len(start) :].rstrip("/"))))
                if one.name.endswith("/"):
                    found.append({"name": name, "size": 0, "type": "directory"})
                elif not _is_folder(one.get("metadata")):
                    found.append({"name": name, "size": one.size, "type": "file", "etag": one.etag})
        if not found:
            alone = self.info(path)
            found = [alone] if alone["type"] == "file" else []
        return found if detail else [one["name"] for one in found]

    def _open(self, path: str, mode: str = "rb", block_size: Any = None, **options: Any) -> Any:
        del options
        return _File(self, path, mode, block_size=block_size or "default", cache_type="readahead")

    def get_file(self, rpath: str, lpath: Any, callback: Any = None, **options: Any) -> None:
        """Download one file. Raises FileNotFoundError."""
        del callback, options
        container, blob, address = self._place(rpath)
        with speaking(str(address)):
            if _details(container, blob) is None:
                raise FileNotFoundError(str(address))
            with open(lpath, "wb") as stream:  # noqa: PTH123 - fsspec's own kind of path
                container.download_blob(blob, max_concurrency=4).readinto(stream)

    def put_file(self, lpath: Any, rpath: str, callback: Any = None, mode: str = "overwrite", **options: Any) -> None:
        """Upload one file. Readers see the old content or the whole new content."""
        del callback, mode, options
        container, blob, address = self._place(rpath)
        with speaking(str(address)), open(lpath, "rb") as stream:  # noqa: PTH123
            container.upload_blob(blob, stream, overwrite=True, max_concurrency=4)

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **options: Any) -> None:
        """Write bytes as one file; `mode="create"`: raises FileExistsError where there is one."""
        del options
        from azure.core.exceptions import ResourceExistsError

        container, blob, address = self._place(path)
        with speaking(str(address)):
            try:
                container.upload_blob(blob, value, overwrite=mode != "create")
            except ResourceExistsError:
                raise FileExistsError(str(address)) from None

    def _rm(self, path: str) -> None:
        container, blob, address = self._place(path)
        with speaking(str(address)):
            container.delete_blob(blob)

    def mkdir(self, path: str, create_parents: bool = True, **options: Any) -> None:
        """Do nothing: a folder is there when a file in it is."""

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Do nothing: a folder is there when a file in it is."""


class _File(AbstractBufferedFile):  # type: ignore[misc]
    def _fetch_range(self, start: int, end: int) -> bytes:
        container, blob, address = self.fs._place(self.path)
        with speaking(str(address)):
            content: bytes = container.download_blob(blob, offset=start, length=end - start).readall()
        return content

    def _initiate_upload(self) -> None:
        self._parts = io.BytesIO()

    def _upload_chunk(self, final: bool = False) -> bool:
        self._parts.write(self.buffer.getvalue())
        if final:
            self.fs.pipe_file(self.path, self._parts.getvalue())
        return True


def _container(address: Address) -> ContainerClient:
    """Return the client of a datastore's container. Raises UsageError, MachineError."""
    with speaking(f"datastore {address.name}"):
        from azure.storage.blob import ContainerClient

        store: Any = client(address.workspace).datastores.get(address.name, include_secrets=True)
        name = getattr(store, "container_name", None) or getattr(store, "filesystem", None)
        if name is None or not getattr(store, "account_name", None):
            rule = f"is a datastore of the kind {store.type}"
            raise UsageError(Problem(rule, str(address), remedy=f"{_KINDS}: name one of those"))
        given = store.credentials
        secret = getattr(given, "account_key", None) or getattr(given, "sas_token", None)
        if secret is None and getattr(given, "client_secret", None):
            from azure.identity import ClientSecretCredential

            secret = ClientSecretCredential(given.tenant_id, given.client_id, given.client_secret)
        url = f"{store.protocol or 'https'}://{store.account_name}.blob.{store.endpoint or 'core.windows.net'}"
        return ContainerClient(url, str(name), credential=secret or credential())


def _details(container: ContainerClient, blob: str) -> dict[str, Any] | None:
    """Return size, etag and last write of a blob; None where there is no such file."""
    from azure.core.exceptions import ResourceNotFoundError

    try:
        found = container.get_blob_client(blob).get_blob_properties()
    except ResourceNotFoundError:
        return None
    return (
        None if _is_folder(found.metadata) else {"size": found.size, "etag": found.etag, "written": found.last_modified}
    )


def _is_folder(metadata: dict[str, str] | None) -> bool:
    """Whether a blob stands for a folder, as Data Lake Storage marks it."""
    return bool(metadata) and str((metadata or {}).get("hdi_isfolder", "")).lower() == "true"
