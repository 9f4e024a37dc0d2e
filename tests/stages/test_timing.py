"""Timing in fresh processes: what is sampled, what a process holds, and what cannot be timed. Never how fast."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import Do

from autotune.analysis.latency import laps_of
from autotune.candidate import Recipe, Session
from autotune.errors import StageError
from autotune.execution import local
from autotune.execution.local import LocalEngine
from autotune.providers import PROVIDERS
from autotune.stages import timing
from autotune.stages.jobs import BuildJob, TimeJob, TurnsJob
from autotune.stages.protocol import Result
from autotune.stages.timing_conditions import Conditions

BLOCKS = {"algorithm": "default", "block_size": 32, "accuracy_level": 4, "symmetric": True}
FP32, INT8, INT4 = Recipe(precision="fp32"), Recipe(precision="int8", **BLOCKS), Recipe(precision="int4", **BLOCKS)


def job(folder: Path, new_tokens: int = 9, **changes: Any) -> TimeJob:
    return TimeJob(
        graph="g", provider="cpu", prompt_tokens=8, new_tokens=new_tokens, machine="m", model_dir=folder, **changes
    )


def fresh(timed: TimeJob, log: Path) -> Result:
    with LocalEngine() as engine:
        return engine.run_fresh(timed, log)[0]


@pytest.mark.parametrize("recipe", [FP32, INT8, INT4], ids=lambda recipe: recipe.precision)
def test_a_process_gives_enough_samples(built: Do, tiny_llama: Path, tmp_path: Path, recipe: Recipe) -> None:
    folder, _ = built(recipe, tiny_llama)
    found = fresh(job(folder), tmp_path / "log")
    sequences = len(found["ttft_ms"])
    assert sequences == 8  # 64 gaps, 8 between 9 tokens
    assert len(found["itl_ms"]) == 8 * sequences
    assert all(sample > 0 for sample in (*found["ttft_ms"], *found["itl_ms"], found["load_s"]))


def test_two_tokens_and_two_sequences_at_once_are_the_least(built: Do, tiny_llama: Path, tmp_path: Path) -> None:
    folder, _ = built(INT4, tiny_llama)
    found = fresh(job(folder, new_tokens=2, batch=2, threads=1), tmp_path / "log")
    assert len(found["itl_ms"]) == len(found["ttft_ms"]) == 64


def test_its_memory_is_its_own_and_not_that_of_who_started_it(built: Do, tiny_llama: Path, tmp_path: Path) -> None:
    import torch

    held = torch.ones(200_000_000 // 4)  # this process is large, and so was its child before it became another program
    assert psutil.Process().memory_info().rss > 500e6
    found = fresh(job(built(INT4, tiny_llama)[0]), tmp_path / "log")
    assert 20 < found["peak_memory_mb"] < 400
    del held


def test_a_process_that_holds_torch_is_refused(built: Do, tiny_llama: Path, tmp_path: Path) -> None:
    assert "torch" in sys.modules
    with pytest.raises(AssertionError, match="must not hold torch"):
        timing.time_process(job(built(INT4, tiny_llama)[0]), tmp_path)


def test_threads_are_as_many_as_asked_and_are_counted(built: Do, tiny_llama: Path, tmp_path: Path) -> None:
    folder, _ = built(INT4, tiny_llama)
    assert [fresh(job(folder, threads=n), tmp_path / "log")["threads"] for n in (1, 4)] == [1, 4]


SERVE = """
import sys
from pathlib import Path
from autotune.candidate import Session
from autotune.stages.timing import load
model = load(Path(sys.argv[1]), "cpu", Session.model_validate_json(sys.argv[2]))
"""


@pytest.mark.parametrize(
    ("session", "said"),
    [
        (Session(threads=1), ("thread_pool_size: 1 ", "enable_cpu_mem_arena:1", "enable_mem_pattern:1")),
        (Session(threads=3, arena=False), ("thread_pool_size: 3 ", "enable_cpu_mem_arena:0", "enable_mem_pattern:1")),
        (Session(arena=True, mem_pattern=False), ("enable_cpu_mem_arena:1", "enable_mem_pattern:0")),
    ],
    ids=str,
)
def test_a_session_is_what_onnx_runtime_says_it_was_given(
    built: Do, tiny_llama: Path, tmp_path: Path, session: Session, said: tuple[str, ...]
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(built(INT4, tiny_llama)[0], folder)
    file = folder / "genai_config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    config["model"]["decoder"]["session_options"]["log_severity_level"] = 1  # it writes its options into its log
    file.write_text(json.dumps(config), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", SERVE, str(folder), session.model_dump_json()],
        capture_output=True, text=True, encoding="utf-8", check=True,
    )  # fmt: skip
    line = next(line for line in done.stderr.splitlines() if "Session Options {" in line)
    assert [part for part in said if part not in line] == []


def test_sequences_of_several_lengths_take_turns_in_whole_rounds(built: Do, tiny_llama: Path, tmp_path: Path) -> None:
    lengths = ((8, 3), (30, 2), (5, 6))
    found = fresh(job(built(INT4, tiny_llama)[0], lengths=lengths, batch=2), tmp_path / "log")
    rounds, left = divmod(len(found["ttft_ms"]), len(lengths))
    assert (rounds, left) == (8, 0)  # 8 gaps in a round, and 64 are enough
    assert len(found["itl_ms"]) == rounds * (2 + 1 + 5)


def test_a_cpu_has_no_gpu_memory(built: Do, tiny_llama: Path, tmp_path: Path) -> None:
    assert fresh(job(built(INT4, tiny_llama)[0]), tmp_path / "log")["gpu_memory_mb"] is None


def test_gpu_memory_is_unknown_or_a_number_and_never_an_error() -> None:
    now = timing.gpu_memory()
    assert now() is None or now() >= 0


def test_options_of_the_provider_that_a_model_was_built_for_are_known(do: Do, tiny_llama: Path) -> None:
    for provider in ("cpu", "cuda", "dml", "NvTensorRtRtx", "webgpu"):
        precision = "fp32" if provider == "cpu" else "fp16"
        recipe = INT4 if provider == "webgpu" else Recipe(precision=precision)
        folder, _ = do(BuildJob(source="s", recipe=recipe, provider=provider, source_dir=tiny_llama))
        name = PROVIDERS[provider].genai_name
        assert timing.built_for(folder) == ([name] if name else [])
    folder, _ = do(BuildJob(source="s", recipe=INT4, provider="cuda", source_dir=tiny_llama))
    timing.load(folder, "cpu", Session())


def test_what_does_not_load_or_run_is_unsupported(built: Do, tiny_llama: Path, tmp_path: Path) -> None:
    folder, _ = built(INT4.model_copy(update={"symmetric": False}), tiny_llama)
    empty = tmp_path / "empty"
    empty.mkdir()
    for model, words in ((folder, "does not load on cpu"), (empty, "does not load on cpu")):
        with pytest.raises(StageError, match=words) as caught:
            fresh(job(model), tmp_path / "log")
        assert caught.value.status == "unsupported"
        assert "\n" not in str(caught.value)
    too_long = job(built(INT4, tiny_llama)[0], new_tokens=600)  # the model's context is 512
    with pytest.raises(StageError, match=r"does not run on cpu.*max_length") as caught:
        fresh(too_long, tmp_path / "log")
    assert caught.value.status == "unsupported"
    assert "max_length" in (tmp_path / "log").read_text(encoding="utf-8")


def test_what_else_the_machine_did_is_noted(built: Do, tiny_llama: Path, tmp_path: Path) -> None:
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(psutil.cpu_count() or 1)]
    try:
        conditions = fresh(job(built(FP32, tiny_llama)[0], new_tokens=200), tmp_path / "log")["conditions"]
    finally:
        for process in busy:
            process.kill()
            process.wait()
    assert set(conditions) <= {"load_avg", "foreign_cpu", "cpu_mhz"}
    assert conditions["load_avg"] >= 0
    assert 0.2 < conditions["foreign_cpu"] <= (psutil.cpu_count() or 1) + 0.5


def test_a_busy_core_of_ones_own_is_not_foreign() -> None:
    conditions = Conditions()
    with conditions:
        end = time.perf_counter() + 0.3
        while time.perf_counter() < end:
            pass
    others = psutil.cpu_count() or 1
    assert 0 <= conditions.so_far()["foreign_cpu"] <= others


def test_models_that_take_turns_measure_laps_and_nobody_elses_work(
    built: Do, tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "MOST_S", math.inf)  # a round has all its turns, however slow the machine is
    jobs = [job(built(recipe, tiny_llama)[0], new_tokens=33) for recipe in (INT4, FP32, INT4)]
    with LocalEngine() as engine:
        rounds, _ = engine.time_in_turns(TurnsJob(graphs=tuple(jobs), processes=2, most=2), tmp_path / "log")
    assert [len(results) for results in rounds] == [3, 3]
    for result in (result for results in rounds for result in results):
        slices = [("ttft_ms", 1), *[("itl_ms", 3)] * 10, ("itl_ms", 2)]
        assert [(name, len(ms)) for lap in result["laps"] for name, ms in lap.items()] == slices * 8
        for name in ("ttft_ms", "itl_ms"):
            assert [ms for lap in laps_of(result, name) for ms in lap] == result[name]
        assert result["conditions"]["load_avg"] >= 0
