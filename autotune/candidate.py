"""A candidate: one adapter (LoRA settings) in one recipe (how it is built) and one session (how it is served).

Parameters that have no effect are None, so two spellings of the same settings are one candidate.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

Scalar = bool | int | float | str


class Frozen(BaseModel):
    """A model whose fields never change, so that values computed from them may be cached (`cached_property`)."""

    model_config = ConfigDict(frozen=True)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with other values, without the cached values of the original."""
        copied = super().model_copy(update=update, deep=deep)
        for name in copied.__dict__.keys() - type(copied).model_fields.keys():
            del copied.__dict__[name]
        return copied


class Lora(BaseModel):
    """The settings of one LoRA fine-tuning. `autotune.space.parameter_tables.LORA` documents the fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    r: int
    alpha: float
    dropout: float
    target_modules: str | tuple[str, ...]
    learning_rate: float
    schedule: str
    warmup: float
    batch_size: int
    accumulation: int
    gradient_checkpointing: bool
    max_grad_norm: float
    adam_beta1: float
    adam_beta2: float
    weight_decay: float
    dtype: str
    max_length: int
    steps: int | None = None
    epochs: float | None = None
    dora: bool = False
    rslora: bool = False
    quantized_base: str = "none"
    double_quant: bool | None = None
    loss_on: str = Field("completion", exclude_if=lambda value: value == "completion")
    """Left out of digests at its default: adapters that were trained before there was a choice keep their keys."""

    def settings(self) -> dict[str, Any]:
        """Return every setting by its name, also what digests leave out."""
        return self.model_dump() | {"loss_on": self.loss_on}

    def horizon(self, items: int) -> int:
        """Return the optimiser steps of a full run on this many items."""
        if self.steps is not None:
            return self.steps
        return max(1, math.ceil((self.epochs or 1.0) * items / (self.batch_size * self.accumulation)))


class Recipe(BaseModel):
    """How a model is built for its provider. `autotune.space.parameter_tables.RECIPE` documents the fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    precision: str
    algorithm: str | None = None
    block_size: int | None = None
    accuracy_level: int | None = None
    symmetric: bool | None = None
    mixed_precision: str | None = None
    nodes_to_exclude: str | None = None
    op_types_to_quantize: str | None = None
    use_qdq: bool | None = None
    shared_embeddings: bool | None = None
    fuse_qkv: bool | None = None
    fuse_mlp_gate_up: bool | None = None
    fuse_qk_norm_gqa: bool | None = None
    prune_lm_head: bool | None = None
    kv_cache_quant_scheme: str | None = None
    kv_cache_rotation: str | None = None
    moe_quant_type: str | None = None
    qmoe_block_size: int | None = None
    enable_cuda_graph: bool | None = None
    enable_cuda_fpa_intb_gemm: bool | None = None
    matmulnbits_weights_prepacked: int | None = None
    use_cuda_bf16: bool | None = None
    enable_webgpu_graph: bool | None = None
    use_webgpu_fp32: bool | None = None
    enable_dml_graph: bool | None = None
    model_stage: str | None = None
    graph_stage: str | None = None

    @property
    def own_stages(self) -> dict[str, str]:
        """The user's own stages, by the parameter that names each."""
        named = {"model_stage": self.model_stage, "graph_stage": self.graph_stage}
        return {name: text for name, text in named.items() if text is not None}

    @property
    def calibrated(self) -> bool:
        """Whether its build is calibrated on training items."""
        return (self.kv_cache_quant_scheme or "").endswith(("_per_tensor", "_per_channel"))

    def __str__(self) -> str:
        parts = [self.precision]
        for name, value in self.model_dump(exclude_none=True, exclude={"precision"}).items():
            parts.append(str(value) if name in ("algorithm", "mixed_precision") else f"{name}={value}")
        return " ".join(parts)


BITS = {"fp32": 32, "fp16": 16, "bf16": 16, "int8": 8, "int4": 4}
"""The bits of most weights, by precision."""


class Session(BaseModel):
    """How the runtime serves a built model; None: as the target says, or as the runtime chooses.

    `autotune.space.parameter_tables.SESSION` documents the fields.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    threads: int | None = None
    arena: bool | None = None
    mem_pattern: bool | None = None
    provider_options: str | None = None

    def __str__(self) -> str:
        words = [f"{self.threads} thread" + "s" * (self.threads != 1)] if self.threads is not None else []
        for name, value in (("arena", self.arena), ("mem_pattern", self.mem_pattern)):
            words += [f"{name} {'on' if value else 'off'}"] if value is not None else []
        return ", ".join([*words, *filter(None, [self.provider_options])])

    @property
    def options(self) -> dict[str, str]:
        """The options of the execution provider, by name."""
        pairs = (word.partition("=") for word in (self.provider_options or "").split())
        return {name: value for name, _, value in pairs}

    @property
    def config(self) -> dict[str, int | bool]:
        """Its settings as `session_options` of genai_config.json, without the provider's options."""
        words = {
            "intra_op_num_threads": self.threads,
            "enable_cpu_mem_arena": self.arena,
            "enable_mem_pattern": self.mem_pattern,
        }
        return {name: value for name, value in words.items() if value is not None}

    def over(self, other: Session) -> Session:
        """Return this session, with the settings of `other` where it has none."""
        return Session.model_validate(other.model_dump(exclude_none=True) | self.model_dump(exclude_none=True))


def digest(content: Any) -> str:
    """Return the SHA-256 of `content` as canonical JSON (64 hexadecimal digits)."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


class Candidate(Frozen):
    """One adapter in one recipe and one session.

    `lora` None: the untouched model; `recipe` None: the adapter is not built; `session` None: the target's session.
    """

    lora: Lora | None = None
    recipe: Recipe | None = None
    session: Session | None = None
    target: str | None = None
    """The target for which it is measured; None where the sweep has one."""

    @cached_property
    def id(self) -> str:
        """The candidate's name in results: the first 16 hexadecimal digits of the digest of its settings."""
        return digest(self.model_dump(mode="json", exclude_none=True))[:16]

    @property
    def kind(self) -> str:
        """`base`, `adapter` or `pair`, as in results.csv."""
        if self.lora is None:
            return "base"
        return "adapter" if self.recipe is None else "pair"

    def columns(self) -> dict[str, Scalar]:
        """Return its settings as cells of results.csv: `lora_*`, `build_*` and `session_*`, and its target."""
        cells: dict[str, Scalar] = {} if self.target is None else {"target": self.target}
        for prefix, part in (("lora", self.lora), ("build", self.recipe), ("session", self.session)):
            if part is not None:
                settings = part.settings() if isinstance(part, Lora) else part.model_dump()
                for name, value in settings.items():
                    if value is None:
                        continue
                    cells[f"{prefix}_{name}"] = "+".join(value) if isinstance(value, tuple) else value
        return cells

    @classmethod
    def from_columns(cls, cells: dict[str, str]) -> Candidate:
        """Return the candidate of a row's cells; the inverse of `columns`. Raises ValueError."""
        parts: dict[str, dict[str, Any]] = {"lora": {}, "build": {}, "session": {}}
        for column, text in cells.items():
            prefix, _, name = column.partition("_")
            if text == "" or prefix not in parts:
                continue
            modules = name == "target_modules" and "+" in text
            parts[prefix][name] = tuple(text.split("+")) if modules else text
        return cls(
            lora=Lora.model_validate(parts["lora"]) if parts["lora"] else None,
            recipe=Recipe.model_validate(parts["build"]) if parts["build"] else None,
            session=Session.model_validate(parts["session"]) if parts["session"] else None,
            target=cells.get("target") or None,
        )
