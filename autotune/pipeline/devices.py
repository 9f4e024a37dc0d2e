"""The device of a target: asked for before anything is trained, in a process of its own that it may crash or hang."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from autotune.artifacts.store import Stored
from autotune.errors import MachineError, StageError
from autotune.providers import Provider, installed
from autotune.stages.jobs import DevicesJob, Job

ASK_S = 180.0
"""Seconds after which a provider that is asked for its devices counts as hung."""


class Asked(Protocol):
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
    """The one that was asked for; None: the first."""
    names: list[str] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self.names.extend(described(device) for device in self.devices)

    @property
    def hardware(self) -> str:
        """The device that was asked for with its driver, in one line: results that depend on it are known by that."""
        device = self.devices[self.index or 0]
        numbers = ":".join(f"{int(device[name]):04x}" for name in ("vendor_id", "device_id") if name in device)
        return " ".join(filter(None, [numbers, device["kind"], device["name"], device["driver"]]))


def described(device: dict[str, Any]) -> str:
    """Return a device in words: its name, what it is, and its driver."""
    driver = f", driver {device['driver']}" if device["driver"] else ""
    return f"{device['name']} ({device['kind']}{driver})"


def lacking(provider: Provider) -> str:
    """Return what is not installed, or not in a version that is tested, for a plugged provider; empty: nothing."""
    plugin = provider.plugin
    if plugin is None:
        return ""
    there = installed(plugin.package)
    if not there:
        return f"provider {provider.name} needs {plugin.package}, which is not installed"
    if there != plugin.series and not there.startswith(f"{plugin.series}."):
        return f"provider {provider.name} needs {plugin.package} {plugin.series}, and {there} is installed"
    return ""


def ask(provider: Provider, index: int | None, do: Asked, label: str | None = None) -> Offered:
    """Return what a provider offers now; `label`: as `target.label`. Where its library crashes or hangs, `trouble` says so."""
    if missing := lacking(provider):
        return Offered((), f"{missing}; {provider.remedy}", index)
    try:
        found = do(DevicesJob(provider=provider.name, device_index=index, label=label), ASK_S, anew=True).result
    except StageError as error:
        what = provider.library or (provider.plugin.package if provider.plugin else provider.wheel)
        said = str(error).removeprefix("devices: ").removeprefix("devices ")
        return Offered((), f"provider {provider.name}: its library ({what}) fails when it is loaded: {said}", index)
    return Offered(tuple(found["devices"]), str(found["trouble"]), index)


def required(provider: Provider, index: int | None, do: Asked, label: str | None = None) -> Offered:
    """Return what a provider offers, where something runs on the device that is asked for; `label`: as `target.label`.

    Raises MachineError.
    """
    offered = ask(provider, index, do, label)
    if offered.trouble:
        more = "" if not offered.names else f" (it offers {'; '.join(offered.names)})"
        raise MachineError(f"{offered.trouble}{more}; `autotune doctor` shows what runs here")
    return offered
