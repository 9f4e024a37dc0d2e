"""Does the check tell damage from honest rounding? Every recipe on the built-in model, as built and damaged.

    python -m benchmarks.fidelity MODEL_FOLDER [--builds FOLDER] [--write]

MODEL_FOLDER is the model as safetensors; `--builds` keeps the builds for the next run. The script prints the table from which
the limits in `autotune/stages/check_build.py` and `weights.py` were set; `--write` puts it into measured/fidelity.md. It exits
with 1 if an honest build is refused or a damaged one accepted.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import onnx
from numpy.typing import NDArray

from autotune.candidate import Recipe
from autotune.errors import StageError
from autotune.scratch import scratch
from autotune.stages.backends import OnnxBackend, Tokens, TorchBackend
from autotune.stages.build import build
from autotune.stages.check_build import LOGIT_ERROR, Reference, judge, texts_of
from autotune.stages.jobs import BuildJob
from autotune.stages.text import encode, load_tokenizer
from autotune.stages.weights import FLOAT_ERROR, STEPS

THREADS = 1
ITEMS = Path(__file__).parent / "phrase_tone" / "validation.jsonl"
BLOCKS = {"algorithm": "default", "block_size": 32, "accuracy_level": 4, "symmetric": True}
Change = Callable[[NDArray[Any]], NDArray[Any]]


def recipe(precision: str, **changes: Any) -> Recipe:
    """Return a recipe of the CPU with its defaults spelled out."""
    return Recipe(precision=precision, **(BLOCKS if precision.startswith("int") else {}) | changes)


K_QUANT: dict[str, Any] = {"algorithm": "k_quant", "symmetric": None}
UNTIED: dict[str, Any] = {"shared_embeddings": False}
MIXED = "last_matmul:int8,mixed_layers:int8"
RECIPES = (
    recipe("fp32"), recipe("fp32", prune_lm_head=True), recipe("fp32", fuse_qkv=False),
    recipe("int8"), recipe("int8", block_size=128), recipe("int8", algorithm="rtn"), recipe("int8", **K_QUANT),
    recipe("int4"), recipe("int4", block_size=128), recipe("int4", block_size=256),
    recipe("int4", accuracy_level=0), recipe("int4", accuracy_level=1), recipe("int4", symmetric=False, **UNTIED),
    recipe("int4", algorithm="rtn"), recipe("int4", algorithm="rtn", block_size=64), recipe("int4", algorithm="rtn", block_size=128),
    recipe("int4", algorithm="rtn", symmetric=False, **UNTIED),
    recipe("int4", **K_QUANT), recipe("int4", mixed_precision=MIXED, **K_QUANT),
    recipe("int4", use_qdq=True, **UNTIED), recipe("int4", op_types_to_quantize="MatMul/Gather"),
)  # fmt: skip
DAMAGED = (recipe("fp32"), recipe("int8"), recipe("int4"), recipe("int4", **K_QUANT))
"""Recipes whose builds are damaged in every way."""


# --- Damage ----------------------------------------------------------------------------------------------------------


def edit(folder: Path, change: Change, *parts: str) -> int:
    """Change the stored numbers of the initializers in `folder` whose names hold all `parts`; return how many there are."""
    model = onnx.load(str(folder / "model.onnx"), load_external_data=False)
    count = 0
    for tensor in model.graph.initializer:
        external = {entry.key: entry.value for entry in tensor.external_data}
        if all(part in tensor.name for part in parts) and "location" in external:
            dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
            place, shape = folder / external["location"], tuple(tensor.dims)
            stored = np.memmap(place, dtype=dtype, mode="r+", offset=int(external.get("offset", 0)), shape=shape)
            stored[:] = change(np.array(stored))
            stored.flush()
            count += 1
    return count


def scrambled(array: NDArray[Any]) -> NDArray[Any]:
    """Return the same numbers in another order."""
    return np.random.default_rng(0).permutation(array.reshape(-1)).reshape(array.shape)


def _layer(folder: Path, layer: int, change: Change) -> int:
    """Change the matrices of one layer: their scales where they are quantised."""
    scales = edit(folder, change, f".layers.{layer}.", "MatMul.weight_scale")
    return scales or edit(folder, change, f".layers.{layer}.", "MatMul.weight")


def damages(layers: int) -> dict[str, Callable[[Path], int]]:
    """Return ways to damage a build, by what they do; each returns how many tensors it changed."""
    middle = layers // 2

    def matrix(*parts: str, change: Change = scrambled) -> Callable[[Path], int]:
        """Change a matrix: its numbers, or where it is quantised its packed ones."""

        def damage(folder: Path) -> int:
            return edit(folder, change, *parts, "weight_Q") or edit(folder, change, *parts, "weight")

        return damage

    def scale(factor: float) -> Callable[[Path], int]:
        def damage(folder: Path) -> int:
            name = f".layers.{middle}.mlp.down_proj."
            double: Change = lambda a: (a * factor).astype(a.dtype)  # noqa: E731
            return edit(folder, double, name, "weight_scale") or edit(folder, double, name, "weight")

        return damage

    return {
        "qkv_proj of a layer scrambled": matrix(f".layers.{middle}.attn.qkv_proj."),
        "o_proj of a layer scrambled": matrix(f".layers.{middle}.attn.o_proj."),
        "down_proj of a layer scrambled": matrix(f".layers.{middle}.mlp.down_proj."),
        "head (and embedding where shared) scrambled": matrix("lm_head.MatMul."),
        "one norm scrambled": lambda folder: edit(folder, scrambled, f".layers.{middle}.input_layernorm.weight"),
        "the final norm scrambled": lambda folder: edit(folder, scrambled, "final_norm_layernorm.weight"),
        "a layer's matrices zeroed": lambda folder: _layer(folder, middle, np.zeros_like),
        "down_proj of a layer doubled": scale(2.0),
        "down_proj of a layer times 1.25": scale(1.25),
        "one token for ever (the final norm zeroed)": lambda f: edit(f, np.zeros_like, "final_norm_layernorm.weight"),
        "one number that is none": lambda folder: edit(folder, one_nan, f".layers.{middle}.input_layernorm.weight"),
    }


def one_nan(array: NDArray[Any]) -> NDArray[Any]:
    """Return the numbers with the first replaced by nan."""
    array[0] = np.nan
    return array


# --- The table -------------------------------------------------------------------------------------------------------


def texts(folder: Path) -> list[Tokens]:
    """Return the texts of the check, from held-out phrases."""
    rows = [json.loads(line) for line in ITEMS.read_text(encoding="utf-8").splitlines()]
    items = [
        {"id": str(k), "prompt": f"Text: {row['phrase']}\nTone:", "completion": f" {row['tone']}"}
        for k, row in enumerate(rows)
    ]
    encoded, _ = encode(load_tokenizer(folder), items, 256)
    return texts_of([(item.prompt, item.completion) for item in encoded])


def built(source: Path, recipe: Recipe, builds: Path) -> Path:
    """Return the folder of a build, made unless it is there. Raises StageError."""
    folder = builds / "".join(c if c.isalnum() else "-" for c in str(recipe))
    if not (folder / "built").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        build(BuildJob(source="source", recipe=recipe, provider="cpu", source_dir=source), folder)
        (folder / "built").touch()
    return folder


class Source:
    """The source, for many builds: a check leaves the weights of its build in the source's model, so each has a model of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.texts = folder, texts(folder)
        self._known: dict[bool, list[NDArray[np.float32]]] = {}

    def reference(self) -> Reference:
        """Return the source with its weights as they are in the folder."""
        return Reference(TorchBackend(self.folder, None, "cpu", THREADS), self.texts, self._known)


