"""The parameters of LoRA, of recipes and of sessions: help, checks and docs are generated from one table each."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from autotune.providers import PRECISIONS, PROVIDERS

Value = bool | int | float | str | tuple[str, ...]

PRESETS = ("all-linear", "attention", "mlp")


@dataclass(frozen=True)
class Parameter:
    """One parameter of a sweep file; help, checks and the tables in the docs are generated from these."""

    name: str
    type: type
    meaning: str
    default: Value | None = None
    low: float = -math.inf
    high: float = math.inf
    choices: tuple[Any, ...] = ()
    providers: tuple[str, ...] = ()
    """For recipes and sessions: the only providers on which it has an effect; empty: all."""
    precisions: tuple[str, ...] = PRECISIONS
    """For recipes: the only precisions with which it has an effect."""
    option: str = ""
    """For recipes: its name in the model builder, where that differs."""
    refused: tuple[tuple[str, str], ...] = ()
    """Values that the model builder knows but that cannot run, each with the reason. Rows of earlier versions may hold them."""


def _table(*parameters: Parameter) -> dict[str, Parameter]:
    return {parameter.name: parameter for parameter in parameters}


LORA = _table(
    Parameter("r", int, "rank of the adapter", 16, low=1, high=1024),
    Parameter("alpha", float, "LoRA alpha: the update is scaled by alpha / r", low=1e-3, high=1e5),
    Parameter("alpha_over_r", float, "alpha as a multiple of r (instead of alpha)", 2.0, low=1e-3, high=1e4),
    Parameter("dropout", float, "dropout in front of the adapter", 0.0, low=0.0, high=0.9),
    Parameter("target_modules", str, "modules that get an adapter: attention, mlp, all-linear, or a list of names", "all-linear"),
    Parameter("learning_rate", float, "peak learning rate of AdamW", 1e-3, low=1e-8, high=1.0),
    Parameter("schedule", str, "learning rate after the warm-up", "linear", choices=("linear", "cosine", "constant")),
    Parameter("warmup", float, "warm-up: a share of the steps below 1, a number of steps from 1 on", 0.1, low=0.0, high=1e6),
    Parameter("batch_size", int, "items in one forward pass; default: train.batch_size", low=1, high=4096),
    Parameter("accumulation", int, "forward passes in one optimiser step", 1, low=1, high=4096),
    Parameter("gradient_checkpointing", bool, "trade time for memory", default=False),
    Parameter("max_grad_norm", float, "gradient clipping by global norm; 0: none", 1.0, low=0.0, high=1e4),
    Parameter("adam_beta1", float, "AdamW beta 1", 0.9, low=0.0, high=0.9999),
    Parameter("adam_beta2", float, "AdamW beta 2", 0.999, low=0.0, high=0.99999),
    Parameter("weight_decay", float, "AdamW weight decay of the adapter", 0.0, low=0.0, high=10.0),
    Parameter("dtype", str, "arithmetic of the frozen base: auto is bf16 on CUDA, else fp32", "auto",
              choices=("auto", "fp32", "bf16", "fp16")),
    Parameter("max_length", int, "tokens kept of an item; default: train.max_length", low=8, high=1_000_000),
    Parameter("steps", int, "optimiser steps", low=1, high=10_000_000),
    Parameter("epochs", float, "passes over the training split (instead of steps)", low=1e-3, high=1e4),
    Parameter("dora", bool, "weight-decomposed adapter (DoRA)", default=False),
    Parameter("rslora", bool, "scale by alpha / sqrt(r) (rsLoRA)", default=False),
    Parameter("quantized_base", str, "train on a quantised base through bitsandbytes (QLoRA); the adapter is merged into the "
              "original weights", "none", choices=("none", "nf4", "fp4", "int8")),
    Parameter("double_quant", bool, "quantise the quantisation constants too (nf4 and fp4 only)", default=False),
    Parameter("loss_on", str, "what the training loss is the mean of: the completion's tokens, or those of the whole text; "
              "default: train.loss_on", choices=("completion", "text")),
)  # fmt: skip

_QUANTIZED = ("int8", "int4")
_PAGED = "needs paged attention, and models that are served one request at a time have none"
_FP8 = "does not load on cpu, and has not been shown to run on cuda"

RECIPE = _table(
    Parameter("precision", str, "precision of the weights", choices=PRECISIONS),
    Parameter("algorithm", str, "how weights are rounded", "default", choices=("default", "rtn", "k_quant"),
              precisions=_QUANTIZED, option="algo_config"),
    Parameter("block_size", int, "weights that share a scale", 32, choices=(16, 32, 64, 128, 256), precisions=_QUANTIZED),
    Parameter("accuracy_level", int, "least precision of the activations in MatMulNBits: 1 fp32, 2 fp16, 3 bf16, 4 int8, "
              "0 unset; default: 4 on cpu and webgpu, else 0 (why: benchmarks/README.md)", choices=(0, 1, 2, 3, 4), precisions=_QUANTIZED),
    Parameter("symmetric", bool, "no zero points (means nothing under k_quant)", default=True, precisions=_QUANTIZED,
              option="is_symmetric"),
    Parameter("mixed_precision", str, "groups kept at other bits, e.g. last_matmul:int8,mixed_layers:int8", "",
              precisions=("int4",), option="matmul_mixed_precision"),
    Parameter("nodes_to_exclude", str, "node names left unquantised, separated by commas", "", precisions=_QUANTIZED),
    Parameter("op_types_to_quantize", str, "operator types that are quantised: MatMul or MatMul/Gather", "",
              choices=("", "MatMul", "MatMul/Gather"), precisions=("int4",)),
    Parameter("use_qdq", bool, "QuantizeLinear and DequantizeLinear instead of MatMulNBits", default=False, precisions=("int4",)),
    Parameter("shared_embeddings", bool, "one matrix for embedding and head (tied models only); default: as the model ties"),
    Parameter("fuse_qkv", bool, "one matrix product for q, k and v", default=True),
    Parameter("fuse_mlp_gate_up", bool, "one matrix product for gate and up", default=False),
    Parameter("fuse_qk_norm_gqa", bool, "fuse the q and k norms into attention", default=True, providers=("cuda", "webgpu")),
    Parameter("prune_lm_head", bool, "logits of the last position only", default=False),
    Parameter("kv_cache_quant_scheme", str, "precision of the key-value cache, and what shares a scale; calibrated on training "
              "items", "none", choices=("none", "int8_per_tensor", "int8_per_channel", "int4_per_tensor", "int4_per_channel"),
              providers=("cpu", "cuda"),
              refused=(*((f"{kind}_per_token", _PAGED) for kind in ("int8", "int4")),
                       *((f"fp8_{shared}", _FP8) for shared in ("per_tensor", "per_channel")))),
    Parameter("kv_cache_rotation", str, "rotation in front of a quantised key-value cache (earlier versions took hadamard)",
              "none", choices=("none",), providers=("cuda",), refused=(("hadamard", _PAGED),)),
    Parameter("moe_quant_type", str, "precision of the experts of mixture models",
              choices=("int2", "int4", "int8", "mxfp4", "nvfp4"), precisions=_QUANTIZED),
    Parameter("qmoe_block_size", int, "block of the experts' weights", choices=(0, 16, 32, 64, 128, 256), precisions=_QUANTIZED),
    Parameter("enable_cuda_graph", bool, "capture a CUDA graph", default=False, providers=("cuda", "NvTensorRtRtx")),
    Parameter("enable_cuda_fpa_intb_gemm", bool, "the fpA_intB kernels for MatMulNBits", default=False,
              providers=("cuda",), precisions=_QUANTIZED),
    Parameter("matmulnbits_weights_prepacked", int, "weight layout of MatMulNBits: 0 raw, 1 Ampere, 2 Hopper", 0,
              choices=(0, 1, 2), providers=("cuda",), precisions=_QUANTIZED),
    Parameter("use_cuda_bf16", bool, "bf16 activations around int4 and int8 weights", default=False,
              providers=("cuda",), precisions=_QUANTIZED),
    Parameter("enable_webgpu_graph", bool, "capture a WebGPU graph", default=False, providers=("webgpu",)),
    Parameter("use_webgpu_fp32", bool, "fp32 inputs, outputs and activations around quantised weights; default: what runs on "
              "the device and is fastest there", providers=("webgpu",), precisions=_QUANTIZED),
    Parameter("enable_dml_graph", bool, "capture a DirectML graph", default=True, providers=("dml",)),
    Parameter("model_stage", str, "a function of your own on the merged model before it is built: module:function, or "
              "{ function: ..., options: ... }"),
    Parameter("graph_stage", str, "a function of your own on the built ONNX folder: module:function, or "
              "{ function: ..., options: ... }"),
)  # fmt: skip

SESSION = _table(
    Parameter("threads", int, "threads that one operator is shared among", low=1, high=1024),
    Parameter("arena", bool, "keep freed CPU memory for the next pass (ONNX Runtime's memory arena)"),
    Parameter("mem_pattern", bool, "lay out the memory of a pass in advance, from earlier passes of the same shape"),
    Parameter("provider_options", str, "options of the execution provider, name: value",
              providers=tuple(provider.name for provider in PROVIDERS.values() if provider.takes_options)),
)  # fmt: skip
