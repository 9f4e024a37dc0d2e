"""This machine, in words and as a digest: every timing belongs to one machine."""

from __future__ import annotations

import contextlib
import errno
import functools
import math
import platform
import re
import shutil
import subprocess
import sys
import time
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import psutil

from autotune import control_groups
from autotune.candidate import digest
from autotune.distribution import DISTRIBUTION
from autotune.errors import MachineError
from autotune.paths import exists
from autotune.scratch import temporary_folder

_PACKAGES = (
    "accelerate", DISTRIBUTION, "bitsandbytes", "numpy", "onnx", "onnx-ir", "onnxruntime", "onnxruntime-gpu",
    "onnxruntime-directml", "onnxruntime-genai", "onnxruntime-genai-cuda", "onnxruntime-genai-directml",
    "onnxruntime-genai-winml", "optuna", "pandas", "peft", "torch", "transformers",
)  # fmt: skip


@functools.cache
def _processor() -> str:
    """Return the processor's name. Python's own answer on Windows and macOS does not distinguish models."""
    found = ""
    with contextlib.suppress(OSError, subprocess.SubprocessError, StopIteration):
        if sys.platform == "win32":
            import winreg

            place = r"HARDWARE\DESCRIPTION\System\CentralProcessor\0"
            with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, place) as key:
                found = str(winreg.QueryValueEx(key, "ProcessorNameString")[0])
        elif sys.platform == "darwin":
            asked = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
            found = subprocess.run(
                asked, capture_output=True, encoding="utf-8", errors="replace", check=True, timeout=10
            ).stdout
        else:
            lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
            found = next(line for line in lines if line.startswith("model name")).partition(":")[2]
    return " ".join(found.split()) or platform.processor() or platform.machine()


def hardware() -> dict[str, Any]:
    """Return the hardware on which the speed of a model depends; `usable`: its logical processors, where not all may be used."""
    threads, usable = psutil.cpu_count() or 1, usable_processors()
    return {
        "processor": _processor(),
        "cores": psutil.cpu_count(logical=False) or threads,
        "threads": threads,
        "memory_mb": round(psutil.virtual_memory().total / 1e6),
        "system": f"{platform.system()} {platform.machine()}",
    } | ({"usable": usable} if usable < threads else {})


def own_processors() -> list[int]:
    """Return the numbers of the logical processors that the system lets this process run on."""
    if sys.platform != "darwin":  # macOS has no such limit
        with contextlib.suppress(AttributeError, OSError, psutil.Error):
            return sorted(psutil.Process().cpu_affinity() or []) or list(range(psutil.cpu_count() or 1))
    return list(range(psutil.cpu_count() or 1))


def usable_processors() -> int:
    """Return how many logical processors this process can keep busy: a container or a batch system may give it a part."""
    return max(1, min(len(own_processors()), math.floor(min(control_groups.cpu_quota(), 1e9))))


def packages() -> dict[str, str]:
    """Return the versions of the packages that affect results, as they would be imported."""
    found: dict[str, str] = {}
    for one in distributions():  # in the order of the path
        if one.metadata["Name"]:
            found.setdefault(one.metadata["Name"].lower().replace("_", "-"), one.version)
    return {name: found[name] for name in _PACKAGES if name in found}


def describe() -> dict[str, Any]:
    """Return hardware and versions for machine.json."""
    return {"hardware": hardware(), "python": sys.version.split()[0], "packages": packages()}


def machine_digest() -> str:
    """Return the digest of the hardware: timings of another machine are not reused."""
    return digest(hardware())


def free_disk_mb(folder: Path) -> float:
    """Return the free disk space at `folder`, which may not exist yet, 10^6 bytes. Raises MachineError where its drive is missing."""
    wanted = folder = folder.absolute()
    while not exists(folder):
        if folder == folder.parent:
            raise MachineError(f"{wanted}: there is no drive {folder}; name a folder on one that is there")
        folder = folder.parent
    return shutil.disk_usage(folder).free / 1e6


_FULL_MB = 1.0
"""A disk with less than this free is taken for the full one."""


def name_full_disk(error: OSError, *folders: Path) -> None:
    """Let an error of a full disk name those of `folders`, and the folder for temporary files, whose disk is full.

    The system names no file where a file could still be made and not be filled.
    """
    if error.errno not in (errno.ENOSPC, errno.EDQUOT) or error.filename is not None:
        return
    full = []
    for folder in (*folders, temporary_folder()):
        with contextlib.suppress(OSError, MachineError):
            if free_disk_mb(folder) < _FULL_MB:
                full.append(str(folder))
    error.filename = " and ".join(dict.fromkeys(full)) or None


def longest_path() -> int | None:
    """Return the most characters of a path; None where there is no limit: elsewhere than on Windows, or with long paths on."""
    if sys.platform != "win32":
        return None
    import winreg

    with contextlib.suppress(OSError):
        place = r"SYSTEM\CurrentControlSet\Control\FileSystem"
        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, place) as key:
            if winreg.QueryValueEx(key, "LongPathsEnabled")[0]:
                return None
    return 259


def free_memory_mb() -> float:
    """Return the memory that is available without swapping, in this container if it has a limit, 10^6 bytes."""
    return min(psutil.virtual_memory().available, control_groups.memory_left()) / 1e6


def total_memory_mb() -> float:
    """Return the memory of this machine, or the limit of this container, 10^6 bytes."""
    return min(psutil.virtual_memory().total, control_groups.memory_limit()) / 1e6


def oom_kills() -> int:
    """Return how many processes Linux has killed here because memory ran out; 0 on other systems."""
    return control_groups.statistic(Path("/proc/vmstat"), "oom_kill") + control_groups.oom_kills()


def busy_s() -> float:
    """Return the seconds that the processors of this process have worked since the machine started, for all programs."""
    there, own = _busy_each(), own_processors()
    if not there.keys() >= set(own):  # LXC shows a container its own processors under other numbers
        return sum(there.values())
    return sum(there[number] for number in own)


def _busy_each() -> dict[int, float]:
    """Return by their numbers the seconds that logical processors have worked, for all programs."""
    idle = ("idle", "iowait", "guest", "guest_nice")
    each = [
        float(sum(times[:]) - sum(getattr(times, name, 0.0) for name in idle))
        for times in psutil.cpu_times(percpu=True)
    ]
    numbers = list(range(len(each)))
    if sys.platform == "linux":  # it lists no processors that are switched off, such as the second threads of cores
        with contextlib.suppress(OSError):
            lines = Path(psutil.PROCFS_PATH, "stat").read_text(encoding="utf-8").splitlines()
            numbers = [int(found[1]) for line in lines if (found := re.match(r"cpu(\d+) ", line))]
    return dict(zip(numbers, each, strict=False))  # one may be switched off between the two looks


def foreign_cpu(seconds: float = 0.5, own: int | None = None) -> float:
    """Return how many cores other programs keep busy now, on average over `seconds`.

    The process `own` (None: this one) and its children are not counted.
    """
    began, busy, before = time.perf_counter(), busy_s(), _own_s(own)
    time.sleep(seconds)
    return max(0.0, (busy_s() - busy) - (_own_s(own) - before)) / (time.perf_counter() - began)


def _own_s(own: int | None) -> float:
    """Return the processor seconds of a process and of its living children."""
    total = 0.0
    this = psutil.Process(own)
    for process in [this, *this.children(recursive=True)]:
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            total += times.user + times.system
    return total