def row(name: str, what: str, recipe: Recipe, folder: Path, source: Source) -> tuple[str, bool]:
    """Return a line of the table, and whether the build passed."""
    reference = source.reference()
    began = time.process_time()
    found = judge(reference, OnnxBackend(folder, "cpu", THREADS), folder, recipe)
    seconds = time.process_time() - began

    def number(key: str, form: str) -> str:
        return format(found[key], form) if found.get(key) is not None else ""

    cells = [
        name, what, number("kl_nats", ".2g"), number("greedy_agreement", ".1%"), number("logit_error", ".2g"),
        number("weight_error", ".2g"), number("weight_steps", ".3f"), str(found["weights"]), f"{seconds:.1f}",
        "failed" if found["trouble"] else "ok", found["trouble"] or "",
    ]  # fmt: skip
    return "| " + " | ".join(cells) + " |", found["trouble"] is None


def lines(source: Path, builds: Path) -> Iterator[tuple[str, bool]]:
    """Yield the lines of the table, and whether each is as it should be."""
    began = time.process_time()
    model = Source(source)
    reference = model.reference()
    reference.logits(last=False)
    yield f"The source's side took {time.process_time() - began:.1f} s of one core.\n", True
    yield (
        "| recipe | build | KL, nats | greedy | logit error | weight error | steps | weights | core s | | reason |",
        True,
    )
    yield "|---|---|---|---|---|---|---|---|---|---|---|", True
    for one in RECIPES:
        try:
            line, passed = row(str(one), "honest", one, built(source, one, builds), model)
        except StageError as error:
            line, passed = f"| {one} | honest | | | | | | | | unsupported | {str(error).splitlines()[0][:90]} |", True
        yield line, passed
    layers = reference.backend.model.config.num_hidden_layers
    for one in DAMAGED:
        for name, damage in damages(layers).items():
            with scratch("fidelity") as folder:
                copy = Path(shutil.copytree(built(source, one, builds), folder / "build"))
                if not damage(copy):
                    raise SystemExit(f"{one}: nothing to damage for: {name}")
                line, passed = row(str(one), name, one, copy, model)
            yield line, not passed


def main() -> int:
    """Print the table. Returns 1 where a line is not as it should be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("--builds", type=Path)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    logging.disable(logging.INFO)
    right, text = True, []
    with scratch("builds") as folder:
        for line, good in lines(given.source, given.builds or folder):
            print(line if good else f"{line} <- WRONG", flush=True)
            text.append(line)
            right &= good
    if given.write:
        limits = ", ".join(f"{name} {limit:g}" for name, limit in LOGIT_ERROR.items())
        head = [
            "# Honest builds and damaged ones", "", "Made by `python -m benchmarks.fidelity MODEL_FOLDER --write`.", "",
            "`KL`, `greedy` and `logit error` compare next-token distributions with PyTorch's; `weight error` is the largest "
            "relative error of a float weight or a quantised one, `steps` the largest root mean square error of a quantised one in steps of its "
            "quantiser; `weights` how many could be judged.", "",
            f"Refused: a logit error above {limits}; a float weight with an error above {FLOAT_ERROR:g}, a quantised one "
            f"above {STEPS:g} steps; a build that repeats one token; logits that are not finite.", "",
        ]  # fmt: skip
        file = Path(__file__).parent / "measured" / "fidelity.md"
        file.write_text("\n".join([*head, *text]) + "\n", encoding="utf-8")
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
