"""Tests what a device really runs: builds a tiny random model, runs it there and compares it with PyTorch.

A provider's name promises little: a GPU may lack 16-bit floats, an operator, or a head size, and a kernel may compute wrong
numbers from some length on. Seconds spent here save a night of candidates that cannot run."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import numpy as np

from autotune.errors import StageError
from autotune.providers import PROVIDERS
from autotune.scratch import scratch
from autotune.stages.backends import OnnxBackend, TorchBackend
from autotune.stages.build import build
from autotune.stages.check_build import Reference, computed_error, computed_limit, judge
from autotune.stages.jobs import BuildJob
from autotune.stages.preparation_jobs import CapabilityJob
from autotune.stages.protocol import Result
from autotune.stages.provider_share import share_of

TEXT = 12
"""The length in tokens of the short texts that are compared first."""
RUNS = 20
"""The number of single tokens that are timed, after as many for the warm-up."""
_WARM_UP = 3


def capability(job: CapabilityJob, out: Path) -> Result:
    """Build the tiny model in `job.source_dir` and run it on the device.

    Result: `runs`; `why` it does not, else ""; `right_up_to`: the longest text (tokens) on which it computes what PyTorch
    computes, where it goes wrong at `job.tokens`, else None; `token_ms`: a token of one sequence; `provider_share` and
    `left_to_cpu`, as `share_of` says. Raises StageError (`lost`) where the device is gone.
    """
    del out
    with scratch("capability") as folder:
        try:
            return _asked(job, folder)
        except StageError as error:
            if error.status == "lost":
                raise
            return {"runs": False, "why": str(error), "right_up_to": None, "token_ms": None}


def _asked(job: CapabilityJob, folder: Path) -> Result:
    made_for = PROVIDERS[job.provider].builds_as
    build(BuildJob(source=job.source, recipe=job.recipe, provider=made_for, source_dir=job.source_dir), folder)
    backend = OnnxBackend(folder, job.provider, None, device=job.device_index, shares=True)
    shares = share_of(backend.session, PROVIDERS[job.provider].runtime_name).plain()
    source = TorchBackend(job.source_dir, None, "cpu", 1)
    rng = np.random.default_rng(0)
    vocabulary = int(source.model.config.vocab_size)
    texts = [
        tuple(map(int, rng.integers(vocabulary // 10, min(vocabulary, 500), TEXT)))
        for _ in range(1 + job.tokens // TEXT)
    ]
    reference = Reference(source, texts)
    trouble = judge(reference, backend, folder, job.recipe, job.tokens)["trouble"]
    if trouble is not None:
        upto = _right_up_to(reference, backend, folder, job)
        why = f"{trouble}; it computes the same up to {upto} tokens" if upto else str(trouble)
        return {"runs": False, "why": why, "right_up_to": upto, "token_ms": None, **shares}
    return {"runs": True, "why": "", "right_up_to": None, "token_ms": _token_ms(backend), **shares}


def _right_up_to(reference: Reference, backend: OnnxBackend, folder: Path, job: CapabilityJob) -> int | None:
    """Return the longest text on which a build computes what PyTorch computes; None: none, or that is not known."""
    limit, right, wrong = computed_limit(backend, job.recipe), 0, job.tokens
    while wrong - right > 1:
        middle = (right + wrong) // 2
        error = computed_error(reference, backend, folder, middle)
        if error is None:
            return None
        right, wrong = (middle, wrong) if error <= limit else (right, middle)
    return right or None


def _token_ms(backend: OnnxBackend) -> float:
    """Return the milliseconds of a token of one sequence after a prompt."""
    _, cache = backend.run(np.full((1, TEXT), 7, dtype=np.int64), keep=True, last=True)
    token, took = np.full((1, 1), 7, dtype=np.int64), []
    for _ in range(_WARM_UP + RUNS):
        began = time.perf_counter()
        backend.run(token, cache, keep=True, last=True)
        took.append((time.perf_counter() - began) * 1e3)
    return statistics.median(took[_WARM_UP:])
