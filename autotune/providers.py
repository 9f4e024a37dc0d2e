"""The execution providers: what each needs and runs, and how a session is told the device and the options.

Adding a provider is one entry here, one extra in pyproject.toml and its test. The model builder accepts pairs that fail
only when loaded (fp16 on the CPU builds with exit 0), so the precisions that may run are listed here; the device itself is
asked which of them it really runs (`autotune.stages.capability`), before anything is trained.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from autotune.distribution import pip_install

Precision = Literal["fp32", "fp16", "bf16", "int8", "int4"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "bf16", "int8", "int4")


@dataclass(frozen=True)
class Plugin:
    """A package that brings a provider as a library beside the plain `onnxruntime` wheel."""

    package: str
    """Its name on PyPI."""
    module: str
    """Its module, whose `get_library_path()` returns the library."""
    series: str
    """The first parts of the tested versions, such as 0.4."""


@dataclass(frozen=True)
class Provider:
    """One ONNX Runtime execution provider, as sweep files name it."""

    name: str
    builder_flag: str
    """Its name for `onnxruntime_genai.models.builder`."""
    runtime_name: str
    """Its name in ONNX Runtime: in `get_available_providers()`, and of its devices."""
    genai_name: str | None
    """Its name for `onnxruntime_genai.Config.append_provider`; None for the CPU, which is always there."""
    precisions: tuple[Precision, ...]
    """The precisions that may run on it, the most exact first. Limits refer to the untouched model (`base`) in the first one
    that the device runs."""
    extra: str
    """The extra of this package that installs it."""
    wheel: str
    """The ONNX Runtime GenAI wheel that it needs."""
    accuracy_level: int
    """Our default of `accuracy_level` for it."""
    plugin: Plugin | None = None
    """The package that contains it, where it is a plugin."""
    library: str = ""
    """The library that contains it, where the command line named one."""
    takes_options: bool = True
    """Whether it takes `provider_options`."""
    io_option: str = ""
    """The model builder's option that keeps inputs, outputs and activations in fp32 around quantised weights. Without it the
    builder uses fp16, which a device may lack."""
    device_options: tuple[str, str] = ("", "")
    """The provider's options that select a device by its number, for ONNX Runtime and for GenAI; for providers that are no
    plugin."""
    qdq: bool = False
    """Whether the model builder always writes its int4 weights as QuantizeLinear and DequantizeLinear."""
    engines_option: str = ""
    """The provider's option that names a folder for the engines that it compiles."""
    needs: str = ""
    """The hardware and drivers that the machine needs, in words."""

    @property
    def plugged(self) -> bool:
        """Whether its library must be registered before it can be used."""
        return self.plugin is not None or bool(self.library)

    @property
    def builds_as(self) -> str:
        """The provider whose builds it runs: the CPU where the model builder has no builds for it."""
        return "cpu" if self.builder_flag == "cpu" else self.name

    @property
    def install(self) -> str:
        """The command that installs the packages to run a built model on it."""
        if self.library:
            return f"pip install {self.wheel}, and the library {Path(self.library).name} of its vendor"
        more = f' "{self.plugin.package}=={self.plugin.series}.*"' if self.plugin is not None else ""
        return f'pip install "{self.wheel}==0.18.*"{more}'

    @property
    def remedy(self) -> str:
        """The command that installs the packages of a sweep on it."""
        return pip_install(self.extra)

    @property
    def packages(self) -> dict[str, str]:
        """The versions, beside ONNX Runtime's, on which its results depend: that of the plugin, or the digest of its library."""
        if self.library:
            return {Path(self.library).name: _digest_of(self.library)}
        return {self.plugin.package: installed(self.plugin.package)} if self.plugin is not None else {}


