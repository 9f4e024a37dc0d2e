"""What each execution provider is and can run: data, not code.

The model builder accepts pairs that fail only when loaded (fp16 on the CPU builds with exit 0), so what really runs
is written here and checked before anything is trained.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Precision = Literal["fp32", "fp16", "bf16", "int8", "int4"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "bf16", "int8", "int4")


@dataclass(frozen=True)
class Provider:
    """One ONNX Runtime execution provider, as sweep files name it."""

    name: str
    builder_flag: str
    """Its name for `onnxruntime_genai.models.builder`."""
    runtime_name: str
    """Its name in `onnxruntime.get_available_providers()`."""
    genai_name: str | None
    """Its name for `onnxruntime_genai.Config.append_provider`; None for the CPU, which is always there."""
    precisions: tuple[Precision, ...]
    """What loads and runs on it, most exact first: in the first of them the untouched model is the `base` of limits."""
    extra: str
    """The extra of this package that installs it."""
    wheel: str
    accuracy_level: int
    """The builder's default `accuracy_level` there."""


_ALL = (
    Provider("cpu", "cpu", "CPUExecutionProvider", None,
             ("fp32", "int8", "int4"), "cpu", "onnxruntime-genai", 4),
    Provider("cuda", "cuda", "CUDAExecutionProvider", "cuda",
             # fp32 builds there (genai 0.18), and does not load: its attention lacks the outputs of the key-value cache.
             ("bf16", "fp16", "int8", "int4"), "cuda", "onnxruntime-genai-cuda", 0),
    Provider("dml", "dml", "DmlExecutionProvider", "dml",
             ("fp16", "int4"), "directml", "onnxruntime-genai-winml", 0),
    Provider("webgpu", "webgpu", "WebGpuExecutionProvider", "webgpu",
             ("int8", "int4"), "directml", "onnxruntime-genai-winml", 4),
    Provider("NvTensorRtRtx", "NvTensorRtRtx", "NvTensorRTRTXExecutionProvider", "NvTensorRtRtx",
             ("bf16", "fp16"), "directml", "onnxruntime-genai-winml", 0),
)  # fmt: skip

PROVIDERS: dict[str, Provider] = {provider.name: provider for provider in _ALL}

NVIDIA = ("cuda", "NvTensorRtRtx")
"""Those whose memory NVIDIA's driver can tell."""
