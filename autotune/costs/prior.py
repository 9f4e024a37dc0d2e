"""The prior of the cost model: what a job takes by its size alone, before anything was measured on this machine.

Seconds have three parts: the imports of a worker before its first job of stages that share them, a constant for every job,
and a part in proportion to the job's units. The numbers are rounded from sweeps of a model of 135 million parameters and of
tiny models, on two cores, on a quiet machine and beside other work; the tiny ones differed six times between the two. The
numbers lie in between. They are meant to be right within a factor of three on both, until a stage was measured here.
"""

from __future__ import annotations

from autotune.costs.work import Work
from autotune.machine import usable_processors

PARTS = ("start", "fixed", "units")

_FLOPS_CORE, _MOST_CORES = 30e9, 8
"""Floating-point operations per second and core, and the number of cores above which more help little."""
_FLOPS_GPU = 10e12
_BYTES = 15e9
"""Bytes of weights read per second while tokens are generated one by one, which memory bandwidth bounds."""
_BYTES_GPU = 300e9
_DISK = 1e9
"""Bytes of a model that are read or written per second."""

_TORCH = ("base", "inspect", "lengths", "finetune", "merge", "build", "check", "score")
_IMPORT_S = {"torch": 6.0, "probe": 2.5, "data": 2.0, "metric": 1.0, "task": 10.0}
"""Seconds in which a worker imports what a stage needs, by `imported_by`; 0 in a fresh process, whose start is a unit."""
_FIXED = {
    "base": 25.0, "data": 5.0, "probe": 1.0, "inspect": 0.5, "lengths": 0.5, "metric": 0.2, "task": 5.0, "finetune": 0.6,
    "merge": 0.6, "build": 0.8, "check": 0.7, "score": 0.6, "time": 0.0, "turns": 0.0, "verify": 1.5,
    "own": 4.0,
}  # fmt: skip
"""Seconds of every job, whatever the model."""
_PASSES = {
    "finetune": 1.0, "merge": 3.0, "build": 12.0, "check": 4.0, "score": 1.0, "verify": 1.0,
}  # fmt: skip
"""The fixed work of a job in passes over the model's weights (fp32, at `_DISK`). Stages of the preparation have none, because
the sweep does not know its model yet."""
_PROCESS_S = 1.0
"""Seconds in which a fresh process starts and imports ONNX Runtime."""
_CHECKED = 8
"""The number of texts on which a build is compared with its source."""


def imported_by(stage: str) -> str:
    """Return the name of what a stage imports: of the stages that share it, a worker's first pays for it."""
    return "torch" if stage in _TORCH else stage


def parts_of(work: Work) -> tuple[float, float, float]:
    """Return the expected seconds of a job by size, in the order of `PARTS`: imports (0 where the worker has done the stage
    before), the constant part, and all units.
    """
    flops = _FLOPS_GPU if work.gpu else _FLOPS_CORE * min(_MOST_CORES, usable_processors())
    weights = work.parameters * 4
    read_s = 2 * work.parameters * work.tokens / flops
    made_s = work.decoded * work.parameters * work.bits / 8 / (_BYTES_GPU if work.gpu else _BYTES)
    start = _IMPORT_S.get(imported_by(work.stage), 0.0) if work.first else 0.0
    fixed = _FIXED.get(work.stage, 1.0) + _PASSES.get(work.stage, 0.0) * weights / _DISK
    match work.stage:
        case "finetune":
            unit = work.slow * (0.004 + 2 * read_s)
        case "build":
            fixed *= work.slow
            unit = 0.0
        case "check":
            unit = 2 * _CHECKED * read_s
        case "score":
            unit = 0.001 + read_s + made_s + 2e-4 * work.decoded
        case "time" | "turns":
            unit = _PROCESS_S + weights * work.bits / 32 / _DISK + read_s + made_s + 2e-4 * work.decoded
        case "own":  # the tuner itself, for each row; and starting
            unit = 0.05
        case "verify":
            unit = 0.02 + read_s + made_s
        case _:
            unit = 0.0
    return start, fixed, unit * work.units
