"""An imported sweep as a YAML file with comments: beside every value, where it came from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from autotune.errors import printable
from autotune.secrets import redact
from autotune.sweepfile.olive.ledger import text_of
from autotune.sweepfile.olive.reader import Imported
from autotune.sweepfile.syntax import to_yaml


def as_yaml(imported: Imported, shown: str) -> str:
    """Return the sweep file of an import, commented; `shown`: the file that it was made from."""
    lines = [f"# Made by `autotune import-olive` from {shown}. Beside each key stands where its value came from.", ""]
    lines += _block(imported.sweep, imported.origins, "", 0)
    left = [(path, entry) for path, entry in imported.ledger.account() if entry.fate == "unneeded"]
    if left:
        lines += ["", "# Not needed here:"]
        lines += [f"#   {text_of(path)}: {entry.why}" for path, entry in left]
    if imported.notes:
        lines += ["", "# To know:"]
        lines += [f"#   {note}" for note in imported.notes]
    return "\n".join(printable(redact(line)) for line in lines) + "\n"


def _block(part: Mapping[str, Any], origins: Mapping[str, str], key: str, depth: int) -> list[str]:
    """Return the lines of a mapping; what has an origin of its own is written on one line, or below it."""
    lines: list[str] = []
    for name, value in part.items():
        here = f"{key}.{name}" if key else name
        if isinstance(value, Mapping) and any(other.startswith(f"{here}.") for other in origins):
            lines.append(f"{'  ' * depth}{name}:")
            lines += _block(value, origins, here, depth + 1)
            continue
        plain = isinstance(value, str) and "\n" in value  # YAML would fold it over lines
        written = (
            [f"{name}: {json.dumps(value, ensure_ascii=False)}"]
            if plain
            else to_yaml({name: value}).rstrip("\n").split("\n")
        )
        origin = origins.get(here)
        comment = f"  # {origin}" if origin else ""
        lines.append(f"{'  ' * depth}{written[0]}{comment if len(written) == 1 else ''}")
        if len(written) > 1 and comment:
            lines[-1:] = [f"{'  ' * depth}#{comment[3:]}", lines[-1]]
        lines += [f"{'  ' * depth}{line}" for line in written[1:]]
    return lines
