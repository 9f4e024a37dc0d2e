"""What the files of weights in a model folder hold, read from their headers alone.

Source of the format: a safetensors file begins with the length of its header (8 bytes, little-endian), then the header as
JSON.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

LONGEST_HEADER = 100_000_000
"""Bytes of a safetensors header at most, as its own reader allows."""


def tensors_of(folder: Path) -> dict[str, tuple[int, ...]]:
    """Return the tensors of a model folder, with their shapes. Raises OSError, ValueError, LookupError where a file is damaged."""
    found: dict[str, tuple[int, ...]] = {}
    for path in weight_files(folder):
        for name, about in _header(path).items():
            if name != "__metadata__":
                found[name] = tuple(about["shape"])
    return found


def types_of(folder: Path) -> dict[str, str]:
    """Return the type of numbers of each tensor in a model folder, as safetensors calls it; raises as `tensors_of`."""
    return {
        name: str(about["dtype"])
        for path in weight_files(folder)
        for name, about in _header(path).items()
        if name != "__metadata__"
    }


def weight_files(folder: Path) -> list[Path]:
    """Return the files that a model's weights are loaded from. Raises OSError, ValueError, LookupError."""
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    index = json.loads((folder / "model.safetensors.index.json").read_text(encoding="utf-8"))
    return [folder / name for name in sorted(set(index["weight_map"].values()))]


def _header(path: Path) -> dict[str, Any]:
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if not 0 < length <= LONGEST_HEADER:
            raise ValueError(f"{path.name} is no safetensors file")
        header = json.loads(stream.read(length))
    if not isinstance(header, dict):
        raise ValueError(f"{path.name} is no safetensors file")
    return header
