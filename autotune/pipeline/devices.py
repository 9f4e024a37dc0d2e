"""Look for the device of a target before anything is trained, in a process of its own that a broken driver may crash or
hang.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from autotune.artifacts.store import Stored
from autotune.errors import MachineError, StageError
from autotune.providers import Provider, installed
from autotune.stages.preparation_jobs import DevicesJob
from autotune.stages.protocol import Job

ASK_S = 180.0
"""Seconds after which a provider that is asked for its devices counts as hung."""


class DoJob(Protocol):
    """Does a job; `anew`: in a process of its own, and nothing is kept."""

    def __call__(self, job: Job, timeout: float | None = None, anew: bool = False) -> Stored:
        """Return its result. Raises StageError."""
        ...


@dataclass(frozen=True)
class Offered:
    """What a provider offers on this machine."""

    devices: tuple[dict[str, Any], ...] = ()
    trouble: str = ""
    """Why nothing runs on the device that was asked for; empty where something does."""
    index: int | None = None
    """The index of the device that was asked for; None: the first."""
    names: list[str] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self.names.extend(described(device) for device in self.devices)

    @property
    def hardware(self) -> str:
        """The device that was asked for and its driver, in one line: it is part of the key of results that depend on it."""
        device = self.devices[self.index or 0]
        numbers = ":".join(f"{int(device[name]):04x}" for name in ("vendor_id", "device_id") if name in device)
        return " ".join(filter(None, [numbers, device["kind"], device["name"], device["driver"]]))


def described(device: dict[str, Any]) -> str:
    """Return a device in words: its name, what it is, and its driver."""
    driver = f", driver {device['driver']}" if device["driver"] else ""
    return f"{device['name']} ({device['kind']}{driver})"


def plugin_problem(provider: Provider) -> str:
    """Return which package a plugged provider lacks, or has in an untested version; empty where nothing is wrong."""
    plugin = provider.plugin
    if plugin is None:
        return ""
    there = installed(plugin.package)
    if not there:
        return f"provider {provider.name} needs {plugin.package}, which is not installed"
    if there != plugin.series and not there.startswith(f"{plugin.series}."):
        return f"provider {provider.name} needs {plugin.package} {plugin.series}, and {there} is installed"
    return ""


def offered_devices(provider: Provider, index: int | None, do: DoJob, label: str | None = None) -> Offered:
    """Return the devices that a provider offers now; `label`: as `target.label`. `trouble` says if its library crashes or
    hangs.
    """
    if missing := plugin_problem(provider):
        return Offered((), f"{missing}; {provider.remedy}", index)
    try:
        found = do(DevicesJob(provider=provider.name, device_index=index, label=label), ASK_S, anew=True).result
    except StageError as error:
        what = provider.library or (provider.plugin.package if provider.plugin else provider.wheel)
        said = str(error).removeprefix("devices: ").removeprefix("devices ")
        return Offered((), f"provider {provider.name}: its library ({what}) fails when it is loaded: {said}", index)
    return Offered(tuple(found["devices"]), str(found["trouble"]), index)


def required_devices(provider: Provider, index: int | None, do: DoJob, label: str | None = None) -> Offered:
    """Return the devices that a provider offers, as `offered_devices` does. Raises MachineError where nothing runs on the device
    `index`.
    """
    offered = offered_devices(provider, index, do, label)
    if offered.trouble:
        more = "" if not offered.names else f" (it offers {'; '.join(offered.names)})"
        raise MachineError(f"{offered.trouble}{more}; `autotune doctor` shows what runs here")
    return offered
