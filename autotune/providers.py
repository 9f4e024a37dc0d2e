"""What each execution provider is: data, and how it is told which device and which options to use.

Adding a provider is one entry here, one extra in pyproject.toml and its test. The model builder accepts pairs that fail
only when loaded (fp16 on the CPU builds with exit 0), so the precisions that may run are written here; what a device
really runs is asked of the device (`autotune.stages.capability`), before anything is trained.
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
    """Its name in the registry."""
    module: str
    """What is imported of it: its `get_library_path()` says where the library lies."""
    series: str
    """The first parts of the versions that are tested, such as 0.4."""


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
    """What may run on it, most exact first: in the first of them that the device runs, the untouched model is the `base`
    of limits."""
    extra: str
    """The extra of this package that installs it."""
    wheel: str
    """The ONNX Runtime GenAI wheel that it needs."""
    accuracy_level: int
    """The builder's default `accuracy_level` there."""
    plugin: Plugin | None = None
    """What brings it, where that is a package of its own."""
    library: str = ""
    """The library that brings it, where the command line named one."""
    takes_options: bool = True
    """Whether it takes `provider_options`."""
    io_option: str = ""
    """The option of the model builder that keeps inputs, outputs and activations in fp32 around quantised weights, where
    the builder takes fp16 otherwise and a device may have none."""
    device_options: tuple[str, str] = ("", "")
    """The provider's own options that pick a device by its number, for ONNX Runtime and for GenAI, where it is no plugin."""
    qdq: bool = False
    """Whether the model builder always writes its int4 weights as QuantizeLinear and DequantizeLinear."""
    engines_option: str = ""
    """The provider's own option that names a folder for engines that it has compiled."""
    needs: str = ""
    """What the machine needs besides packages, in words."""

    @property
    def plugged(self) -> bool:
        """Whether a library must be registered before it is there."""
        return self.plugin is not None or bool(self.library)

    @property
    def builds_as(self) -> str:
        """The provider whose builds it runs: those for the CPU where the model builder has none of its own."""
        return "cpu" if self.builder_flag == "cpu" else self.name

    @property
    def install(self) -> str:
        """The command that installs what running a built model on it takes."""
        if self.library:
            return f"pip install {self.wheel}, and the library {Path(self.library).name} of its vendor"
        more = f' "{self.plugin.package}=={self.plugin.series}.*"' if self.plugin is not None else ""
        return f'pip install "{self.wheel}==0.18.*"{more}'

    @property
    def remedy(self) -> str:
        """The command that installs what a sweep on it takes."""
        return pip_install(self.extra)

    @property
    def packages(self) -> dict[str, str]:
        """What decides its results besides ONNX Runtime: the plugin's version, or the digest of its library."""
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
"""Those whose memory NVIDIA's driver can tell."""

LIBRARIES = "AUTOTUNE_PROVIDER_LIBRARIES"
"""The environment variable by which worker processes learn what the command line named: JSON, name to path."""
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")


def use_library(name: str, path: str) -> None:
    """Add a provider that a library brings, for this process and those that it starts.

    `name` is the provider's own, which its devices have. A graph for it is built as for the CPU, which holds no type but
    fp32 around quantised weights. Raises ValueError with the rule that is broken.
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
    """Add the libraries that the command line of the tuner named; called where a worker process starts."""
    for name, path in json.loads(os.environ.get(LIBRARIES) or "{}").items():
        _add(name, path)
