"""Tests what a target's device runs, for `plan` and `doctor`: with the stages of a run, which finds the answers in the cache."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from autotune.artifacts.store import Cache, default_root
from autotune.errors import MachineError
from autotune.pipeline.devices import DoJob, offered_devices
from autotune.pipeline.prepare import fit_to_device
from autotune.sweepfile.schema import Sweep


@contextmanager
def asking(log: str) -> Iterator[DoJob]:
    """Yield a function that does jobs in workers of this machine. Their output goes to a log of that name in the cache."""
    from autotune.execution.executor import Stages
    from autotune.execution.local import LocalEngine

    cache = Cache(default_root())
    file = cache.root / "logs" / f"{log}.log"
    with LocalEngine() as engine:
        engine.host.say = lambda line: print(f"autotune: {line}", file=sys.stderr)  # noqa: T201
        stages = Stages(cache, engine, lambda: file)
        try:
            yield stages
        finally:
            stages.close()


def asked_of_device(sweep: Sweep, config: Mapping[str, Any]) -> tuple[Sweep, list[str]]:
    """Return the sweep with only the recipes that its target's device runs, and notes.

    If the device is not in this machine, the sweep stays as it is, and a note says so. Raises MachineError if the device runs
    none of its recipes.
    """
    provider = sweep.provider
    if provider.name == "cpu" or not sweep.space.recipes:
        return sweep, []
    with asking("plan") as do:
        offered = offered_devices(provider, sweep.target.device, do)
        if offered.trouble:
            return sweep, [f"device: {offered.trouble}; the plan goes on with what is known of {provider.name}"]
        try:
            fitted, lines = fit_to_device(sweep, config, offered.hardware, do)
        except MachineError as error:
            if "no recipe" in str(error):
                raise
            return sweep, [f"device: {error}; the plan goes on with what is known of {provider.name}"]
    return fitted, [line for line in lines if not line.startswith("left out: ")]  # a plan lists those by itself
