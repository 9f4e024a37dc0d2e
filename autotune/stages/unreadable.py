"""Why a model or a tokenizer cannot be loaded, in words that name the file or the key, and what to do about it.

Libraries say `'foo'`, `header too large` or `module 'torch' has no attribute 'float17'`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from autotune.errors import shown
from autotune.stages.jobs import installed, reason
from autotune.tensors import weight_files

_POINTER = b"version https://git-lfs"
_AGAIN = "fetch or save the model again"
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "tokenizer.model",
)
_CONVERT = "AutoTokenizer.from_pretrained(folder).save_pretrained(folder) writes it"
_SAVE = "save it again: tokenizer.save_pretrained(folder)"


def model_trouble(error: Exception, folder: Path) -> tuple[str, str]:
    """Return why a model cannot be loaded, and the remedy; `error`: what its loading raised."""
    for found in (_pointer(folder), _damaged(folder), _unknown_value(error, folder)):
        if found is not None:
            return found
    index = folder / "model.safetensors.index.json"
    if isinstance(error, KeyError) and index.is_file() and not (folder / "model.safetensors").is_file():
        return f"{index.name} lacks {reason(error)}", _AGAIN
    said = f"it does not find {reason(error)}" if isinstance(error, KeyError) else _said(error)
    return f"the model cannot be loaded: {said}", _AGAIN


def tokenizer_trouble(error: Exception, folder: Path) -> tuple[str, str]:
    """Return why a tokenizer cannot be loaded, and the remedy; `error`: what its loading raised."""
    pointer = _pointer(folder)
    if pointer is not None:
        return pointer
    if "custom code" in str(error):
        rule = "the tokenizer needs code from the model's own folder (auto_map), which is never run"
        return rule, "name a model whose tokenizer is built into transformers, or save it as tokenizer.json"
    there = [name for name in _TOKENIZER_FILES if (folder / name).is_file()]
    rule = f"the tokenizer cannot be loaded from {', '.join(there) or 'the folder'}: {_said(error)}"
    if "vocab.json" in there and "merges.txt" not in there and "tokenizer.json" not in there:
        return rule, "add the merges.txt that belongs to vocab.json"
    if "tokenizer.model" in there and "tokenizer.json" not in there:
        return rule, f"add its tokenizer.json; where sentencepiece is installed, {_CONVERT}"
    return rule, _SAVE


def _said(error: BaseException) -> str:
    """Return what an error says in one line: that of its cause, where it only announces one."""
    text = reason(error).rstrip()
    cause = error.__cause__
    return f"{text} {reason(cause)}" if text.endswith(":") and cause is not None else text


def _pointer(folder: Path) -> tuple[str, str] | None:
    """Return what is wrong where a file is the pointer that Git LFS leaves in place of a large file."""
    for file in sorted(folder.iterdir()):
        if file.suffix in (".safetensors", ".json", ".model") and file.is_file():
            with file.open("rb") as stream:
                if stream.read(len(_POINTER)) == _POINTER:
                    rule = f"{file.name} is the pointer of Git LFS to a file that was not fetched"
                    return rule, "run git lfs pull in the folder, or fetch the model again"
    return None


def _damaged(folder: Path) -> tuple[str, str] | None:
    """Return what is wrong where a file of weights is shorter or longer than its own header says."""
    try:
        files = weight_files(folder)
    except (OSError, ValueError, LookupError):
        return None
    for file in files:
        size = file.stat().st_size
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if length > size - 8:
                return f"{file.name} is no whole safetensors file", _AGAIN
            try:
                header = json.loads(stream.read(length))
                ends = [int(about["data_offsets"][1]) for name, about in header.items() if name != "__metadata__"]
            except (ValueError, TypeError, LookupError, AttributeError):
                return f"{file.name} is no whole safetensors file", _AGAIN
        whole = 8 + length + max(ends, default=0)
        if whole != size:
            return f"{file.name} has {size:,} bytes, and its header asks for {whole:,}", _AGAIN
    return None


def broken_settings(folder: Path) -> tuple[str, str] | None:
    """Return what is wrong where transformers cannot read generation_config.json, which it loads with every model."""
    file = folder / "generation_config.json"
    if not file.is_file():
        return None
    from transformers import GenerationConfig

    try:
        json.loads(file.read_text(encoding="utf-8"))
        GenerationConfig.from_pretrained(str(folder))
    except Exception as error:  # noqa: BLE001 - its values can be wrong in any way
        remedy = "mend it, or remove it: only the tokens that end a text are needed of it"
        return f"{file.name} cannot be used ({reason(error)})", remedy
    return None


def _unknown_value(error: Exception, folder: Path) -> tuple[str, str] | None:
    """Return which key of config.json has the value that a library does not know."""
    named = error.args[0] if isinstance(error, KeyError) and error.args else None
    if isinstance(error, AttributeError) and (lacked := re.search(r"has no attribute '(.+?)'", str(error))):
        named = lacked[1]
    if not isinstance(named, str):
        return None
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    for key, value in _entries(config):
        if value == named:
            rule = (
                f"{key} in config.json is {shown(value)}, which transformers {installed('transformers')} does not know"
            )
            return rule, "write it as the model's authors publish it"
    return None


def _entries(settings: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every value of nested mappings, with its path."""
    for key, value in settings.items() if isinstance(settings, dict) else ():
        yield f"{before}{key}", value
        yield from _entries(value, f"{before}{key}.")
