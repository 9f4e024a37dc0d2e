"""The files beside a model's config.json: what is wrong with them, before a library stumbles over it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FILES = ("generation_config.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")


_POINTER = b"version https://git-lfs"
_LONGEST_POINTER = 1024
"""The most bytes of a Git LFS pointer, as its specification says."""


def _lfs_pointer(folder: Path) -> str | None:
    """Return the name of a file of weights or settings that is only a pointer of Git LFS, as a clone without it has."""
    for file in sorted(folder.iterdir()):
        if file.suffix in (".safetensors", ".json", ".model") and file.is_file():
            with file.open("rb") as stream:
                if stream.read(len(_POINTER)) == _POINTER and file.stat().st_size <= _LONGEST_POINTER:
                    return file.name
    return None


def broken_files(folder: Path) -> tuple[str, str] | None:
    """Return what is wrong with the files in a model folder, and what to do; None where nothing is."""
    if (pointer := _lfs_pointer(folder)) is not None:
        return f"{pointer} is only a pointer of Git LFS to the file", "fetch the files in the folder: git lfs pull"
    for name in FILES:
        file = folder / name
        if not file.is_file():
            continue
        try:
            settings = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            said = "nested too deeply" if isinstance(error, RecursionError) else str(error)
            return f"{name} cannot be read ({said})", f"fetch or save the model again, or remove {name}"
        if not isinstance(settings, dict):
            return f"{name} must be a mapping", f"fetch or save the model again, or remove {name}"
        ends = settings.get("eos_token_id") if name == FILES[0] else None
        if ends is not None and not _are_tokens(ends):
            rule = f"eos_token_id in {name} must be a whole number or a list of them, and is {json.dumps(ends)[:100]}"
            return rule, "correct it there"
    return None


def _are_tokens(ends: Any) -> bool:
    given = ends if isinstance(ends, list) else [ends]
    return all(isinstance(end, int) and not isinstance(end, bool) for end in given)
