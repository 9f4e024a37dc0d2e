"""Compare the tensors in a model's files with those that its settings ask for, by name and shape; nothing is computed with them."""

from __future__ import annotations

import contextlib
import io
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from autotune.stages.targets import targets_of
from autotune.tensors import tensors_of, types_of, weight_files

_HEAD = ("lm_head.weight", "output.weight", "embed_out.weight")
_BYTES = 2**20
_WHOLE = ("I8", "U8", "I16", "U16", "I32", "U32", "I64", "U64", "BOOL")
"""Types of numbers in a safetensors file that no weight of a model has unless it was quantised."""


def weights(folder: Path) -> dict[str, Any]:
    """Compare the tensors in a model's files with those that its settings ask for, by name and shape.

    Returns `missing`, `mismatched`, `foreign`, `unused`, `rows` (of the embedding), `linear`, `shared` and `absent`, as in `Inspection`. transformers
    itself says which tensor of the files is which of the model's. Raises what loading raises.
    """
    from transformers import AutoModelForCausalLM

    with contextlib.redirect_stderr(io.StringIO()):  # its report of the same, in colours
        model, told = AutoModelForCausalLM.from_pretrained(
            str(folder), device_map="meta", output_loading_info=True, ignore_mismatched_sizes=True,
            trust_remote_code=False, use_safetensors=True,
        )  # fmt: skip
    modules = {name for name, _ in model.named_modules()}
    unexpected = sorted(map(str, told["unexpected_keys"]))
    layers = int(getattr(model.config, "num_hidden_layers", 0) or 0)
    foreign = [name for name in unexpected if name.rpartition(".")[0] in modules or _belongs(name, layers)]
    head = _other_head(folder, bool(getattr(model.config, "tie_word_embeddings", False)))
    mismatched = [
        f"{name} is {_shape(there)} in the file and {_shape(wanted)} in the model"
        for name, there, wanted in sorted(told["mismatched_keys"], key=lambda one: str(one[0]))
    ] + [
        f"{name} holds whole numbers ({kind})"
        for name, kind in sorted(types_of(folder).items())
        if kind in _WHOLE and name not in unexpected
    ]
    return {
        "missing": sorted(map(str, told["missing_keys"])),
        "mismatched": mismatched,
        "foreign": foreign + head,
        "unused": [name for name in unexpected if name not in foreign],
        "rows": int(model.get_input_embeddings().weight.shape[0]),
        **targets_of(model),
    }


_LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.")
_OF_ADAPTERS = (
    ".base_layer.",
    ".lora_A.",
    ".lora_B.",
    ".lora_embedding_A",
    ".lora_embedding_B",
    ".lora_magnitude_vector",
)


def _belongs(name: str, layers: int) -> bool:
    """Whether a tensor for which the model has no module is of a layer that config.json leaves out, or of an adapter."""
    found = _LAYER.search(name)
    return (found is not None and int(found.group(1)) >= layers) or any(part in name for part in _OF_ADAPTERS)


def _shape(shape: Iterable[int]) -> str:
    return "x".join(map(str, shape))


def _other_head(folder: Path, tied: bool) -> list[str]:
    """Return the head in a model's files where the settings tie it to the embedding and it is another than that."""
    names = tensors_of(folder)
    head = next((name for name in names if name in _HEAD), None)
    embedding = next((name for name in names if name.endswith(("embed_tokens.weight", "wte.weight"))), None)
    if not tied or head is None or embedding is None or head == embedding:
        return []
    same = all(a == b for a, b in zip(_raw(folder, head), _raw(folder, embedding), strict=False))
    return [] if same and names[head] == names[embedding] else [f"{head} (tie_word_embeddings is true)"]


def _raw(folder: Path, name: str) -> Iterator[bytes]:
    """Yield the bytes of a tensor in a model's files."""
    for path in weight_files(folder):
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(length))
            if name not in header:
                continue
            first, end = header[name]["data_offsets"]
            stream.seek(8 + length + first)
            for at in range(first, end, _BYTES):
                yield stream.read(min(_BYTES, end - at))
