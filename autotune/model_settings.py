"""What is wrong in a config.json by itself, told without loading anything, by the name of the key.

Libraries find the same mistakes later, and say of them `integer modulo by zero` or the name of a missing key alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from autotune.errors import shown

_SIZES = ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "num_hidden_layers",
          "head_dim", "vocab_size", "max_position_embeddings")  # fmt: skip
_POSITIVE = ("hidden_size", "num_attention_heads", "num_hidden_layers", "vocab_size")
_LARGEST = 2**31 - 1
_ROTATION = ("rope_parameters", "rope_scaling")
_ROTATION_NUMBERS = ("rope_theta", "factor", "original_max_position_embeddings", "attention_factor", "beta_fast", "beta_slow",
                     "low_freq_factor", "high_freq_factor", "partial_rotary_factor")  # fmt: skip
_ROTATIONS = {
    "default": (), "linear": ("factor",), "dynamic": ("factor",), "yarn": ("factor",),
    "longrope": ("short_factor", "long_factor"), "su": ("short_factor", "long_factor"),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"), "proportional": (),
}  # fmt: skip
"""The kinds of rotation that transformers knows for models of text, each with what it needs."""
_AGAIN = "fetch or save the model again"
_AS_PUBLISHED = "write it as the model's authors publish it"


def settings_problems(config: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (rule, remedy) for each mistake in a config.json."""
    sizes = {}
    for key in _SIZES:
        value = config.get(key)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _LARGEST:
            yield f"{key} in config.json must be a whole number, and is {shown(value)[:100]}", _AGAIN
        elif value == 0 and key in _POSITIVE:
            yield f"{key} in config.json must be at least 1, and is 0", _AGAIN
        else:
            sizes[key] = value
    heads, groups = sizes.get("num_attention_heads"), sizes.get("num_key_value_heads")
    if heads and groups and heads % groups:
        rule = f"num_key_value_heads in config.json must divide num_attention_heads, and they are {groups} and {heads}"
        yield rule, _AS_PUBLISHED
    hidden = sizes.get("hidden_size")
    if heads and hidden and hidden % heads and "head_dim" not in sizes:
        rule = f"num_attention_heads in config.json must divide hidden_size, and they are {heads} and {hidden}"
        yield rule, f"{_AS_PUBLISHED}, or add head_dim"
    yield from _special_tokens(config, sizes.get("vocab_size"))
    yield from _rotation(config)


def _special_tokens(config: dict[str, Any], vocabulary: int | None) -> Iterator[tuple[str, str]]:
    pad = config.get("pad_token_id")
    if vocabulary and isinstance(pad, int) and not -vocabulary <= pad < vocabulary:
        rule = f"pad_token_id in config.json must be below vocab_size, and they are {pad} and {vocabulary}"
        yield rule, "set pad_token_id to the token for padding, or remove it"


def _rotation(config: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with how positions are rotated."""
    for name in _ROTATION:
        given = config.get(name)
        if given is None:
            continue
        if not isinstance(given, dict):
            yield f"{name} in config.json must be a mapping, and is {shown(given)[:100]}", _AS_PUBLISHED
            continue
        parts = {f"{name}.{key}": part for key, part in given.items() if isinstance(part, dict)} or {name: given}
        for where, rope in parts.items():
            yield from _one_rotation(where, rope)


def _one_rotation(where: str, rope: dict[str, Any]) -> Iterator[tuple[str, str]]:
    key = "rope_type" if "rope_type" in rope else "type"
    kind = rope.get(key, "default")
    if kind is not None and (not isinstance(kind, str) or kind not in _ROTATIONS):
        known = ", ".join(name for name in _ROTATIONS if name != "su")
        yield f"{where}.{key} in config.json must be one of {known}, and is {shown(kind)[:100]}", _AS_PUBLISHED
        return
    for need in _ROTATIONS[kind or "default"]:
        if rope.get(need) is None:
            yield f"{where} in config.json lacks {need}, which the rotation {kind} needs", _AS_PUBLISHED
    for name in _ROTATION_NUMBERS:
        value = rope.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not value > 0):
            yield f"{where}.{name} in config.json must be a number above 0, and is {shown(value)[:100]}", _AS_PUBLISHED
