"""The `import-olive` command: an Olive configuration in, a sweep file with comments out."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from autotune.durable import write_aside
from autotune.errors import Problem, UsageError
from autotune.sweepfile.olive.reader import import_olive, is_olive, settle
from autotune.sweepfile.olive.written import as_yaml
from autotune.sweepfile.syntax import read_file

_FILES = ("data.train", "data.validation", "data.test", "submit.azureml.conda_file")
"""Keys that may name a file by its path from the folder of the sweep file."""


def _rebase(sweep: dict[str, Any], before: Path, after: Path) -> None:
    """Change paths from the folder of the Olive file to paths from that of the sweep file, in place."""
    if before.resolve() == after.resolve():
        return
    for key in ("model", *_FILES):
        *parents, last = key.split(".")
        here: Any = sweep
        for name in parents:
            here = here.get(name) if isinstance(here, dict) else None
        value = here.get(last) if isinstance(here, dict) else None
        if not isinstance(value, str) or "://" in value or Path(value).is_absolute():
            continue
        if key == "model" and not (before / value).is_dir():  # a name on the hub
            continue
        here[last] = _from(after, before / value)


def _from(folder: Path, path: Path) -> str:
    """Return the path from a folder to a file; a whole one where that lies on another drive."""
    try:
        return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()
    except ValueError:
        return path.resolve().as_posix()


def import_file(config: Path, output: Path | None, search: bool) -> str:
    """Write the sweep file of an Olive configuration, or return it where there is no `output`. Raises UsageError."""
    data, _ = read_file(config, str(config))
    if not is_olive(data):
        rule = "is no Olive configuration: it has no input_model"
        raise UsageError(Problem(rule, file=str(config), remedy="run a sweep file as it is: autotune run"))
    imported = import_olive(data, str(config), search)
    origins, told = settle(imported.sweep, config.parent, imported.origins, imported.joined)
    imported = replace(imported, origins={**imported.origins, **origins}, notes=(*imported.notes, *told))
    _rebase(imported.sweep, config.parent, output.parent if output is not None else Path())
    text = as_yaml(imported, config.name)
    if output is None:
        return text
    if output.exists():
        raise UsageError(Problem("is there already", file=str(output), remedy="name another file, or remove it"))
    try:
        write_aside(output, text)
    except OSError as error:
        rule = f"cannot be written ({error.strerror or error})"
        raise UsageError(Problem(rule, file=str(output), remedy="check the path")) from None
    return ""
