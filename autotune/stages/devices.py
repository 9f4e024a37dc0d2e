"""Lists the devices of a provider on this machine, and tests whether it opens a session on the chosen one.

It always asks anew, in a fresh process: a device may be gone since yesterday, and a library that crashes takes no other process
with it."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from autotune.errors import StageError
from autotune.providers import NVIDIA, PROVIDERS, Provider
from autotune.stages.plugins import devices_of, kind_of, open_session
from autotune.stages.preparation_jobs import DevicesJob
from autotune.stages.protocol import Result
from autotune.stages.vulkan import vulkan_devices


def devices(job: DevicesJob, out: Path) -> Result:
    """Result: `devices`, in the provider's order, each with `name`, `kind` (cpu, gpu, npu), `vendor_id`, `device_id` and
    `driver`, as far as they are known; `trouble`: why no session can be opened on the one that is asked for, or "".
    """
    del out
    provider = PROVIDERS[job.provider]
    try:
        found = [_plugged(one) for one in devices_of(provider)] if provider.plugged else _own(provider)
    except StageError as error:
        return {"devices": [], "trouble": str(error)}
    return {"devices": found, "trouble": _trouble(provider, found, job.device_index)}


def _plugged(one: Any) -> dict[str, Any]:
    """Return the description of a plugin's device."""
    hardware, told = one.device, dict(one.device.metadata) | dict(one.ep_metadata)
    kind = kind_of(hardware)
    found: dict[str, Any] = {"kind": kind, "vendor_id": hardware.vendor_id, "device_id": hardware.device_id}
    for other in vulkan_devices():
        same = (other.vendor_id, other.device_id) == (hardware.vendor_id, hardware.device_id)
        # A driver that computes on the processor is not known by the processor's numbers.
        if same or (kind == "cpu" and other.kind == "cpu"):
            found |= {"name": other.name, "driver": other.driver}
            break
    else:
        names = (told.get(key) for key in ("Description", "name", "ov_device"))
        found |= {"name": next(filter(None, names), hardware.vendor), "driver": told.get("driver_version", "")}
    if hardware.vendor_id == _NVIDIA:
        found["driver"] = _nvidia_driver() or found["driver"]
    return found


_NVIDIA = 0x10DE


def _own(provider: Provider) -> list[dict[str, Any]]:
    """Return the devices of a provider that comes with the ONNX Runtime wheel, as far as they can be counted."""
    if provider.name not in NVIDIA:
        return [{"kind": "gpu" if provider.name != "cpu" else "cpu", "name": provider.name, "driver": ""}]
    with contextlib.suppress(Exception):  # no package, no driver, no GPU: each has errors of its own
        import pynvml as nvml

        nvml.nvmlInit()
        handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        driver = _text(nvml.nvmlSystemGetDriverVersion())
        return [{"kind": "gpu", "name": _text(nvml.nvmlDeviceGetName(one)), "driver": driver} for one in handles]
    return [{"kind": "gpu", "name": "an NVIDIA GPU", "driver": _nvidia_driver()}]


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _nvidia_driver() -> str:
    """Return the version of NVIDIA's driver on Linux, or an empty text."""
    with contextlib.suppress(OSError, IndexError):
        line = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8").splitlines()[0]
        return next((word for word in line.split() if word[:1].isdigit() and "." in word), "")
    return ""


def _trouble(provider: Provider, found: list[dict[str, Any]], asked: int | None) -> str:
    """Return why the chosen device runs nothing; empty if a session with one node can be opened there."""
    index = asked or 0
    if not found:
        return f"provider {provider.name} offers no device on this machine: it needs {provider.needs}"
    if index >= len(found):
        return f"provider {provider.name} has no device {index}: it offers {len(found)}, counted from 0"
    twins = [n for n, one in enumerate(found[:index]) if _numbers(one) == _numbers(found[index])]
    if provider.plugged and twins:
        return (
            f"provider {provider.name}: device {index} has the numbers of device {twins[0]}, and ONNX Runtime GenAI cannot "
            "tell them apart; use that one"
        )
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        open_session(_one_node(), options, provider.name, asked)
    except StageError as error:
        what = str(error).replace("the build does not load on", "no session can be opened on")
        return f"provider {provider.name}: {_innermost(what)}; it needs {provider.needs}"
    return ""


def _numbers(device: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(device.get(name) for name in ("vendor_id", "device_id", "kind"))


def _innermost(said: str) -> str:
    """Return a library's message without the places in its source code."""
    head, _, rest = said.partition(": ")
    last = rest.rpartition(" was false. ")[2].rpartition("] : ")[2]
    return f"{head}: {last.strip() or rest}"[:300]


def _one_node() -> bytes:
    """Return a graph that multiplies two matrices."""
    from onnx import TensorProto, helper

    values = {
        name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 2]) for name in ("left", "right", "product")
    }
    node = helper.make_node("MatMul", ["left", "right"], ["product"])
    graph = helper.make_graph([node], "one", [values["left"], values["right"]], [values["product"]])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    return bytes(model.SerializeToString())
