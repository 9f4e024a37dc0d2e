"""Time a built model in this process, which must be fresh and hold nothing but ONNX Runtime GenAI.

Fixed prompts, fixed numbers of new tokens, no early end: every round of sequences does the same work. What a process
measures is one sample of a timing, because tokens of one process are not independent; the tuner starts several.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from autotune.candidate import Session
from autotune.errors import StageError
from autotune.metrics import ENOUGH_FOR_P90
from autotune.providers import NVIDIA, PROVIDERS
from autotune.stages.jobs import SLICE, TimeJob
from autotune.stages.plugins import device_of, put_on_device, register, trouble, with_settings
from autotune.stages.protocol import Result
from autotune.stages.timing_conditions import Conditions

MOST_S = 20.0
"""Seconds after which a process stops repeating, which it does until there are enough tokens for a 90th percentile (it
always times two sequences, and each length once)."""


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


def gpu_memory() -> Callable[[], float | None]:
    """Return a function that gives the memory that this process has on NVIDIA GPUs, 10^6 bytes; None where that is unknown.

    In a container the driver may not know its processes: there it is what all have taken since this call.
    """
    try:
        import pynvml as nvml

        nvml.nvmlInit()
        devices = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]

        def taken() -> int:
            return sum(int(nvml.nvmlDeviceGetMemoryInfo(device).used) for device in devices)

        before = taken()
    except Exception:  # noqa: BLE001 - no package, no driver, no GPU: each has errors of its own
        return lambda: None

    def now() -> float | None:
        try:
            mine = [
                process.usedGpuMemory
                for device in devices
                for process in nvml.nvmlDeviceGetComputeRunningProcesses(device)
                if process.pid == os.getpid() and process.usedGpuMemory is not None
            ]
            return float(sum(mine) if mine else max(0, taken() - before)) / 1e6
        except nvml.NVMLError:
            return None

    return now


def built_for(folder: Path) -> list[str]:
    """Return the providers, other than the CPU, that a built model's own settings name."""
    decoder = json.loads((folder / "genai_config.json").read_text(encoding="utf-8"))["model"]["decoder"]
    return [name for options in decoder.get("session_options", {}).get("provider_options", []) for name in options]


def load(folder: Path, name: str, session: Session, device: int | None = None, engines: Path | None = None) -> Any:
    """Return the model on a device of its provider, served as the session says; `engines`: where compiled engines are kept.

    Raises StageError: `unsupported` where it does not load, `lost` where the provider or its device is there no more.
    """
    import onnxruntime_genai as og

    provider = PROVIDERS[name]
    register(provider, og)
    if provider.plugged and device is None:
        device_of(provider, None)  # GenAI would say that the provider is not in its build, which misleads
    try:
        config = og.Config(str(folder))
        wanted = [provider.genai_name] if provider.genai_name else []
        # A model that was built for this provider keeps its options, such as graph capture: they are part of its recipe.
        if wanted != built_for(folder):
            config.clear_providers()
            for one in wanted:
                config.append_provider(one)
        put_on_device(config, provider, device)
        if engines is not None and provider.engines_option:
            engines.mkdir(parents=True, exist_ok=True)
            config.set_provider_option(provider.genai_name, provider.engines_option, str(engines))
        for option, value in session.options.items():
            config.set_provider_option(provider.genai_name, option, value)
        with_settings(config, session.config)
        return og.Model(config)
    except StageError:
        raise
    except Exception as error:
        raise trouble(error, f"the build does not load on {name}") from error


def sequence(model: Any, prompt: Any, total: int, batch: int) -> Iterator[tuple[str, list[float]]]:
    """Generate one batch of sequences, in slices.

    Yields, milliseconds: first `ttft_ms` and the time to the first token, then `itl_ms` and those between tokens, for
    each further slice.
    """
    import onnxruntime_genai as og

    parameters = og.GeneratorParams(model)
    # What a model's own settings may say besides: it is neither scored nor kept so.
    plain = {"num_beams": 1, "num_return_sequences": 1, "repetition_penalty": 1.0, "no_repeat_ngram_size": 0}
    parameters.set_search_options(max_length=total, min_length=total, batch_size=batch, do_sample=False, **plain)
    generator = og.Generator(model, parameters)
    clock = time.perf_counter
    started = clock()
    generator.append_tokens(prompt)
    generator.generate_next_token()
    yield "ttft_ms", [round((clock() - started) * 1e3, 4)]
    while not generator.is_done():
        gaps: list[float] = []
        last = clock()
        while len(gaps) < SLICE and not generator.is_done():
            generator.generate_next_token()
            now = clock()
            gaps.append(round((now - last) * 1e3, 4))
            last = now
        yield "itl_ms", gaps


