"""What the model builder can export: facts that were probed for each architecture, and which of them apply to a config.json.

`python -m benchmarks.architectures` builds a tiny random model of every architecture, and of every variant that
`features_of` tells apart, at each precision, runs it through the real stages and compares it with PyTorch. `probed.py` holds
its results. With other versions of the packages these facts refuse no model: the run then checks the untouched model in each
recipe before it trains anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from autotune.probed import FACTS, VERSIONS, Fact

PRECISIONS = ("fp32", "int8", "int4")
"""The precisions that are probed."""
_WHEELS = ("onnxruntime-genai", "onnxruntime-genai-cuda", "onnxruntime-genai-winml", "onnxruntime-genai-directml")
_ALWAYS_WINDOWED = ("Gemma2ForCausalLM", "Gemma3ForCausalLM", "GptOssForCausalLM")
_OWN_ROTATION = ("Gemma3ForCausalLM", "GptOssForCausalLM")
"""Architectures whose plain models have a rotation of their own."""
BLOCK = 16
"""The runtime's attention on the CPU needs head sizes, and rotated parts of heads, that are a multiple of this."""


def ropes(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the settings of rotary positions: one for all layers, or one for each kind of layer."""
    for name in ("rope_parameters", "rope_scaling"):
        given = config.get(name)
        if isinstance(given, dict):
            parts = [part for part in given.values() if isinstance(part, dict)]
            yield from parts or [given]


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0.0


def features_of(config: dict[str, Any]) -> list[str]:
    """Return the features of a config.json, in words; the first is the empty word, for the plain architecture."""
    found = [""]
    partial = _number(config.get("partial_rotary_factor")) or 1.0
    named = config.get("architectures")
    own = isinstance(named, list) and bool(named) and named[0] in _OWN_ROTATION
    for rope in ropes(config):
        kind = rope.get("rope_type") or rope.get("type")
        if isinstance(kind, str) and kind not in ("default", "none") and not own:
            kind = "longrope" if kind == "su" else kind
            bare = kind == "longrope" and "type" not in rope
            found.append(f"{kind} rotation" + " without the key type" * bare)
        partial = _number(rope.get("partial_rotary_factor")) or partial
    heads = _number(config.get("num_attention_heads"))
    head = _number(config.get("head_dim")) or (_number(config.get("hidden_size")) / heads if heads else 0.0)
    if head % BLOCK:
        found.append("heads of odd size")
    elif int(head * partial) % BLOCK:
        found.append("a rotated part of odd size")
    elif partial != 1.0:
        found.append("partial rotation")
    layers = config.get("layer_types")
    kinds = set(map(str, layers)) if isinstance(layers, list) else set()
    if _windowed(config, kinds):
        found.append("a sliding window")
    if isinstance(config.get("tie_word_embeddings"), bool):
        found.append("a tied head" if config["tie_word_embeddings"] else "a head of its own")
    for key, words in (
        ("attention_bias", "biases of attention"), ("mlp_bias", "biases of the MLP"), ("qk_layernorm", "normed queries"),
        ("clip_qkv", "clipped projections"),
    ):  # fmt: skip
        if config.get(key):
            found.append(words)
    rotated = config.get("no_rope_layers")
    if isinstance(rotated, list) and not all(rotated):
        found.append("layers without rotation")
    if config.get("position_embedding_type") not in (None, "rope"):
        found.append("no rotation")
    if kinds & {"mamba", "linear_attention"}:
        found.append("recurrent layers")
    if config.get("architectures") == ["GraniteMoeHybridForCausalLM"] and _number(config.get("num_local_experts")):
        found.append("experts")
    return found


def _windowed(config: dict[str, Any], kinds: set[str]) -> bool:
    named = config.get("architectures")
    if isinstance(named, list) and named and named[0] in _ALWAYS_WINDOWED:
        return False
    if not _number(config.get("sliding_window")) or config.get("use_sliding_window") is False:
        return False
    return "sliding_attention" in kinds or not kinds


_WINDOW_BY_DEFAULT = ("Gemma2ForCausalLM", "Gemma3ForCausalLM", "GptOssForCausalLM", "MistralForCausalLM")
"""Architectures with a sliding window even where config.json does not mention one."""
_WINDOW_BY_SWITCH = ("Qwen2ForCausalLM", "Qwen3ForCausalLM")
"""Architectures with a sliding window only where use_sliding_window is true; its size has a default."""
_WINDOWED_CACHES = ("cpu", "cuda", "NvTensorRtRtx")
"""Providers for which the model builder makes key-value caches of the window's size by default."""


def has_windowed_caches(config: dict[str, Any], provider: str) -> bool:
    """Return whether the model builder, by default, makes a key-value cache of the window's size for some layer.

    The builder reads `sliding_window` of transformers' configuration, whatever the architecture.
    """
    if provider not in _WINDOWED_CACHES:
        return False
    named = config.get("architectures")
    architecture = named[0] if isinstance(named, list) and named else None
    if architecture in _WINDOW_BY_SWITCH:
        return bool(config.get("use_sliding_window")) and _number(config.get("sliding_window", 1)) > 0
    if "sliding_window" not in config:
        return architecture in _WINDOW_BY_DEFAULT
    return _number(config["sliding_window"]) > 0


RECOMPUTED_AT = {"phi3": 4096, "phimoe": 4096}
"""By model_type: the tokens beyond which ONNX Runtime GenAI recomputes a generated text, whatever the length of the model's
short LongRoPE factors is. For the same models, transformers recomputes it beyond that length."""
CHECKED = 512
"""Tokens of the text on which it is seen what a build computes, unless the model is another one beyond so many."""
_BEYOND = 64


def checked_tokens(config: dict[str, Any], longest: int) -> int | None:
    """Return how many tokens a text must have that shows all that a model computes, where `CHECKED` are too few; else None.

    `longest`: tokens of the longest text that it is given. Beyond a window a layer leaves tokens out, and beyond its original
    length LongRoPE takes other factors.
    """
    kinds = config.get("layer_types")
    rotations = list(ropes(config))
    turns = []
    if _windowed(config, set(map(str, kinds)) if isinstance(kinds, list) else set()) or _always_windowed(config):
        turns.append(_number(config.get("sliding_window")))
    if any(rope.get("rope_type", rope.get("type")) in ("longrope", "su", "dynamic") for rope in rotations):
        turns += [_number(place.get("original_max_position_embeddings")) for place in (config, *rotations)]
    reached = [int(turn) for turn in turns if CHECKED <= turn < longest]
    return min(max(reached) + _BEYOND, longest) if reached else None


def _always_windowed(config: dict[str, Any]) -> bool:
    named = config.get("architectures")
    return isinstance(named, list) and bool(named) and named[0] in _ALWAYS_WINDOWED


def facts_of(config: dict[str, Any]) -> list[Fact]:
    """Return the facts that were probed for a model's architecture and its features."""
    named = config.get("architectures")
    features = features_of(config)
    architecture = named[0] if isinstance(named, list) and named else None
    return [fact for fact in FACTS if fact.architecture == architecture and fact.feature in features]


@cache
def other_versions() -> dict[str, tuple[str, str]]:
    """Return, by package, the probed and the installed version, where they differ."""
    found = {}
    for package, probed in VERSIONS.items():
        names = _WHEELS if package in _WHEELS else (package, f"{package}-gpu")
        for name in names:
            try:
                here = version(name)
            except PackageNotFoundError:
                continue
            if here != probed:
                found[name] = (probed, here)
    return found


def refusals(config: dict[str, Any], provider: str) -> dict[str, str]:
    """Return, by precision, why no build of a model runs with the installed versions.

    Empty where other versions than the probed ones are installed. Refusals of the runtime were probed on the CPU only.
    """
    if other_versions():
        return {}
    found: dict[str, str] = {}
    for fact in facts_of(config):
        if fact.outcome == "refused" and (fact.by != "the runtime" or provider == "cpu"):
            for precision in fact.precisions:
                found.setdefault(precision, sentence(fact))
    return found


def sentence(fact: Fact) -> str:
    """Return a fact as a sentence."""
    which = fact.architecture + (f" with {fact.feature}" if fact.feature else "")
    if fact.outcome == "refused":
        return f"{fact.by} does not take {which}: {fact.said}"
    return f"of a tiny {which} the model builder makes another model (logits differ by {fact.said})"


def remarks(config: dict[str, Any], provider: str, max_length: int) -> list[str]:
    """Return notes about a model that is not refused: errors of the model builder that were found, and other versions."""
    facts = [fact for fact in facts_of(config) if fact.outcome != "same"]
    wrong = [fact for fact in facts if fact.outcome == "other"]
    window = _number(config.get("sliding_window"))
    wrong = [fact for fact in wrong if fact.feature != "a sliding window" or window < max_length]
    others = other_versions()
    ends = (
        "the run compares the untouched model with PyTorch first, and trains nothing for recipes that are another model"
    )
    if others:
        here = ", ".join(f"{name} {there}" for name, (_, there) in others.items())
        lines = [f"what the model builder exports was not probed with {here}: the run finds out before it trains"]
        refused = [
            fact for fact in facts if fact.outcome == "refused" and (fact.by != "the runtime" or provider == "cpu")
        ]
        before = " ".join(f"{name} {probed}" for name, (probed, _) in others.items())
        return lines + [f"with {before}: {sentence(fact)}" for fact in [*refused, *wrong][:2]]
    return [*(f"{sentence(fact)}; {ends}" for fact in wrong[:1]), *_longrope_notes(config, max_length)]


def _longrope_notes(config: dict[str, Any], max_length: int) -> list[str]:
    """Return a note about answers that pass the length of LongRoPE's short factors, where the runtime does not recompute them."""
    recomputed = RECOMPUTED_AT.get(str(config.get("model_type")))
    for rope in ropes(config) if recomputed is not None else ():
        short = max(int(_number(place.get("original_max_position_embeddings"))) for place in (config, rope))
        if (
            rope.get("rope_type", rope.get("type")) in ("longrope", "su")
            and short != recomputed
            and 0 < short < max_length
        ):
            return [
                f"beyond {short} tokens its LongRoPE has other factors: where an answer passes them, transformers recomputes the "
                f"text and ONNX Runtime GenAI does not (it does so at {recomputed} tokens only), so that it writes another "
                "answer; scoring does as ONNX Runtime GenAI"
            ]
    return []
