"""What a built graph is made of, read from its nodes, and where that is not what the recipe asked for.

The builder accepts options that it does not know and ignores them, so nothing that it says is believed: bits, block
size, accuracy level and zero points are read from the graph's nodes, and a build that differs from its recipe fails.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto

from autotune.candidate import Recipe
from autotune.stages.kv_scales import SCALES

_FLOATS = {"fp32": TensorProto.FLOAT, "fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
_CACHES = {"int8": "INT8", "int4": "UINT8"}
"""Types of quantised key-value caches: two numbers of 4 bits share a byte."""
_SMALL = 1024
"""Tensors above this many bytes are weights: they are not part of a graph's signature."""


def read_back(folder: Path) -> dict[str, Any]:
    """Return what the graph in `folder` is made of.

    `bits` and `blocks`: MatMulNBits nodes by bits and by block size; `accuracy_levels`; `symmetric` (no node has zero
    points); `left`: names of the MatMul nodes beside them that are not quantised; `pruned`: logits of the last position
    only; `floats`: numbers in float matrices by type; `nodes`: operator counts; `cache`: the type of the key-value
    cache; `signature`: SHA-256 of the graph and its settings without the weights and the scales of the cache.
    """
    file = folder / "model.onnx"
    model = onnx.load(str(file), load_external_data=False)
    bits: Counter[int] = Counter()
    blocks: Counter[int] = Counter()
    levels: Counter[int] = Counter()
    zero_points = False
    for node in model.graph.node:
        if node.op_type == "MatMulNBits":
            attributes = {a.name: a.i for a in node.attribute}
            bits[attributes.get("bits", 4)] += 1
            blocks[attributes["block_size"]] += 1
            levels[attributes.get("accuracy_level", 0)] += 1
            zero_points |= len(node.input) > 3 and bool(node.input[3])
    floats: Counter[str] = Counter()
    for tensor in model.graph.initializer:
        size = 1
        for dim in tensor.dims:
            size *= dim
        if len(tensor.dims) == 2 and size > _SMALL and tensor.data_type in _FLOATS.values():
            floats[next(name for name, kind in _FLOATS.items() if kind == tensor.data_type)] += size
        if len(tensor.raw_data) > _SMALL or tensor.name.endswith(SCALES):
            tensor.ClearField("raw_data")
            tensor.ClearField("float_data")
    left = [node.name for node in model.graph.node if node.op_type == "MatMul"] if bits else []
    logits = next(output for output in model.graph.output if output.name == "logits")
    caches = {
        value.type.tensor_type.elem_type for value in model.graph.input if value.name.startswith("past_key_values.")
    }
    # The builder writes the git commit of the folder where it runs behind its version.
    model.ClearField("producer_version")
    signature = hashlib.sha256(model.SerializeToString(deterministic=True))
    signature.update((folder / "genai_config.json").read_bytes())
    return {
        "bits": {str(k): v for k, v in sorted(bits.items())},
        "blocks": {str(k): v for k, v in sorted(blocks.items())},
        "accuracy_levels": {str(k): v for k, v in sorted(levels.items())},
        "symmetric": not zero_points,
        "left": left,
        "pruned": logits.type.tensor_type.shape.dim[1].dim_value == 1,
        "cache": sorted(TensorProto.DataType.Name(kind) for kind in caches),
        "floats": dict(sorted(floats.items())),
        "nodes": dict(sorted(Counter(node.op_type for node in model.graph.node).items())),
        "signature": signature.hexdigest(),
    }


def differences(recipe: Recipe, built: dict[str, Any]) -> list[str]:
    """Return in words how a graph differs from its recipe."""
    found = []
    if bool(recipe.prune_lm_head) != built["pruned"]:
        found.append(f"asked for prune_lm_head {bool(recipe.prune_lm_head)}, got {built['pruned']}")
    scheme = recipe.kv_cache_quant_scheme or "none"
    wanted = _CACHES.get(scheme.split("_")[0])
    if wanted is not None and built["cache"] != [wanted]:
        found.append(
            f"asked for kv_cache_quant_scheme {scheme}, and the cache is {', '.join(built['cache']) or 'absent'}"
        )
    bits = {int(k): v for k, v in built["bits"].items()}
    if recipe.precision in ("int4", "int8"):
        body = int(recipe.precision.removeprefix("int"))
        if recipe.use_qdq:
            if not built["nodes"].get("DequantizeLinear"):
                found.append("asked for use_qdq, and no DequantizeLinear node is there")
            if bits:
                found.append(f"asked for use_qdq, and {sum(bits.values())} nodes are MatMulNBits")
            return found
        allowed = {4, 8} if recipe.mixed_precision else {body}
        if body not in bits:
            found.append(f"asked for {recipe.precision}, and no MatMulNBits node has {body} bits")
        if set(bits) - allowed:
            found.append(f"asked for {recipe.precision}, and nodes have {', '.join(map(str, sorted(bits)))} bits")
        if recipe.mixed_precision and "int8" in recipe.mixed_precision and 8 not in bits:
            found.append(f"asked for {recipe.mixed_precision}, and no node has 8 bits")
        if set(built["blocks"]) != {str(recipe.block_size)}:
            found.append(f"asked for block_size {recipe.block_size}, got {', '.join(built['blocks']) or 'none'}")
        if set(built["accuracy_levels"]) != {str(recipe.accuracy_level)}:
            found.append(f"asked for accuracy_level {recipe.accuracy_level}, got {', '.join(built['accuracy_levels'])}")
        if recipe.symmetric is not None and recipe.symmetric != built["symmetric"]:
            found.append(f"asked for symmetric {recipe.symmetric}, got {built['symmetric']}")
        if recipe.algorithm == "k_quant" and built["symmetric"]:
            found.append("asked for k_quant, and no node has the zero points that it makes")
        if "Gather" in (recipe.op_types_to_quantize or "") and not built["nodes"].get("GatherBlockQuantized"):
            found.append(f"asked for op_types_to_quantize {recipe.op_types_to_quantize}, and no Gather is quantised")
        unknown = set((recipe.nodes_to_exclude or "").split(",")) - {"", *built["left"]}
        if unknown:
            found.append(f"asked for nodes_to_exclude, and {', '.join(sorted(unknown))} is not left unquantised")
    else:
        if bits:
            found.append(f"asked for {recipe.precision}, and {sum(bits.values())} nodes are quantised")
        others = set(built["floats"]) - {recipe.precision}
        if others:
            found.append(f"asked for {recipe.precision}, and weights are {', '.join(sorted(others))}")
    return found
