"""Read a built graph's weights back, say how far each lies from the source's, or put them into the source.

A weight of the graph is found in the source by its layer and its name. Builders may rename, fuse, permute or rescale, so
a kind of weight (all `o_proj`, say) counts only where at least half of its layers are as in the source: then one that is
not was damaged. What has no such counterpart is left to the logits.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto
from onnx.helper import get_attribute_value, tensor_dtype_to_np_dtype

NUMBERS = 2**18
"""Numbers of one weight that are compared, about: rows at equal distances from its first to its last."""
FLOAT_ERROR = 0.05
"""The relative error from which on a float weight is another one: bf16 rounds by at most 0.004; a scrambled norm has 0.1 or more."""
_WEIGHTS = 256
"""Integers from which on an initializer is taken for weights, and not for shapes and indices."""
STEPS = 0.5
"""The root mean square error, in steps of the quantiser, from which on a quantised weight is another one.

Rounding to the nearest leaves 1/sqrt(12) = 0.29, whatever the bits and the block; measured: 0.25 to 0.31 for every
algorithm of the builder, and 0.6 or more for damage (benchmarks/measured/fidelity.md).
"""

_NAME = re.compile(
    r"(?:.*\blayers\.(\d+)\.)?(?:.*\.)?(?!(?:MatMul|Add|layernorm)\.)(\w+)(?:\.(?:MatMul|Add|layernorm))?\.(weight|bias)(_.*)?"
)
"""Layer, leaf, kind, and what a quantiser appends to the name."""
_FUSED = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}
_OUTSIDE = {
    "lm_head": ("lm_head", "embed_tokens"),
    "embed_tokens": ("embed_tokens",),
    "final_norm_layernorm": ("norm",),
}
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16)


@dataclass(frozen=True)
class Weight:
    """One weight of a graph: `values` (outputs, inputs) or (numbers,), some of its outputs or inputs, and the `step`
    between neighbours that the quantiser had, of the shape of `values` or None.
    """

    name: str
    layer: int | None
    leaf: str
    kind: str
    """`weight` or `bias`."""
    shape: tuple[int, ...]
    """The shape of the whole weight in PyTorch: (outputs, inputs) or (numbers,)."""
    rows: slice
    columns: slice
    values: torch.Tensor
    step: torch.Tensor | None


def _named(name: str) -> tuple[int | None, str, str]:
    """Return layer, leaf and kind (empty where it has none) of a weight's name, in a graph or in PyTorch."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None, name, ""
    layer, leaf, kind, _ = found.groups()
    return None if layer is None or leaf == "final_norm_layernorm" else int(layer), leaf, kind


