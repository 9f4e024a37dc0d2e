"""Inspects and downloads files and folders at an address of Azure ML, through fsspec."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from autotune.candidate import digest
from autotune.errors import MachineError, Problem, UsageError
from autotune.remote.addresses import Address, Workspace, parse
from autotune.remote.workspace import client, need_sdk, speaking, workspace_at_hand
from autotune.scratch import scratch

MODEL_FILES = (".safetensors", ".json", ".model", ".jinja")
"""Endings of a model's files, besides merges.txt. Pickles are never downloaded."""


def read_address(text: str, key: str = "", workspace: Workspace | None = None) -> Address:
    """Return the address in a text; one without a workspace is in `workspace`, or the current one. Raises UsageError."""
    try:
        address = parse(text).within(workspace or workspace_at_hand())
    except ValueError as error:
        raise UsageError(Problem(str(error), key, value=text, remedy="correct it")) from None
    if address.workspace is None and not address.registry:
        rule = "names no workspace of Azure ML, and none is at hand"
        remedy = "add submit.azureml with subscription_id, resource_group and workspace_name, or write the long address"
        raise UsageError(Problem(rule, key, value=text, remedy=remedy))
    return address


def filesystem() -> Any:
    """Return the fsspec filesystem for `azureml://`: a registered one, or else our own. Raises MachineError."""
    try:
        import fsspec
        from fsspec.registry import registry
    except ModuleNotFoundError:
        need_sdk("azureml://")
        raise MachineError("azureml:// needs fsspec; pip install fsspec") from None
    if "azureml" not in registry:
        need_sdk("azureml://")
        from autotune.remote.azure_files import AzureMLFiles

        fsspec.register_implementation("azureml", AzureMLFiles, clobber=True)
    return fsspec.filesystem("azureml")


@contextlib.contextmanager
def _reading(address: Address, key: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise UsageError(
            Problem("there is no such file or folder", key, value=str(address), remedy="check it")
        ) from None
    except PermissionError as error:
        if error.filename is not None:  # of the disk here
            raise
        raise MachineError(f"{address}: {error}; ask for the right to read it") from None


def resolved(address: Address, key: str = "") -> Address:
    """Return the address of a data asset's file or folder; other addresses as they are. Raises UsageError, MachineError."""
    if address.kind != "data":
        return address
    with speaking(str(address)):
        asset = client(address.workspace, address.registry).data.get(address.name, version=address.version)
    return read_address(str(asset.path), key, address.workspace)


def stamp(text: str, key: str = "", workspace: Workspace | None = None) -> tuple[str, str]:
    """Return the full address of a file, and a digest that changes with its content: of its etag, size and time.

    Raises UsageError where there is no such file, MachineError.
    """
    address = resolved(read_address(text, key, workspace), key)
    if address.kind == "model":
        raise UsageError(Problem("names a model, where a file of rows is needed", key, value=text))
    with _reading(address, key):
        found = filesystem().info(str(address))
    if found["type"] != "file":
        raise UsageError(Problem("a source must be a file, not a folder", key, value=text, remedy="name a file in it"))
    seen = [found.get(name) for name in ("etag", "ETag", "mtime", "last_modified", "created", "size")]
    return str(address), digest([str(one) for one in seen])


def version_of(text: str) -> str:
    """Return the full address of a model; in a datastore, where its files may change, with `#` and a digest of their etags.

    Raises UsageError, MachineError.
    """
    address = read_address(text, "model")
    if address.kind != "datastore":
        return str(address)  # a version of a registered model never changes
    files = filesystem()
    with _reading(address, "model"):
        found = files.find(str(address), detail=True)
    seen = {str(name): [str(one.get(key)) for key in ("etag", "mtime", "size")] for name, one in found.items()}
    if not seen:
        raise UsageError(Problem("there is no such folder", "model", value=text, remedy="check it"))
    return f"{address}#{digest(seen)[:16]}"


def fetch_file(text: str, to: Path) -> None:
    """Download one file. Raises UsageError, MachineError."""
    address = read_address(text)
    with _reading(address, ""):
        filesystem().get_file(str(address), str(to))


def fetch_folder(
    address: Address,
    to: Path,
    wanted: Callable[[str], bool] = lambda _: True,
    in_use: bool = False,
    replaced: str = "",
    first: str = "",
) -> int:
    """Download the files of a datastore's folder for whose relative paths `wanted` is true. Returns their number.

    `in_use`: another process writes there, so files that vanish meanwhile are skipped. `replaced`: a folder in it; if it
    exists there, files of its copy here that are not there are removed. `first`: the file to begin with. Raises UsageError,
    MachineError, and OSError of the local disk.
    """
    files = filesystem()
    count = 0
    there: set[Path] = set()
    with _reading(address, ""):
        root = str(files._strip_protocol(str(address)))
        below_root = {str(name): str(name)[len(root) :].lstrip("/") for name in files.find(str(address))}
        for name, below in sorted(below_root.items(), key=lambda one: one[1] != first):
            parts = PurePosixPath(below).parts
            if not parts or ".." in parts or not wanted(below):
                continue
            target = to.joinpath(*parts)
            there.add(target)
            target.parent.mkdir(parents=True, exist_ok=True)
            aside = target.with_name(f".{target.name}.new")
            try:
                files.get_file(name, str(aside))
            except FileNotFoundError:
                if in_use and not files.exists(name):
                    continue
                raise
            aside.replace(target)
            count += 1
    if replaced:
        _remove_others(to / replaced, there)
    return count


def _remove_others(folder: Path, there: set[Path]) -> None:
    """Remove a folder's files that are not in `there`, and the folders that this leaves empty; nothing if none is in it."""
    if not any(file.is_relative_to(folder) for file in there):
        return
    for place in sorted(folder.rglob("*"), reverse=True):  # what is in a folder comes before the folder
        if place.is_dir() and not place.is_symlink():
            with contextlib.suppress(OSError):
                place.rmdir()
        elif place not in there:
            place.unlink()


def fetch_model(text: str, to: Path) -> None:
    """Download a model of a workspace, a registry or a datastore into a folder that transformers reads.

    A model in MLflow's format keeps such a folder at data/model. Raises UsageError, MachineError.
    """
    address = read_address(text, "model")
    with scratch("model") as place:
        if address.kind == "datastore":
            fetch_folder(address, place, _of_a_model)
        else:
            _download_model(address, place)
        config = min(place.rglob("config.json"), key=lambda file: len(file.parts), default=None)
        if config is None:
            rule = "holds no config.json"
            raise UsageError(Problem(rule, "model", value=text, remedy="name a model of transformers in safetensors"))
        for file in config.parent.iterdir():
            if file.is_file() and _of_a_model(file.name):
                shutil.move(file, to / file.name)


def _of_a_model(path: str) -> bool:
    return path.endswith(MODEL_FILES) or path.rpartition("/")[2] == "merges.txt"


def _download_model(address: Address, to: Path) -> None:
    """Download a registered model; if a workspace keeps it in a datastore, file by file and without pickles."""
    azure = client(address.workspace, address.registry)
    with speaking(f"model {address.name}"):
        if not address.registry:
            path = str(azure.models.get(address.name, version=address.version).path)
            with contextlib.suppress(ValueError):
                place = parse(path).within(address.workspace)
                fetch_folder(place, to, _of_a_model)
                return
        azure.models.download(address.name, version=address.version, download_path=str(to))