@cache
def installed(package: str) -> str:
    """Return the version of an installed package, without importing it; empty where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


@cache
def _digest_of(library: str) -> str:
    try:
        with Path(library).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return ""


_PLAIN = "onnxruntime-genai"

_ALL = (
    Provider("cpu", "cpu", "CPUExecutionProvider", None, ("fp32", "int8", "int4"), "cpu", _PLAIN, 4, takes_options=False),
    Provider(
        "cuda", "cuda", "CUDAExecutionProvider", "cuda",
        # fp32 builds there (genai 0.18), and does not load: its attention lacks the outputs of the key-value cache.
        ("bf16", "fp16", "int8", "int4"), "cuda", "onnxruntime-genai-cuda", 0, device_options=("device_id", "device_id"),
        needs="an NVIDIA GPU with its driver",
    ),
    Provider(
        "dml", "dml", "DmlExecutionProvider", "dml", ("fp16", "int4"), "directml", "onnxruntime-genai-winml", 0,
        device_options=("device_id", "device_index"), needs="Windows and a GPU with DirectX 12",
    ),
    Provider(
        "webgpu", "webgpu", "WebGpuExecutionProvider", "webgpu", ("fp32", "fp16", "int8", "int4"), "webgpu", _PLAIN, 4,
        Plugin("onnxruntime-ep-webgpu", "onnxruntime_ep_webgpu", "0.4"), io_option="use_webgpu_fp32",
        needs="a GPU with its driver for Vulkan (Linux), DirectX 12 (Windows) or Metal (macOS)",
    ),
    Provider(
        "openvino", "cpu", "OpenVINOExecutionProvider", "OpenVINO", ("fp32", "int8", "int4"), "openvino", _PLAIN, 4,
        Plugin("onnxruntime-ep-openvino", "onnxruntime_ep_openvino", "1.8"), engines_option="cache_dir",
        needs="an Intel processor, GPU or NPU",
    ),
    Provider(
        "NvTensorRtRtx", "NvTensorRtRtx", "NvTensorRTRTXExecutionProvider", "NvTensorRtRtx", ("bf16", "fp16", "int4"),
        "tensorrt-rtx", _PLAIN, 0,
        Plugin("onnxruntime-ep-nv-tensorrt-rtx", "onnxruntime_ep_nv_tensorrt_rtx", "0.5"), qdq=True,
        engines_option="nv_runtime_cache_path", needs="an NVIDIA RTX GPU with its driver",
    ),
)  # fmt: skip

PROVIDERS: dict[str, Provider] = {provider.name: provider for provider in _ALL}

NVIDIA = ("cuda", "NvTensorRtRtx")
"""The providers whose memory NVIDIA's driver reports."""

LIBRARIES = "AUTOTUNE_PROVIDER_LIBRARIES"
"""The environment variable that passes the libraries of the command line to worker processes: JSON, name to path."""
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")


def use_library(name: str, path: str) -> None:
    """Add a provider from a vendor's library, for this process and those that it starts.

    `name`: the name of its devices in ONNX Runtime. Its graphs are built as for the CPU, with fp32 around quantised weights.
    Raises ValueError with the rule that is broken.
    """
    if not _NAME.fullmatch(name):
        raise ValueError("takes NAME=PATH, with the provider's own name: letters, digits and '_'")
    if name in {provider.name for provider in _ALL}:
        raise ValueError(f"{name} has a package of its own; choose the name that the library's devices have")
    file = Path(path)
    if not file.is_file():
        raise ValueError(f"there is no library {path}")
    _add(name, str(file.resolve()))
    libraries = {name: provider.library for name, provider in PROVIDERS.items() if provider.library}
    os.environ[LIBRARIES] = json.dumps(libraries)


def _add(name: str, path: str) -> None:
    PROVIDERS[name] = Provider(
        name, "cpu", name, name, ("fp32", "int8", "int4"), "cpu", _PLAIN, 4, library=path,
        needs="the hardware that its vendor says",
    )  # fmt: skip


def in_worker() -> None:
    """Add the libraries of the tuner's command line; called when a worker process starts."""
    for name, path in json.loads(os.environ.get(LIBRARIES) or "{}").items():
        _add(name, path)
