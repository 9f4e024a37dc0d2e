"""Scales of a quantised key-value cache, calibrated on training items.

A static scheme stores keys and values as whole numbers times a scale that is fixed in the graph: one number a layer
(`per_tensor`), or one for each channel of each head (`per_channel`). The scales come from the values that the same recipe
with a cache in floats writes into it when it runs the training items. The formulas are those of the calibrator that ships
with ONNX Runtime GenAI (`models/quantization/kv_cache_calibration.py`), which runs windows of one joined text; here every
item begins at position 0, as it does when the model is used.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autotune.candidate import Recipe
from autotune.errors import StageError
from autotune.providers import PROVIDERS
from autotune.space.parameter_tables import RECIPE
from autotune.stages.backends import OnnxBackend, Tokens

Floats = NDArray[np.float32]
TOKENS = 4096
"""Tokens that are run, about: items spread evenly over the training split."""
QMAX = {"int8": 128.0, "int4": 8.0}
"""The divisor of a threshold, by the type of the cache: the builder expects these."""
CLIPS = 24
"""Thresholds that are tried for one scale, from a fifth of the largest value to all of it."""
SCALES = (".attn.k_scale", ".attn.v_scale")
"""How the builder's names of scales end."""


def baseline(recipe: Recipe) -> Recipe:
    """Return the recipe to calibrate on: the same with a cache in floats, as far as the CPU runs it, on the CPU.

    Scales are a matter of the model and its weights' rounding, not of the device that serves it.
    """
    cpu = PROVIDERS["cpu"]
    precision = recipe.precision if recipe.precision in cpu.precisions else cpu.precisions[0]
    kept = {
        name: value
        for name, value in recipe.model_dump(exclude_none=True, exclude={"precision", "kv_cache_quant_scheme"}).items()
        if (not RECIPE[name].providers or "cpu" in RECIPE[name].providers) and precision in RECIPE[name].precisions
    }
    return Recipe(precision=precision, **kept | {"prune_lm_head": True})


def calibration_texts(items: Sequence[tuple[Tokens, Tokens]]) -> list[Tokens]:
    """Return prompts with their completions to calibrate on: about TOKENS tokens, spread evenly over the items."""
    texts = [prompt + completion for prompt, completion in items]
    mean = sum(map(len, texts)) / len(texts)
    count = min(len(texts), max(1, round(TOKENS / mean)))
    return [texts[k * len(texts) // count] for k in range(count)]


@dataclass(frozen=True)
class Captured:
    """What the layers of a model wrote into their caches, each (tokens, heads, head size), by layer."""

    keys: dict[int, Floats]
    values: dict[int, Floats]


def capture(backend: OnnxBackend, texts: Sequence[Tokens]) -> Captured:
    """Run texts and return their keys (after their rotation) and values."""
    parts: dict[str, list[Floats]] = {name: [] for name in backend.presents}
    for text in texts:
        _, cache = backend.run(np.array([text], dtype=np.int64), keep=True, last=True)
        for name, part in zip(backend.presents, cache, strict=True):
            # A layer with a sliding window may hold more places than tokens, and no more than its window.
            parts[name].append(np.moveaxis(part[0], 1, 0)[: len(text)].astype(np.float32))
    found: dict[str, dict[int, Floats]] = {"key": {}, "value": {}}
    for name, pieces in parts.items():
        _, layer, side = name.rsplit(".", 2)
        found[side][int(layer)] = np.concatenate(pieces)
    return Captured(found["key"], found["value"])


def envelope(keys: Floats) -> Floats:
    """Return of keys (tokens, heads, size) in both channels of each rotated pair the pair's norm.

    Rotary positions turn the pair (d, d + size / 2), so that its norm bounds both at every position, also beyond those
    of the calibration. Where pairs are neighbours instead, the bound is still one, and looser.
    """
    half = keys.shape[-1] // 2
    norm = np.sqrt(keys[..., :half] ** 2 + keys[..., half : 2 * half] ** 2)
    return np.concatenate([norm, norm, np.abs(keys[..., 2 * half :])], axis=-1)


def threshold(samples: Floats, scheme: str) -> Floats:
    """Return where to clip samples (tokens, channels): (channels,), or (1,) for a scheme `per_tensor`.

    int8 keeps the largest value. With the 16 levels of int4 that would cost the others their resolution: there it is the
    clip with the least mean squared error of rounding.
    """
    kind, _, granularity = scheme.partition("_")
    if granularity == "per_tensor":
        samples = samples.reshape(-1, 1)
    largest = np.maximum(np.abs(samples).max(axis=0), 1e-6)
    if kind != "int4":
        return np.asarray(largest, dtype=np.float32)
    qmax, best, least = QMAX[kind], largest, np.full(largest.shape, np.inf)
    for share in np.linspace(0.2, 1.0, CLIPS, dtype=np.float32):
        scale = largest * share / qmax
        rounded = np.clip(np.rint(samples / scale), -qmax, qmax - 1) * scale
        error = np.mean((rounded - samples) ** 2, axis=0, dtype=np.float64)
        best, least = np.where(error < least, largest * share, best), np.minimum(error, least)
    return np.asarray(best, dtype=np.float32)


def scales(captured: Captured, scheme: str) -> dict[str, object]:
    """Return the content of a scale file as the model builder reads it.

    Raises StageError (`failed`) where keys or values are not finite.
    """
    qmax = QMAX[scheme.split("_")[0]]
    layers = sorted(captured.keys)
    found: dict[str, list[list[float]]] = {}
    for side, by_layer in (("k_scales", captured.keys), ("v_scales", captured.values)):
        found[side] = []
        for layer in layers:
            seen = by_layer[layer]
            if not np.isfinite(seen).all():
                message = f"keys or values of layer {layer} are infinite or not a number: its cache cannot be quantised"
                raise StageError("failed", message)
            bound = envelope(seen) if side == "k_scales" else seen
            clip = threshold(bound.reshape(len(bound), -1), scheme)
            found[side].append((clip / qmax).tolist())
    return {"scales": found, "qmax": qmax, "layer_ids": layers}


def calibrate(folder: Path, texts: Sequence[Tokens], scheme: str, file: Path) -> None:
    """Run texts through the build of `baseline` in `folder`, and write the scale file for a scheme."""
    captured = capture(OnnxBackend(folder, "cpu", None), texts)
    if not captured.keys:
        raise StageError("unsupported", "the model has no key-value cache that could be quantised")
    file.write_text(json.dumps(scales(captured, scheme), allow_nan=False), encoding="utf-8")
