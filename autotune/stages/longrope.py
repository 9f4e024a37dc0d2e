"""LongRoPE beyond the length of its short factors, where every position of the text is rotated with the long ones.

A cache that was filled by a shorter text holds keys that were rotated with the short factors. While they generate, ONNX
Runtime GenAI and transformers recompute the whole text there, each for some models and at one length only; elsewhere they
go on with the cache, and mix both rotations. Scoring does what the deployed model does.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx

from autotune.architectures import RECOMPUTED_AT


def short_length_of_graph(file: Path) -> int | None:
    """Return up to how many tokens the graph in a file uses the short factors; None where it has no others.

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


def recomputed_by_genai(folder: Path, short_length: int | None) -> int | None:
    """Return beyond how many tokens ONNX Runtime GenAI recomputes a text that it generates; None where it never does.

    `short_length`: of the graph in `folder`.
    """
    settings = json.loads((folder / "genai_config.json").read_text(encoding="utf-8"))
    return RECOMPUTED_AT.get(str(settings["model"].get("type"))) if short_length is not None else None


def short_length_of_config(config: Any) -> int | None:
    """Return up to how many tokens a model in PyTorch uses the short factors; `config`: of transformers."""
    rope = getattr(config, "rope_parameters", None) or {}
    if not isinstance(rope, dict) or rope.get("rope_type") != "longrope":
        return None
    length = rope.get("original_max_position_embeddings")
    return length if isinstance(length, int) else None


def recomputed_by_torch(config: Any) -> int | None:
    """Return beyond how many tokens transformers recomputes a text that it generates; None where it never does."""
    return short_length_of_config(config) if getattr(config, "model_type", None) in RECOMPUTED_AT else None
