"""The `import-olive` command: an Olive configuration in, a sweep file with comments out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from autotune.durable import write_aside
from autotune.errors import Problem, UsageError
from autotune.sweepfile.olive.reader import import_olive, is_olive, settle
from autotune.sweepfile.olive.written import as_yaml
from autotune.sweepfile.syntax import read_file


def import_file(config: Path, output: Path | None, search: bool) -> str:
    """Write the sweep file of an Olive configuration, or return it where there is no `output`. Raises UsageError."""
    data, _ = read_file(config, str(config))
    if not is_olive(data):
        rule = "is no Olive configuration: it has no input_model"
        raise UsageError(Problem(rule, file=str(config), remedy="run a sweep file as it is: autotune run"))
    imported = import_olive(data, str(config), search)
    origins, told = settle(imported.sweep, config.parent, imported.origins, imported.joined)
    imported = replace(imported, origins={**imported.origins, **origins}, notes=(*imported.notes, *told))
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
