"""The devices that Vulkan's drivers offer, with name and driver: ONNX Runtime knows only the numbers of a GPU, and no driver.

The system's loader is called through ctypes, so that no package is needed. Source of the structures: the Vulkan 1.0
specification, VkApplicationInfo, VkInstanceCreateInfo and VkPhysicalDeviceProperties.
"""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass

_LOADER = {"win32": "vulkan-1.dll", "darwin": "libvulkan.1.dylib"}.get(sys.platform, "libvulkan.so.1")
_KINDS = {1: "gpu", 2: "gpu", 3: "gpu", 4: "cpu"}
"""VkPhysicalDeviceType: integrated, discrete, virtual, CPU."""


@dataclass(frozen=True)
class VulkanDevice:
    """One device as its driver describes it."""

    name: str
    kind: str
    vendor_id: int
    device_id: int
    driver: str
    """The driver's version as one number, which each vendor reads in its own way."""


class _Instance(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int), ("next", ctypes.c_void_p), ("flags", ctypes.c_uint32), ("application", ctypes.c_void_p),
        ("layers", ctypes.c_uint32), ("layer_names", ctypes.c_void_p), ("extensions", ctypes.c_uint32),
        ("extension_names", ctypes.c_void_p),
    )  # fmt: skip


class _Properties(ctypes.Structure):
    _fields_ = (
        ("api", ctypes.c_uint32), ("driver", ctypes.c_uint32), ("vendor", ctypes.c_uint32), ("device", ctypes.c_uint32),
        ("kind", ctypes.c_uint32), ("name", ctypes.c_char * 256), ("uuid", ctypes.c_uint8 * 16),
        # Limits and sparse properties, which nobody reads here: 824 bytes on 64 bits, and room to spare.
        ("more", ctypes.c_uint64 * 256),
    )  # fmt: skip


def vulkan_devices() -> list[VulkanDevice]:
    """Return the devices of all Vulkan drivers here; none where there is no loader or no driver."""
    try:
        vulkan = ctypes.CDLL(_LOADER)
        instance = ctypes.c_void_p()
        about = _Instance(type=1)  # VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO
        if vulkan.vkCreateInstance(ctypes.byref(about), None, ctypes.byref(instance)) != 0:
            return []
        try:
            count = ctypes.c_uint32()
            vulkan.vkEnumeratePhysicalDevices(instance, ctypes.byref(count), None)
            handles = (ctypes.c_void_p * count.value)()
            vulkan.vkEnumeratePhysicalDevices(instance, ctypes.byref(count), handles)
            return [_described(vulkan, handle) for handle in handles[: count.value]]
        finally:
            vulkan.vkDestroyInstance(instance, None)
    except (OSError, AttributeError):
        return []


def _described(vulkan: ctypes.CDLL, handle: int | None) -> VulkanDevice:
    found = _Properties()
    vulkan.vkGetPhysicalDeviceProperties(ctypes.c_void_p(handle), ctypes.byref(found))
    name = found.name.decode("utf-8", "replace")
    return VulkanDevice(name, _KINDS.get(found.kind, ""), found.vendor, found.device, f"{found.driver:#x}")
