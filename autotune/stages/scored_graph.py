"""The shipped graph as it is scored. Nothing of what is computed at a position changes.

The head is given only the positions that are read: scoring reads few positions of a prompt, and the head over a
vocabulary of 49,152 is a fifth of a small model's work at every position. A head that was pruned to the last position
reads any position this way.
"""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import GraphProto, NodeProto, TensorProto, helper

READ = "autotune.read"
"""The name of the input with the positions to read: (reads, 2) pairs of sequence and position."""
_AFTER_HEAD = {"Cast", "Mul", "Div", "Tanh", "Add"}
_HEADS = {"MatMul", "MatMulNBits", "Gemm"}
_PRUNING = {"Gather", "Unsqueeze", "Slice"}
SINGLE = 1
"""The accuracy level at which a quantised node multiplies in single precision."""


def _head(makers: dict[str, NodeProto]) -> NodeProto | None:
    node = makers.get("logits")
    while node is not None and node.op_type in _AFTER_HEAD:
        node = makers.get(node.input[0])
    return node if node is not None and node.op_type in _HEADS else None


def reading_graph(file: Path, exact: bool = False) -> tuple[bytes | None, bool]:
    """Return the changed graph, whose logits are (reads, vocabulary), and whether texts of several lengths may share a
    call: all attention is grouped-query, and nothing is chosen by the longest text, as LongRoPE's factors are.

    Where the head is not found the logits stay as they are, and the input READ is absent; the graph is None where
    nothing had to be changed. `exact`: quantised nodes round their weights alone, and not what they multiply them by.
    Weights outside the file stay where they are.
    """
    model = onnx.load(str(file), load_external_data=False)
    graph = model.graph
    attention = {node.op_type for node in graph.node if "Attention" in node.op_type}
    grouped = attention == {"GroupQueryAttention"} and all(node.op_type != "If" for node in graph.node)
    quantised = [node for node in graph.node if node.op_type == "MatMulNBits"] if exact else []
    for node in quantised:
        _set(node, "accuracy_level", SINGLE)
    makers = {name: node for node in graph.node for name in node.output}
    head = _head(makers)
    if head is not None:
        _read_some(graph, makers, head)
    elif not quantised:
        return None, grouped
    return model.SerializeToString(), grouped


def _set(node: NodeProto, name: str, value: int) -> None:
    for attribute in [attribute for attribute in node.attribute if attribute.name == name]:
        node.attribute.remove(attribute)
    node.attribute.append(helper.make_attribute(name, value))


def _read_some(graph: GraphProto, makers: dict[str, NodeProto], head: NodeProto) -> None:
    """Give the head only the positions that are read."""
    hidden = head.input[0]
    while hidden in makers and makers[hidden].op_type in _PRUNING:
        hidden = makers[hidden].input[0]
    graph.input.append(helper.make_tensor_value_info(READ, TensorProto.INT64, ["reads", 2]))
    gather = helper.make_node("GatherND", [hidden, READ], [f"{READ}/hidden"], name=f"{READ}/GatherND")
    graph.node.insert(list(graph.node).index(head), gather)
    head.input[0] = gather.output[0]
    logits = next(output for output in graph.output if output.name == "logits")
    kind = logits.type.tensor_type.elem_type
    logits.CopyFrom(helper.make_tensor_value_info("logits", kind, ["reads", "vocabulary"]))
    del graph.value_info[:]
