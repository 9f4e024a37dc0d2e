"""Where LongRoPE turns: a text of more tokens than that has other rotations at every position, also at those before.

What the cache holds of a shorter text is then of another rotation. ONNX Runtime GenAI and transformers begin such a text
again when it is generated, each for some models and at some length only; elsewhere they go on with both rotations mixed.
A deployed model does as they do, and so does scoring.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx

from autotune.architectures import AGAIN_AT


def turn_of_graph(file: Path) -> int | None:
    """Return beyond how many tokens the graph in a file takes other rotations; None where they are always the same.

    The model builder compares the text's length with a constant, and chooses by an If.
    """
    graph = onnx.load(str(file), load_external_data=False).graph
    makers = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        asks = makers.get(node.input[0]) if node.op_type == "If" else None
        held = makers.get(asks.input[1]) if asks is not None and asks.op_type == "Greater" else None
        if held is not None and held.op_type == "Constant":
            return int(onnx.numpy_helper.to_array(held.attribute[0].t))
    return None


def genai_begins_again(folder: Path, turn: int | None) -> int | None:
    """Return beyond how many tokens ONNX Runtime GenAI computes a text that it generates anew; `turn`: of the graph in `folder`."""
    settings = json.loads((folder / "genai_config.json").read_text(encoding="utf-8"))
    return AGAIN_AT.get(str(settings["model"].get("type"))) if turn is not None else None


def turn_of_config(config: Any) -> int | None:
    """Return beyond how many tokens a model in PyTorch takes other rotations; `config`: of transformers."""
    rope = getattr(config, "rope_parameters", None) or {}
    if not isinstance(rope, dict) or rope.get("rope_type") != "longrope":
        return None
    turn = rope.get("original_max_position_embeddings")
    return turn if isinstance(turn, int) else None


def torch_begins_again(config: Any) -> int | None:
    """Return beyond how many tokens transformers computes a text that it generates anew."""
    return turn_of_config(config) if getattr(config, "model_type", None) in AGAIN_AT else None
