"""Which tensors a model's files hold, and which its settings ask for: compared by name and shape, nothing is computed."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from autotune.models import tensors_of, types_of, weight_files

_HEAD = ("lm_head.weight", "output.weight", "embed_out.weight")
_BYTES = 2**20


def weights(folder: Path) -> dict[str, Any]:
    """Compare the tensors in a model's files with those that its settings ask for, by name and shape.

    Returns `missing`, `mismatched`, `foreign`, `unused`, `rows` (of the embedding), `linear` and `tied_head`, as in `Inspection`. transformers
    itself says which tensor of the files is which of the model's. Raises what loading raises.
    """
    from torch.nn import Linear
    from transformers import AutoModelForCausalLM

    with contextlib.redirect_stderr(io.StringIO()):  # its report of the same, in colours
        model, told = AutoModelForCausalLM.from_pretrained(
            str(folder), device_map="meta", output_loading_info=True, ignore_mismatched_sizes=True,
            trust_remote_code=False, use_safetensors=True,
        )  # fmt: skip
    modules = dict(model.named_modules())
    whole = {name for name, module in modules.items() if name and not any(True for _ in module.children())}
    unexpected = sorted(map(str, told["unexpected_keys"]))
    # Beside a module's own tensors, or below them, as an adapter's are.
    foreign = [name for name in unexpected if name.rpartition(".")[0] in modules or whole & set(_above(name))]
    head = _other_head(folder, bool(getattr(model.config, "tie_word_embeddings", False)))
    mismatched = [
        f"{name} is {_shape(there)} in the file and {_shape(wanted)} in the model"
        for name, there, wanted in sorted(told["mismatched_keys"], key=lambda one: str(one[0]))
    ]
    parameters = {name for name, _ in model.named_parameters()}
    mismatched += [f"{name} is whole numbers ({kind})" for name, kind in _whole_numbers(folder) if name in parameters]
    return {
        "missing": sorted(map(str, told["missing_keys"])),
        "mismatched": mismatched,
        "foreign": foreign + head,
        "unused": [name for name in unexpected if name not in foreign],
        "rows": int(model.get_input_embeddings().weight.shape[0]),
        "linear": sorted({name.rpartition(".")[2] for name, module in modules.items() if isinstance(module, Linear)}),
        "tied_head": bool(getattr(model.config, "tie_word_embeddings", False)),
    }


def _above(name: str) -> list[str]:
    """Return the names of the modules that a tensor's name stands below."""
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]


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


def _whole_numbers(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield the tensors in a model's files that are no floating-point numbers, with their type: a quantiser's, whose scales are
    elsewhere or lost.
    """
    for name, kind in sorted(types_of(folder).items()):
        if kind[:1] in ("I", "U", "B") and not kind.startswith("BF"):
            yield name, kind


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
