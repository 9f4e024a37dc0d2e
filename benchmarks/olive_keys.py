"""Write a page on how each key of Olive files was mapped or refused: the guide's two files key by key, recipes as a whole.

python -m benchmarks.olive_keys ../shared/olive --write     # benchmarks/measured/olive_keys.md
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path

from autotune.secrets import redact
from autotune.sweepfile.olive.ledger import text_of
from autotune.sweepfile.olive.reader import Imported, read_olive
from benchmarks.pages import put

OUT = Path(__file__).parent / "measured" / "olive_keys.md"
_FATES = {"mapped": "became", "unneeded": "not needed", "refused": "refused"}


def keys_table(imported: Imported) -> list[str]:
    """Return a table of every key of a file: what became of it, and why."""
    lines = ["| key | what became of it | |", "|---|---|---|"]
    for path, entry in imported.ledger.account():
        to = f" `{entry.to}`" if entry.to else ""
        why = entry.why + (f"; {entry.remedy}" if entry.remedy else "")
        lines.append(f"| `{text_of(path)}` | {_FATES[entry.fate]}{to} | {why.replace('|', '&#124;')} |")
    return lines


def recipes_table(files: list[Path]) -> list[str]:
    """Return a table of files: read or refused, how many of their keys had which fate, and what is refused."""
    lines = [
        "| file | | keys: mapped, not needed, refused, unread | what is refused, and what to do |",
        "|---|---|---|---|",
    ]
    for file in files:
        imported = read_olive(json.loads(file.read_text(encoding="utf-8")))
        account = imported.ledger.account()
        counts = Counter(entry.fate for _, entry in account)
        refused = [entry for entry in imported.ledger.entries.values() if entry.fate == "refused"]
        told = "<br>".join(f"`{text_of(entry.path)}`: {entry.why}; {entry.remedy}" for entry in refused)
        state = "refused" if refused else "read"
        numbers = f"{counts['mapped']}, {counts['unneeded']}, {counts['refused']}, 0"
        lines.append(f"| {file.stem} | {state} | {numbers} | {told} |")
    return lines


def document(folder: Path) -> str:
    """Return the whole page."""
    guide, recipes = sorted(folder.glob("*.json")), sorted(folder.glob("recipes/*.json"))
    lines = ["# Keys of Olive configurations", "", "Made by `python -m benchmarks.olive_keys FOLDER --write`.", ""]
    for file in guide:
        imported = read_olive(json.loads(file.read_text(encoding="utf-8")))
        lines += [f"## {file.name}", "", *keys_table(imported), ""]
    lines += ["## Recipes as their authors use them", "", *recipes_table(recipes), ""]
    return redact("\n".join(lines))


def main() -> None:
    """Print the page, or write it."""
    parser = argparse.ArgumentParser(description="What became of the keys of Olive files.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    text = document(arguments.folder)
    put(text, OUT, arguments.write)


if __name__ == "__main__":
    main()