class _Rounds:
    """Rounds of sequences, one of each length, and what they measured."""

    def __init__(self, model: Any, job: TimeJob, on_gpu: Callable[[], float | None]) -> None:
        self._model, self._batch, self._on_gpu = model, job.batch, on_gpu
        self._lengths = job.lengths or ((job.prompt_tokens, job.new_tokens),)
        self._prompts = _prompts(job.model_dir, job.batch, max(prompt for prompt, _ in self._lengths))
        self.samples: dict[str, list[float]] = {"ttft_ms": [], "itl_ms": []}
        self.took: list[float] = []
        """Seconds of each sequence."""
        self.held: list[float] = []
        """The memory on GPUs after each sequence, 10^6 bytes, as far as it is known."""

    def slices(self) -> Iterator[dict[str, list[float]]]:
        """Generate a sequence of each length; yield its samples slice by slice."""
        for prompt, new in self._lengths:
            feed = np.ascontiguousarray(self._prompts[0, :prompt] if self._batch == 1 else self._prompts[:, :prompt])
            began = time.perf_counter()
            for name, values in sequence(self._model, feed, prompt + new, self._batch):
                self.samples[name] += values
                yield {name: values}
            self.took.append(time.perf_counter() - began)
            self.held.extend(filter(None, [self._on_gpu()]))

    @property
    def fewest(self) -> bool:
        """Whether there are the two sequences that every process times."""
        return len(self.samples["ttft_ms"]) >= 2

    def warm_up(self) -> float:
        """Generate two sequences whose samples do not count. Returns the seconds of the first."""
        while not self.fewest:
            list(self.slices())
        for values in self.samples.values():
            values.clear()
        return self.took[0]

    def repeat(self, conditions: Conditions) -> None:
        """Repeat rounds until there are enough samples, or `MOST_S` have passed."""
        with conditions:
            began = time.perf_counter()
            while not self.fewest or (
                len(self.samples["itl_ms"]) < ENOUGH_FOR_P90 and time.perf_counter() - began < MOST_S
            ):
                list(self.slices())

    def in_turns(self, turns: Iterable[None], conditions: Conditions) -> list[dict[str, list[float]]]:
        """Do one slice whenever `turns` yields; a round follows the other. Returns the samples of each turn."""
        laps = []
        going = self.slices()
        for _ in turns:
            with conditions:
                lap = next(going, None)
                if lap is None:
                    going = self.slices()
                    lap = next(going)
            laps.append(lap)
        return laps


def _prompts(folder: Path, batch: int, longest: int) -> NDArray[np.int32]:
    """Return random tokens [batch, longest], the same for every process.

    Any tokens do: the work does not depend on which. The lowest are left out: they are often special.
    """
    vocabulary = json.loads((folder / "genai_config.json").read_text(encoding="utf-8"))["model"]["vocab_size"]
    return np.random.default_rng(0).integers(vocabulary // 10, vocabulary, size=(batch, longest)).astype(np.int32)


def time_process(job: TimeJob, out: Path, turns: Iterable[None] | None = None) -> Result:
    """Load, warm up and time one model: until there are enough samples, or slice by slice, whenever `turns` yields.

    Result: `load_s`; `warm_up_s`, what the first sequence of this process took, in which shaders are compiled and engines
    built; `ttft_ms` and `itl_ms`, raw samples in order; `peak_memory_mb` of this process; `threads` that
    ONNX Runtime shares an operator among, counted (None off the CPU); `gpu_memory_mb`, the most after any sequence
    (None off NVIDIA's GPUs); `conditions`: what else the machine did; `laps`, with `turns`: the `ttft_ms` or `itl_ms` of each.
    `out` stays empty.
    """
    del out
    if "torch" in sys.modules:
        raise AssertionError("a timing process must not hold torch")
    import onnxruntime_genai  # noqa: F401 - it starts threads of its own, which are not the model's

    on_gpu = gpu_memory() if job.provider in NVIDIA else lambda: None
    process = psutil.Process()
    others = process.num_threads()
    started = time.perf_counter()
    model = load(job.model_dir, job.provider, job.session, job.device_index, job.engines_dir)
    load_s = time.perf_counter() - started
    threads = process.num_threads() - others + 1 if job.provider == "cpu" else None
    rounds = _Rounds(model, job, on_gpu)
    laps: Result = {}
    try:
        warm_up_s = rounds.warm_up()
        conditions = Conditions()
        if turns is None:
            rounds.repeat(conditions)
        else:
            laps["laps"] = rounds.in_turns(turns, conditions)
    except Exception as error:
        raise trouble(error, f"the build does not run on {job.provider}") from error
    return {
        "load_s": load_s,
        "warm_up_s": warm_up_s,
        **rounds.samples,
        "peak_memory_mb": peak_memory_bytes() / 1e6,
        "threads": threads,
        "gpu_memory_mb": max(rounds.held, default=None),
        "conditions": conditions.so_far(),
        **laps,
    }
