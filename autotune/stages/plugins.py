"""Execution providers in a worker process: plugins are registered, devices found, sessions put on one of them.

ONNX Runtime and ONNX Runtime GenAI each keep a register of libraries, so each is told by itself, once in a process.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autotune.errors import StageError
from autotune.providers import PROVIDERS, Provider
from autotune.stages.library_errors import reason, refused

_registered: set[tuple[str, str]] = set()

_GONE = (
    "device is lost", "device lost", "device_lost", "device was lost", "failed to get a webgpu adapter",
    "no supported adapters", "no cuda-capable device", "cuda_error_no_device", "device removed", "device_removed",
    "dxgi_error_device", "gpu is lost", "no device",
)  # fmt: skip
"""Messages of libraries about a device that is gone."""


def gone(error: BaseException) -> bool:
    """Whether a library's error says that its device is gone."""
    return any(sign in str(error).lower() for sign in _GONE)


def trouble(error: Exception, what: str) -> StageError:
    """Return a library's error on a device: the candidate's trouble, or `lost` where the device is there no more: then the
    same candidate is tried again when it is back.
    """
    return StageError("lost", f"{what}: {reason(error)}") if gone(error) else refused(error, what)


def library_of(provider: Provider) -> str:
    """Return the path of the library that brings a provider. Raises StageError (`lost`: another run may have it)."""
    if provider.library:
        if not Path(provider.library).is_file():
            raise StageError("lost", f"provider {provider.name}: there is no library {provider.library}")
        return provider.library
    assert provider.plugin is not None
    plugin = provider.plugin
    try:
        path = str(importlib.import_module(plugin.module).get_library_path())
    except ModuleNotFoundError:
        raise StageError(
            "lost", f"provider {provider.name}: {plugin.package} is not installed; {provider.remedy}"
        ) from None
    except Exception as error:
        raise StageError(
            "lost", f"provider {provider.name}: {plugin.package} does not load ({reason(error)}); install it again"
        ) from error
    if not Path(path).is_file():
        message = f"provider {provider.name}: {plugin.package} has no library {path}; install it again"
        raise StageError("lost", message)
    return path


def register(provider: Provider, runtime: Any) -> None:
    """Register a provider's library with `runtime`, the module onnxruntime or onnxruntime_genai. Raises StageError."""
    if not provider.plugged or (runtime.__name__, provider.name) in _registered:
        return
    path = library_of(provider)
    try:
        runtime.register_execution_provider_library(provider.runtime_name, path)
    except Exception as error:
        if "already registered" not in str(error).lower():
            message = f"provider {provider.name}: {path} cannot be registered ({reason(error)})"
            raise StageError("lost", message) from error
    _registered.add((runtime.__name__, provider.name))


def devices_of(provider: Provider) -> list[Any]:
    """Return the devices (`OrtEpDevice`) that a plugged provider offers. Raises StageError where it cannot be loaded."""
    import onnxruntime as ort

    register(provider, ort)
    return [device for device in ort.get_ep_devices() if device.ep_name == provider.runtime_name]


def device_of(provider: Provider, index: int | None) -> Any:
    """Return one of a plugged provider's devices. Raises StageError (`lost`) where it is not there."""
    devices = devices_of(provider)
    if not devices:
        raise StageError(
            "lost", f"provider {provider.name} offers no device on this machine: it needs {provider.needs}"
        )
    if (index or 0) >= len(devices):
        raise StageError("lost", f"provider {provider.name} has no device {index}: it offers {len(devices)}, from 0 on")
    return devices[index or 0]


def open_session(
    graph: Any, options: Any, name: str, index: int | None = None, provider_options: Mapping[str, str] | None = None
) -> Any:
    """Return an ONNX Runtime session of a graph (its path, or its bytes) on a provider's device.

    Never on another provider instead: what a provider does not take falls to the CPU node by node, and no more.
    Raises StageError.
    """
    import onnxruntime as ort

    provider = PROVIDERS[name]
    given = dict(provider_options or {})
    try:
        if provider.plugged:
            options.add_provider_for_devices([device_of(provider, index)], given)
            session = ort.InferenceSession(graph, options, enable_fallback=0)
        else:
            if provider.runtime_name not in ort.get_available_providers():
                message = f"this ONNX Runtime has no {provider.runtime_name}; install the {provider.extra} extra"
                raise StageError("unsupported", message)
            if index is not None and provider.device_options[0]:
                given[provider.device_options[0]] = str(index)
            session = ort.InferenceSession(graph, options, providers=[(provider.runtime_name, given)])
    except StageError:
        raise
    except Exception as error:
        raise trouble(error, f"the build does not load on {name}") from error
    if (first := session.get_providers()[0]) != provider.runtime_name:
        raise StageError("unsupported", f"the build runs on {first}, not on {provider.runtime_name}")
    return session


def put_on_device(config: Any, provider: Provider, index: int | None) -> None:
    """Set one of a provider's devices in a configuration of ONNX Runtime GenAI. Raises StageError."""
    if index is None or provider.genai_name is None:
        return
    if not provider.plugged:
        if provider.device_options[1]:
            config.set_provider_option(provider.genai_name, provider.device_options[1], str(index))
        return
    hardware = device_of(provider, index).device
    config.set_decoder_provider_options_hardware_device_id(provider.genai_name, hardware.device_id)
    config.set_decoder_provider_options_hardware_vendor_id(provider.genai_name, hardware.vendor_id)
    config.set_decoder_provider_options_hardware_device_type(provider.genai_name, kind_of(hardware))


def kind_of(hardware: Any) -> str:
    """Return whether a device is a CPU, a GPU or an NPU: `cpu`, `gpu` or `npu`."""
    return str(hardware.type).rpartition(".")[2].lower()


def with_settings(config: Any, settings: Mapping[str, Any]) -> None:
    """Lay session options, in the words of genai_config.json, over a configuration of ONNX Runtime GenAI."""
    if settings:
        config.overlay(json.dumps({"model": {"decoder": {"session_options": dict(settings)}}}))
