"""Read what each item adds to a candidate's score from a results folder: of one candidate, or of thousands at once.

A folder has one file for each candidate. A reader of many files leaves a packed copy of what it needed, so that the next reader
opens one file. The single files stay the truth: the copy is ignored for a file that has changed since, and it may be removed at
any time.
"""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autotune.analysis.scores import per_item
from autotune.durable import ASIDE, put
from autotune.metrics import score_column

PACKED = "packed.bin"
MOST_NUMBERS = 600_000
"""The most outcomes of a score, over all candidates, that are no plain right or wrong; with more, scores are compared by unpaired
intervals."""
_VERSION = 1  # of the packed copy: raise it when its form, or the result of `per_item`, changes
_WORTH = 200  # a packed copy is written after so many single files were read


@dataclass(frozen=True, eq=False)
class Parts:
    """Each item's part in a score, see `per_item`; `grouped`: a part may belong to a group of items."""

    column: str
    items: NDArray[Any]
    grouped: bool = False


def parts_of(folder: Path, candidates: Iterable[str]) -> dict[str, Parts]:
    """Return the parts of candidates by name, without candidates whose outcomes are missing or damaged."""
    names = list(candidates)
    if len(names) < _WORTH:
        return {name: parts for name in names if (parts := _read(folder, name)) is not None}
    files = _files(folder / "outcomes")
    packed = _unpacked(folder, files)
    found: dict[str, Parts] = {}
    one_by_one = 0
    for name in names:
        if name in packed:
            found[name] = packed[name]
        elif name in files:
            one_by_one += 1
            if (parts := _read(folder, name)) is not None:
                found[name] = parts
    if one_by_one >= _WORTH:
        with contextlib.suppress(OSError):  # a read-only folder, or a full disk
            _pack(folder, {name: parts for name, parts in found.items() if name in files}, files)
    return found


def _read(folder: Path, candidate: str) -> Parts | None:
    """Return the parts of one candidate; None where its outcomes are missing or damaged."""
    try:
        kept = json.loads((folder / "outcomes" / f"{candidate}.json").read_text(encoding="utf-8"))
        column = score_column(kept["metric"])
        with np.errstate(all="ignore"):
            items = per_item(kept["metric"], kept)
        if items is None or items.ndim != 1 or not np.isfinite(items).all():
            return None
        return Parts(column, items, "parts" in kept)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError):
        return None


def _files(outcomes: Path) -> dict[str, tuple[int, int]]:
    """Return the candidates' files of a folder: size and time of the last change, by the candidate's name."""
    found = {}
    with contextlib.suppress(OSError), os.scandir(outcomes) as entries:
        for entry in entries:
            if entry.name.endswith(".json") and entry.name.count(".") == 1:
                about = entry.stat()
                found[entry.name[:-5]] = (about.st_size, about.st_mtime_ns)
    return found


def _unpacked(folder: Path, files: Mapping[str, tuple[int, int]]) -> dict[str, Parts]:
    """Return the parts from the packed copy whose files have not changed since it was written."""
    found: dict[str, Parts] = {}
    file = folder / "outcomes" / PACKED
    try:
        written = file.stat().st_mtime_ns
        content = file.read_bytes()
        end = content.index(b"\n")
        head = json.loads(content[:end])
        if head["version"] != _VERSION:
            return {}
        offset = end + 1
        for block in head["blocks"]:
            count, items, bits = len(block["names"]), int(block["items"]), bool(block["bits"])
            size = count * (-(-items // 8) if bits else 8 * items)
            data = content[offset : offset + size]
            rows: NDArray[Any] = (
                np.unpackbits(np.frombuffer(data, dtype=np.uint8).reshape(count, -1), axis=1, count=items)
                if bits
                else np.frombuffer(data, dtype=np.float64).reshape(count, items)
            )
            for name, size_then, row in zip(block["names"], block["sizes"], rows, strict=True):
                size_now, changed = files.get(name, (-1, 0))
                if size_now == size_then and changed < written:
                    found[name] = Parts(str(block["column"]), row, bool(block["grouped"]))
            offset += size
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}
    return found


def _pack(folder: Path, parts: Mapping[str, Parts], files: Mapping[str, tuple[int, int]]) -> None:
    """Write the packed copy. Raises OSError."""
    blocks: dict[tuple[str, int, bool, bool], list[str]] = defaultdict(list)
    for name, part in parts.items():
        bits = bool(((part.items == 0) | (part.items == 1)).all())
        blocks[part.column, part.items.size, bits, part.grouped].append(name)
    heads, data = [], []
    for (column, items, bits, grouped), names in blocks.items():
        sizes = [files[name][0] for name in names]
        heads.append(
            {"column": column, "items": items, "bits": bits, "grouped": grouped, "names": names, "sizes": sizes}
        )
        rows = np.array([parts[name].items for name in names])
        data.append(np.packbits(rows.astype(np.uint8), axis=1) if bits else rows.astype(np.float64))
    head = json.dumps({"version": _VERSION, "blocks": heads}, separators=(",", ":")).encode("utf-8")
    outcomes = folder / "outcomes"
    aside = outcomes / f"{PACKED}.{uuid.uuid4().hex[:12]}{ASIDE}"
    try:
        aside.write_bytes(b"\n".join([head, b"".join(block.tobytes() for block in data)]))
        put(aside, outcomes / PACKED, sync=False)
    except OSError:
        aside.unlink(missing_ok=True)
        raise
