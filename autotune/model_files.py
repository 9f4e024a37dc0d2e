"""The files in a model folder beside its config.json: what is wrong with them, before a library stumbles over it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from autotune.errors import Problem, UsageError
from autotune.paths import GGUF, is_file

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


PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".h5", ".msgpack")
_MADE_FROM = "name the model that it was made from"
_OTHER_FORMS = {".gguf": f"{_MADE_FROM}, or {GGUF}", ".onnx": _MADE_FROM, ".tflite": _MADE_FROM, ".mlmodel": _MADE_FROM}
_CONVERT = "convert it with save_pretrained(folder), which writes safetensors"


def check_weights(folder: Path, name: str) -> None:
    """Raise UsageError where a folder's weights are not complete in safetensors; no file of weights is opened.

    Pickled files beside whole safetensors are never read.
    """
    if (folder / "model.safetensors").is_file():
        return
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            shards = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
            named = sorted({str(shard) for shard in shards})
            whole = bool(named) and all(isinstance(shard, str) for shard in shards)
        except (OSError, ValueError, RecursionError, LookupError, TypeError, AttributeError):
            named, whole = [], False
        if not whole:
            rule = f"{index.name} names no files of weights"
            raise UsageError(Problem(rule, "model", value=name, remedy="fetch or save the model again"))
        for shard in named:
            if not shard.endswith(".safetensors"):
                rule = f"weights are read from safetensors only, and {index.name} names {shard}"
                raise UsageError(Problem(rule, "model", value=name, remedy=_CONVERT))
            if Path(shard).name != shard or "\\" in shard or not is_file(folder / shard):
                rule = f"{index.name} names {shard}, which is not in the folder"
                raise UsageError(Problem(rule, "model", value=name, remedy="fetch or save the model again"))
        return
    others = sorted(
        entry.name for entry in folder.iterdir() if entry.suffix.lower() in (*PICKLED, *_OTHER_FORMS, ".safetensors")
    )
    rule = "weights are read from safetensors only" + (f", and this folder holds {others[0]}" if others else "")
    if others and others[0].endswith(".safetensors"):
        rule = f"a model folder needs model.safetensors or {index.name}, and this one holds {others[0]}"
    suffix = others[0][others[0].rindex(".") :].lower() if others else ""
    raise UsageError(Problem(rule, "model", value=name, remedy=_OTHER_FORMS.get(suffix, _CONVERT)))