class _Tensors:
    """The initializers of a graph, read from its files as they are asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.graph = onnx.load(str(folder / "model.onnx"), load_external_data=False).graph
        self.named = {tensor.name: tensor for tensor in self.graph.initializer}

    def __call__(self, name: str) -> NDArray[Any]:
        tensor = self.named[name]
        external = {entry.key: entry.value for entry in tensor.external_data}
        if tensor.data_type in (TensorProto.INT4, TensorProto.UINT4) or "location" not in external:
            return np.asarray(onnx.numpy_helper.to_array(tensor, base_dir=str(self.folder)))
        dtype = np.dtype(tensor_dtype_to_np_dtype(tensor.data_type))
        shape, offset = tuple(tensor.dims), int(external.get("offset", 0))
        return np.memmap(self.folder / external["location"], dtype=dtype, mode="r", offset=offset, shape=shape)


def _stride(shape: tuple[int, ...], along: int, whole: bool = False) -> slice:
    """Return the rows (or columns) to compare, about NUMBERS numbers in all; every one if `whole`."""
    if whole:
        return slice(None)
    each = math.prod(shape) // max(1, shape[along])
    wanted = max(1, NUMBERS // max(1, each))
    return slice(None, None, max(1, shape[along] // wanted))


def _tensor(array: NDArray[Any]) -> torch.Tensor:
    return torch.from_numpy(np.array(array, dtype=np.float32))


def _unpacked(packed: NDArray[np.uint8], bits: int, count: int) -> torch.Tensor:
    """Return numbers of `bits` bits from bytes, the lowest first: (..., bytes) to (..., `count`)."""
    held = torch.from_numpy(np.array(packed))
    if bits < 8:
        parts = [(held >> shift) & (2**bits - 1) for shift in range(0, 8, bits)]
        held = torch.stack(parts, dim=-1).flatten(-2)
    return held[..., :count].float()


def _matmul_nbits(node: NodeProto, tensors: _Tensors, whole: bool) -> Weight | None:
    """Return the weight of a MatMulNBits node; None where its layout is a kernel's own."""
    given = {a.name: get_attribute_value(a) for a in node.attribute}
    bits, block, outputs, inputs = given.get("bits", 4), given["block_size"], given["N"], given["K"]
    if given.get("weight_prepacked") or bits not in (2, 4, 8) or not set(node.input[1:3]) <= set(tensors.named):
        return None
    blocks = -(-inputs // block)
    rows = _stride((outputs, inputs), 0, whole)
    steps = tensors(node.input[2]).reshape(outputs, blocks)[rows]
    levels = _unpacked(tensors(node.input[1]).reshape(outputs, blocks, -1)[rows], bits, block)
    zero: Any = float(2 ** (bits - 1))
    if len(node.input) > 3 and node.input[3]:
        zeros = tensors(node.input[3])
        if zeros.dtype == np.uint8:
            zero = _unpacked(zeros.reshape(outputs, -1)[rows], bits, blocks)[..., None]
        else:
            zero = _tensor(zeros.reshape(outputs, blocks)[rows])[..., None]
    step = _tensor(steps)[..., None]
    values = ((levels - zero) * step).flatten(1)[:, :inputs]
    spread = step.expand(-1, -1, block).flatten(1)[:, :inputs]
    return Weight(node.name, *_named(node.input[1]), (outputs, inputs), rows, slice(None), values, spread)


def _dequantised(node: NodeProto, tensors: _Tensors, whole: bool) -> Weight | None:
    """Return the weight (inputs, outputs) of a DequantizeLinear node whose blocks lie along its inputs."""
    given = {a.name: get_attribute_value(a) for a in node.attribute}
    if not set(node.input[:2]) <= set(tensors.named) or given.get("axis", 1) != 0 or not given.get("block_size"):
        return None
    levels, steps = tensors(node.input[0]), tensors(node.input[1])
    if levels.ndim != 2:
        return None
    inputs, outputs = levels.shape
    rows = _stride((outputs, inputs), 0, whole)

    def spread(array: NDArray[Any]) -> torch.Tensor:
        return _tensor(array[:, rows]).T.repeat_interleave(given["block_size"], dim=1)[:, :inputs]

    zero = spread(tensors(node.input[2])) if len(node.input) > 2 and node.input[2] else 0.0
    step = spread(steps)
    values = (_tensor(levels[:, rows]).T - zero) * step
    return Weight(node.name, *_named(node.input[0]), (outputs, inputs), rows, slice(None), values, step)


def _gathered(node: NodeProto, tensors: _Tensors) -> Weight | None:
    """Return the whole table of a GatherBlockQuantized node, of the embedding; None where its layout is another.

    Where embedding and head share their numbers, the table is the head's, seen through a Reshape.
    """
    given = {a.name: get_attribute_value(a) for a in node.attribute}
    bits, block = given.get("bits", 4), given.get("block_size", 128)
    makers = {name: maker for maker in tensors.graph.node for name in maker.output}
    held = node.input[0]
    if held in makers and makers[held].op_type == "Reshape":
        held = makers[held].input[0]
    known = {held, node.input[2], *filter(None, node.input[3:4])}
    if not known <= set(tensors.named) or given.get("gather_axis", 0) != 0 or bits not in (4, 8):
        return None
    stored, steps = tensors(held), tensors(node.input[2])
    outputs, packed = stored.shape[0], tensors.named[held].data_type == TensorProto.UINT8
    if packed:
        stored = stored.reshape(outputs, -1)
    inputs = stored.shape[1] * (8 // bits if packed else 1)
    levels = _unpacked(stored, bits, inputs) if packed else _tensor(stored)
    step = _tensor(steps.reshape(outputs, -1)).repeat_interleave(block, dim=1)[:, :inputs]
    zero: Any = float(2 ** (bits - 1)) if packed else 0.0
    if len(node.input) > 3 and node.input[3]:
        zeros, blocks = tensors(node.input[3]), -(-inputs // block)
        many = _unpacked(zeros.reshape(outputs, -1), bits, blocks) if packed else _tensor(zeros)
        zero = many.repeat_interleave(block, dim=1)[:, :inputs]
    return Weight(
        node.name, None, "embed_tokens", "weight", (outputs, inputs), slice(None), slice(None),
        (levels - zero) * step, step,
    )  # fmt: skip


def weights_in(folder: Path, whole: bool = False) -> Iterator[Weight]:
    """Yield the weights of the graph in `folder` that can be read, one at a time; `whole`: all their numbers."""
    tensors = _Tensors(folder)
    multiplied = {node.input[1] for node in tensors.graph.node if node.op_type == "MatMul"}
    for node in tensors.graph.node:
        read = {"MatMulNBits": _matmul_nbits, "DequantizeLinear": _dequantised}.get(node.op_type)
        if read is not None and (weight := read(node, tensors, whole)) is not None:
            yield weight
    for tensor in tensors.graph.initializer:
        if tensor.data_type not in _FLOATS or not tensor.name.endswith((".weight", ".bias")):
            continue
        layer, leaf, kind = _named(tensor.name)
        if len(tensor.dims) not in (1, 2):
            continue
        array = tensors(tensor.name)
        if array.ndim == 1:
            yield Weight(tensor.name, layer, leaf, kind, array.shape, slice(None), slice(None), _tensor(array), None)
        elif tensor.name in multiplied:  # (inputs, outputs)
            columns = _stride(array.shape, 0, whole)
            values = _tensor(array[columns]).T
            yield Weight(tensor.name, layer, leaf, kind, array.shape[::-1], slice(None), columns, values, None)
        else:
            rows = _stride(array.shape, 0, whole)
            yield Weight(tensor.name, layer, leaf, kind, array.shape, rows, slice(None), _tensor(array[rows]), None)


def _by_place(state: Mapping[str, torch.Tensor]) -> dict[tuple[int | None, str, str], torch.Tensor]:
    """Return the source's weights by layer, leaf and kind, without those that share these."""
    found: dict[tuple[int | None, str, str], list[torch.Tensor]] = defaultdict(list)
    for name, tensor in state.items():
        found[_named(name)].append(tensor)
    return {place: tensors[0] for place, tensors in found.items() if len(tensors) == 1}


def _counterpart(weight: Weight, source: Mapping[tuple[int | None, str, str], torch.Tensor]) -> torch.Tensor | None:
    """Return the weight of the source that a weight of the graph should equal, in float32; None if the source has none."""
    layer, leaf, kind = weight.layer, weight.leaf, weight.kind
    names = _OUTSIDE.get(leaf, (leaf,)) if layer is None else (leaf,)
    whole = next((source[layer, name, kind] for name in names if (layer, name, kind) in source), None)
    if whole is None and leaf in _FUSED:
        parts = [source.get((layer, name, kind)) for name in _FUSED[leaf]]
        if all(part is not None for part in parts):
            whole = torch.cat([part for part in parts if part is not None])
    if whole is None or tuple(whole.shape) != weight.shape:
        return None
    return (whole[weight.rows, weight.columns] if whole.dim() == 2 else whole).float()


@dataclass(frozen=True)
class Compared:
    """How far a weight of the graph is from the source's.

    `error`: norm of the difference over the norm of the source. `steps`: root mean square of the difference in steps of
    the quantiser, None for floats; the rounding of an honest one to the nearest step leaves 0.29, and at most 0.5.
    """

    name: str
    kind: str
    """Weights that stand or fall together: of one name in all layers, all norms, all outside of layers."""
    error: float
    steps: float | None

    @property
    def same(self) -> bool:
        """Whether it is the source's, as far as its precision goes."""
        return self.steps <= STEPS if self.steps is not None else self.error <= FLOAT_ERROR


def compare_weights(folder: Path, state: Mapping[str, torch.Tensor]) -> list[Compared]:
    """Compare the graph in `folder` with the source's weights by their names in PyTorch."""
    source = _by_place(state)
    found = []
    for weight in weights_in(folder):
        wanted = _counterpart(weight, source)
        if wanted is None:
            continue
        difference = weight.values - wanted
        error = float(difference.norm() / wanted.norm().clamp(min=1e-30))
        steps = None
        if weight.step is not None:
            # A step of 0 can stand for zeros alone: all else is then many steps away.
            step = weight.step.abs().clamp(min=1e-6 * max(float(weight.step.abs().max()), float(wanted.abs().max())))
            steps = float((difference / step).square().mean().sqrt()) if error else 0.0
        kind = "norms" if len(weight.shape) == 1 and weight.kind == "weight" else f"{weight.leaf}.{weight.kind}"
        if weight.layer is None and kind != "norms":
            kind = "outside of layers"
        found.append(Compared(weight.name, kind, error, steps))
    return found


@torch.no_grad()
def put_quantised(folder: Path, model: Any) -> list[str]:
    """Put the graph's quantised weights, as they were rounded, into the model in PyTorch that it was made from.

    What then differs between the two is what they compute, whatever the bits. Returns the names of quantised nodes whose
    weights have no place in the model, or are not the model's weights within half a step: while there is one, more
    differs than that. All other weights of the model stay as they are.
    """
    tensors = _Tensors(folder)
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    if head is not None and head.weight is embedding.weight:
        # The graph may have rounded one and not the other.
        head.weight = torch.nn.Parameter(head.weight.detach().clone(), requires_grad=False)
    places: dict[tuple[int | None, str, str], torch.Tensor] = {}
    for name, tensor in model.state_dict().items():
        places.setdefault(_named(name), tensor)
    left = []
    quantised = {name for name, tensor in tensors.named.items() if _is_quantised(tensor)}
    for node in tensors.graph.node:
        read = _READERS.get(node.op_type)
        if node.op_type == "Reshape" and node.input[0] in quantised:
            quantised.add(node.output[0])
        elif read is not None:
            weight = read(node, tensors, True)
            if weight is None or not _put(weight, places):
                left.append(node.name)
        elif quantised & set(node.input):
            left.append(node.name)
    return left


def _put(weight: Weight, places: Mapping[tuple[int | None, str, str], torch.Tensor]) -> bool:
    """Put a quantised weight where the model has the numbers that it was rounded from, and return whether it has them."""
    assert weight.step is not None
    values, step = weight.values, weight.step
    named = [(weight.leaf,), _FUSED.get(weight.leaf, ())]
    for names in (names for names in named if names and all((weight.layer, n, "weight") in places for n in names)):
        into = [places[weight.layer, name, "weight"] for name in names]
        if sum(map(len, into)) != len(values):
            continue
        if weight.leaf == "embed_tokens":  # a quantised row ends with a whole block
            values, step = values[:, : into[0].shape[1]], step[:, : into[0].shape[1]]
        if any(part.dim() != 2 or part.shape[1] != values.shape[1] for part in into):
            continue
        ends = list(itertools.accumulate(map(len, into)))
        parts = [slice(end - len(part), end) for part, end in zip(into, ends, strict=True)]
        if _place(into, [values[part] for part in parts], [step[part] for part in parts]):
            return True
    # By its numbers: the builder renames, and splits what the model holds in one.
    for (layer, _, _), whole in places.items():
        if layer == weight.layer and whole.dim() == 2 and whole.shape[1] == values.shape[1]:
            first = int((whole - values[0]).square().sum(dim=1).argmin())
            part = whole[first : first + len(values)]
            if len(part) == len(values) and _place([part], [values], [step]):
                return True
    return False


def _place(into: list[torch.Tensor], values: list[torch.Tensor], steps: list[torch.Tensor]) -> bool:
    """Write values over numbers that they were rounded from, and return whether they were."""
    for part, new, step in zip(into, values, steps, strict=True):
        # A step of 0 stands for zeros alone.
        if not bool((new - part).square().sum() <= (STEPS * step).square().sum()):
            return False
    for part, new in zip(into, values, strict=True):
        part.copy_(new)
    return True


_READERS: dict[str, Callable[[NodeProto, _Tensors, bool], Weight | None]] = {
    "MatMulNBits": _matmul_nbits,
    "DequantizeLinear": _dequantised,
    "GatherBlockQuantized": lambda node, tensors, _: _gathered(node, tensors),
}
_INTEGERS = {TensorProto.INT4, TensorProto.UINT4, TensorProto.INT8, TensorProto.UINT8}


def _is_quantised(tensor: TensorProto) -> bool:
    return tensor.data_type in _INTEGERS and math.prod(tensor.dims) >= _WEIGHTS


def damaged(compared: list[Compared]) -> tuple[list[Compared], int]:
    """Return the weights that were damaged, the worst first, and how many could be judged."""
    kinds: dict[str, list[Compared]] = defaultdict(list)
    for one in compared:
        kinds[one.kind].append(one)
    judged = [one for all_ in kinds.values() if 2 * sum(o.same for o in all_) >= len(all_) for one in all_]
    wrong = [one for one in judged if not one.same]
    return sorted(wrong, key=lambda one: -one.error if math.isfinite(one.error) else -math.inf), len(judged)
