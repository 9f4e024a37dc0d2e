"""The description of one piece of work for a stage: a frozen job, whose key is the name of its result in the cache.

Fields marked `where()` say where something lies, which nodes can do the job or how long it may take. They are not part of
the key: a result is found again by what went into it, wherever that was. `jobs`, `preparation_jobs` and `delivery_jobs`
describe the stages; other rooms import these descriptions, and nothing else of `stages`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from pydantic import Field

from autotune.candidate import Frozen, digest
from autotune.providers import PROVIDERS, installed

Result = dict[str, Any]
"""The values that a stage returns besides its files, as plain JSON."""


def where(default: Any = ...) -> Any:
    """Return a dataclass field that is not part of the job's key."""
    return Field(default, exclude=True)


ORT_WHEELS = ("onnxruntime-genai", "onnxruntime-genai-cuda", "onnxruntime-genai-directml", "onnxruntime-genai-winml")


class Job(Frozen):
    """One piece of work for a stage: the inputs that decide its result, and where they lie."""

    stage: ClassVar[str]
    function: ClassVar[str]
    """The function that does the job, as `module:name`; imported in a worker process only."""
    version: ClassVar[int] = 1
    packages: ClassVar[tuple[str, ...]] = ()
    """The packages whose versions change the result."""
    sources: ClassVar[Mapping[str, str]] = {}
    """Maps each field with an input's path to the field with the input's key. See `resolved`."""

    def described(self) -> dict[str, Any]:
        """The inputs that decide the result, as plain data."""
        packages = {name: installed(name) for name in self.packages} | self.brought
        content = self.model_dump(mode="json", exclude_none=True)
        return {"stage": self.stage, "version": self.version, "packages": packages, "inputs": content}

    @property
    def brought(self) -> dict[str, str]:
        """The package and version of the job's execution provider, if it is a plugin."""
        return {}

    @cached_property
    def key(self) -> str:
        """The SHA-256 of `described()`: the name of the result in the cache."""
        return digest(self.described())


class DeviceJob(Job):
    """A job that runs a model on a device of an execution provider."""

    device_index: int | None = None
    """Which of the provider's devices, from 0; None: the first."""
    hardware: str | None = None
    """The device with its driver, if the digest of the machine leaves it open; else None."""
    label: str | None = where(None)
    """In a cluster, the resource of the nodes that have the device; None: any node has it."""

    @property
    def brought(self) -> dict[str, str]:
        """The package and version of the execution provider, if it is a plugin."""
        provider = PROVIDERS.get(str(getattr(self, "provider", None)))
        return provider.packages if provider is not None else {}


@dataclass(frozen=True)
class Call:
    """A job to do now. `timeout`: seconds that it may take at most, besides what was learned; `anew`: it is done in a process
    of its own, whatever is kept already, and its result is not kept.
    """

    job: Job
    timeout: float | None = None
    anew: bool = False


def function_of(job: Job) -> Callable[..., Result]:
    """Import and return the function that does a job; call it in a worker process only."""
    module, _, name = job.function.partition(":")
    function: Callable[..., Result] = getattr(importlib.import_module(module), name)
    return function
