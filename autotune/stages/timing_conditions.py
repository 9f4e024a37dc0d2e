"""The load of the machine while this process timed a model: processors, other programs, GPU."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from types import TracebackType
from typing import Self

import psutil

from autotune.machine import busy_s


def _gpu_processes() -> float | None:
    """Return how many other processes compute on NVIDIA GPUs; None where that is unknown."""
    try:
        import pynvml as nvml

        nvml.nvmlInit()
        devices = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        found = {process.pid for device in devices for process in nvml.nvmlDeviceGetComputeRunningProcesses(device)}
    except Exception:  # noqa: BLE001 - no package, no driver, no GPU: each has errors of its own
        return None
    return float(len(found - {os.getpid()}))


class Conditions:
    """The load of the machine beside this process: a context manager around each part of the work, summed up by `so_far`."""

    def __init__(self) -> None:
        self._passed = self._foreign = 0.0

    def __enter__(self) -> Self:
        self._began, self._own, self._busy = time.perf_counter(), time.process_time(), busy_s()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._passed += time.perf_counter() - self._began
        self._foreign += (busy_s() - self._busy) - (time.process_time() - self._own)

    def so_far(self) -> dict[str, float]:
        """Return `load_avg` (over the last minute), `foreign_cpu` (cores that others kept busy meanwhile, on average),
        `cpu_mhz` and `gpu_processes` (now), as far as the system tells.
        """
        foreign = self._foreign / max(self._passed, 1e-3)
        found = {"foreign_cpu": max(0.0, foreign)}
        if (
            sys.platform != "win32"
        ):  # there psutil counts by a thread of its own, which begins to when it is first asked
            found["load_avg"] = float(psutil.getloadavg()[0])
        with contextlib.suppress(AttributeError, OSError, RuntimeError, NotImplementedError):  # not every system tells
            frequency = psutil.cpu_freq()
            if frequency is not None and frequency.current:
                found["cpu_mhz"] = float(frequency.current)
        others = _gpu_processes()
        return found if others is None else found | {"gpu_processes": others}
