"""Tiny models as people have them: tokenizers that add tokens around a text or change it, templates that refuse, weights
that are not whole. Each is the tiny Llama of `conftest` with one thing changed.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer

Weights = dict[str, torch.Tensor]
ALTERNATING = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}"
    "<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
"""A chat template that takes no system message, and users and assistants only by turns."""


def copied(model: Path, folder: Path) -> Path:
    """Copy a model folder to change it."""
    shutil.copytree(model, folder)
    return folder


def with_weights(folder: Path, change: Callable[[Weights], Weights]) -> Path:
    """Change the tensors of a model."""
    file = folder / "model.safetensors"
    weights = {name: tensor.clone() for name, tensor in load_file(file).items()}
    save_file(change(weights), file, metadata={"format": "pt"})
    return folder


def with_json(folder: Path, name: str, **changes: Any) -> Path:
    """Change keys of one of a model's settings."""
    file = folder / name
    settings = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(settings | changes), encoding="utf-8")
    return folder


def with_template(folder: Path, template: str) -> Path:
    """Give a model another chat template."""
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    return folder


def with_tokens(folder: Path, *tokens: str, special: bool = True) -> Path:
    """Add tokens to a tokenizer, and no row to the embedding."""
    file = str(folder / "tokenizer.json")
    tokenizer = Tokenizer.from_file(file)
    added = [AddedToken(token, special=special, normalized=False) for token in tokens]
    (tokenizer.add_special_tokens if special else tokenizer.add_tokens)(added)
    tokenizer.save(file)
    return folder


def around(before: str = "", behind: str = "") -> dict[str, Any]:
    """Return a post-processor that puts tokens of the tiny model around a text."""
    ids = {"<|end|>": 0, "<|system|>": 1, "<|user|>": 2, "<|assistant|>": 3}

    def special(token: str) -> list[dict[str, Any]]:
        return [{"SpecialToken": {"id": token, "type_id": 0}}] if token else []

    single = [*special(before), {"Sequence": {"id": "A", "type_id": 0}}, *special(behind)]
    named = {t: {"id": t, "ids": [ids[t]], "tokens": [t]} for t in (before, behind) if t}
    pair = [*single, {"Sequence": {"id": "B", "type_id": 1}}]
    return {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": named}
