"""Loads a causal language model with PyTorch. Only this module knows dtypes, devices and bitsandbytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from autotune.errors import StageError
from autotune.machine import usable_processors

_THREADS = min(torch.get_num_threads(), usable_processors())
SMALL = 2_000_000
"""Parameters below which one thread does: sharing an operator among threads takes longer than the operator, above all on a
busy machine (`benchmarks/busy.py`)."""
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def resolve_device(device: str) -> str:
    """Return `cpu` or `cuda` for `auto`, `cpu` or `cuda`. Raises StageError where CUDA is asked for and absent."""
    if device == "cuda" and not torch.cuda.is_available():
        raise StageError("unsupported", "train.device is cuda, but PyTorch sees no CUDA device")
    return ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device


def resolve_dtype(name: str, device: str) -> torch.dtype:
    """Return the arithmetic for `auto`, `fp32`, `bf16` or `fp16`."""
    if name == "auto":
        return torch.bfloat16 if device == "cuda" and torch.cuda.is_bf16_supported() else torch.float32
    return _DTYPES[name]


def load_model(
    folder: Path,
    device: str,
    dtype: torch.dtype | None = None,
    quantized: str = "none",
    double_quant: bool = False,
    threads: int | None = None,
) -> Any:
    """Return the model on `device`; `dtype` None keeps the precision that it was saved in.

    `threads` None sets PyTorch's own number again, or one for a small model: in a warm worker the last stage may have set
    another.
    """
    torch.set_num_threads(threads or _THREADS)
    arguments: dict[str, Any] = {"dtype": dtype or "auto", "trust_remote_code": False, "use_safetensors": True}
    if quantized != "none":
        if quantized == "int8":
            config = BitsAndBytesConfig(load_in_8bit=True)
        else:
            config = BitsAndBytesConfig(
                load_in_4bit=True,
                bnb_4bit_quant_type=quantized,
                bnb_4bit_use_double_quant=double_quant,
                bnb_4bit_compute_dtype=dtype,
            )
        arguments |= {"quantization_config": config, "device_map": {"": device}}
    model = AutoModelForCausalLM.from_pretrained(str(folder), **arguments)
    if quantized == "none":
        model.to(device)
    if threads is None and device == "cpu" and model.num_parameters() < SMALL:
        torch.set_num_threads(1)
    model.config.use_cache = False
    return model.eval()


def not_finite(model: Any) -> str:
    """Return in words which of a model's own weights hold numbers that are infinite or none; empty where all are sound."""
    weights = ((name.replace(".base_layer", ""), part) for name, part in model.named_parameters())
    names = [name for name, part in weights if not bool(torch.isfinite(part).all())]
    if not names:
        return ""
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"the model's own weights hold numbers that are infinite or none ({names[0]}{more}); fetch or save it again"


def load_adapter(model: Any, folder: Path) -> Any:
    """Return the model with an adapter on it. Raises StageError (`failed`) where its weights are not in safetensors.

    PEFT would take a pickled file, or ask the hub.
    """
    if not (folder / "adapter_model.safetensors").is_file():
        raise StageError("failed", f"{folder} holds no adapter_model.safetensors, and no other weights are loaded")
    return PeftModel.from_pretrained(model, str(folder))
