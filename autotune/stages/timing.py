"""Time a built model in this process, which must be fresh and hold nothing but ONNX Runtime GenAI.

Fixed prompt, fixed number of new tokens, no early end: every sequence does the same work. What a process measures is
one sample of a timing, because tokens of one process are not independent; the tuner starts several.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from autotune.providers import PROVIDERS
from autotune.stages.conditions import Conditions
from autotune.stages.jobs import Result, TimeJob, refused

ENOUGH = 64
"""Tokens that one process times at least: enough for a 90th percentile."""
MOST_S = 20.0
"""Seconds after which a process stops repeating (it always times two sequences)."""


def peak_memory_bytes() -> int:
    """Return the peak resident memory of this process so far, bytes."""
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    if sys.platform == "linux":
        # Not getrusage: its peak goes on over exec, and a process that is started by a large one inherits that size.
        peak = Path("/proc/self/status").read_text(encoding="utf-8").partition("VmHWM:")[2].split()
        if peak:
            return 1024 * int(peak[0])
    import resource

    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(highest if sys.platform == "darwin" else highest * 1024)


def built_for(folder: Path) -> list[str]:
    """Return the providers, other than the CPU, that a built model's own settings name."""
    decoder = json.loads((folder / "genai_config.json").read_text(encoding="utf-8"))["model"]["decoder"]
    return [name for options in decoder.get("session_options", {}).get("provider_options", []) for name in options]


def load(folder: Path, provider: str, threads: int | None) -> Any:
    """Return the model on its provider. Raises StageError (`unsupported`) where it does not load."""
    import onnxruntime_genai as og

    try:
        config = og.Config(str(folder))
        wanted = [name for name in [PROVIDERS[provider].genai_name] if name]
        # A model that was built for this provider keeps its options, such as graph capture: they are part of its recipe.
        if wanted != built_for(folder):
            config.clear_providers()
            for name in wanted:
                config.append_provider(name)
        if threads:
            options = {"session_options": {"intra_op_num_threads": threads}}
            config.overlay(json.dumps({"model": {"decoder": options}}))
        return og.Model(config)
    except Exception as error:
        raise refused(error, f"the build does not load on {provider}") from error


def _sequence(model: Any, prompt: Any, total: int, batch: int) -> tuple[float, list[float]]:
    """Generate one batch of sequences. Return the time to the first token and those between tokens, milliseconds."""
    import onnxruntime_genai as og

    parameters = og.GeneratorParams(model)
    parameters.set_search_options(max_length=total, min_length=total, batch_size=batch, do_sample=False)
    generator = og.Generator(model, parameters)
    clock = time.perf_counter
    started = clock()
    generator.append_tokens(prompt)
    generator.generate_next_token()
    last = clock()
    first = (last - started) * 1e3
    gaps = []
    while not generator.is_done():
        generator.generate_next_token()
        now = clock()
        gaps.append((now - last) * 1e3)
        last = now
    return first, gaps


def time_process(job: TimeJob, out: Path) -> Result:
    """Load, warm up and time one model.

    Result: `load_s`; `ttft_ms` and `itl_ms`, raw samples in order; `peak_memory_mb` of this process; `conditions`: what
    else the machine did. `out` stays empty.
    """
    del out
    if "torch" in sys.modules:
        raise AssertionError("a timing process must not hold torch")
    started = time.perf_counter()
    model = load(job.model_dir, job.provider, job.threads)
    load_s = time.perf_counter() - started
    # Any tokens do: the work does not depend on which. The lowest are left out: they are often special.
    vocabulary = json.loads((job.model_dir / "genai_config.json").read_text(encoding="utf-8"))["model"]["vocab_size"]
    rng = np.random.default_rng(0)
    prompt = rng.integers(vocabulary // 10, vocabulary, size=(job.batch, job.prompt_tokens)).astype(np.int32)
    feed = prompt[0] if job.batch == 1 else prompt
    total = job.prompt_tokens + job.new_tokens
    try:
        for _ in range(2):
            _sequence(model, feed, total, job.batch)
        first: list[float] = []
        between: list[float] = []
        conditions = Conditions()
        began = time.perf_counter()
        while len(first) < 2 or (len(between) < ENOUGH and time.perf_counter() - began < MOST_S):
            ttft, gaps = _sequence(model, feed, total, job.batch)
            first.append(round(ttft, 4))
            between += [round(gap, 4) for gap in gaps]
    except Exception as error:
        raise refused(error, f"the build does not run on {job.provider}") from error
    return {
        "load_s": load_s,
        "ttft_ms": first,
        "itl_ms": between,
        "peak_memory_mb": peak_memory_bytes() / 1e6,
        "conditions": conditions.so_far(),
    }
