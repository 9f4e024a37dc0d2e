"""What tests share: a tiny random model that goes through every stage in seconds, and items to train and score it on."""

from __future__ import annotations

import ctypes.util
import json
import math
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kept_workers
import pytest
import yaml
from hypothesis import HealthCheck, settings

from autotune.candidate import Recipe
from autotune.cli import main
from autotune.execution.worker import OFFLINE, QUIET
from autotune.pipeline import timing_validity
from autotune.stages.inspection_findings import AS_SAVED
from autotune.stages.jobs import BuildJob
from autotune.stages.preparation_jobs import TinyJob
from autotune.stages.protocol import Job, Result, function_of

os.environ.update(QUIET | OFFLINE)
# Threads that wait for one another cost more than the tiny model's work, above all on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# What a property test finds, it finds in every run, and however slow the machine is: no example has a time limit, and the
# examples do not change from run to run. `--hypothesis-profile search` draws others.
HYPOTHESIS = {"deadline": None, "database": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("steady", derandomize=True, **HYPOTHESIS)
settings.register_profile("search", **HYPOTHESIS)
settings.load_profile("steady")

LONG = (
    "test_search_benchmark.py",
    "test_faults.py",
    "test_end_to_end.py",
    "test_own_metrics.py",
    "test_real_model.py",
    "test_security.py",
    "test_troubles.py",
    "test_webgpu.py",
    "test_other_models.py",
)
"""Files that take long: they come first, so that processes side by side end together."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes long."""
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


ICD = Path("/usr/lib/chromium/vk_swiftshader_icd.json")
"""Chromium's software driver for Vulkan, as Debian installs it."""


@pytest.fixture(scope="session")
def swiftshader() -> dict[str, str]:
    """The environment in which the provider webgpu runs without a GPU; skips where it cannot."""
    pytest.importorskip("onnxruntime_ep_webgpu", reason="onnxruntime-ep-webgpu is not installed")
    if not ICD.is_file() or ctypes.util.find_library("vulkan") is None:
        pytest.skip("no software driver for Vulkan: Debian's packages libvulkan1 and chromium bring one")
    return {"VK_DRIVER_FILES": str(ICD), "ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER": "1"}


TONES = ("fear", "joy", "sadness", "surprise")

Do = Callable[..., tuple[Path, Result]]


@pytest.fixture(scope="session", autouse=True)
def cache_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache of every test, and the host's lock: never the user's own."""
    root = tmp_path_factory.mktemp("cache")
    os.environ["AUTOTUNE_CACHE"] = str(root)
    os.environ["XDG_RUNTIME_DIR"] = str(tmp_path_factory.mktemp("runtime"))
    return root


@pytest.fixture(scope="session", autouse=True)
def end_of_kept_workers() -> Iterator[None]:
    """The workers that tests have kept end with the tests."""
    yield
    kept_workers.end_all()


@pytest.fixture(scope="module")
def keeps_workers() -> Iterator[None]:
    """Commands of a module's tests that run in this process pass their workers on: each saves some seconds."""
    with pytest.MonkeyPatch.context() as patch:
        kept_workers.keep(patch)
        yield


@pytest.fixture
def lasting_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Timings of earlier sweeps hold: on a machine that other tests keep busy the pace would be found another after minutes."""
    monkeypatch.setattr(timing_validity, "TRUST_S", math.inf)


@pytest.fixture(scope="session")
def do(tmp_path_factory: pytest.TempPathFactory) -> Do:
    """Do a job in this process: `folder, result = do(job)`."""

    def run(job: Job) -> tuple[Path, Result]:
        out = tmp_path_factory.mktemp(job.stage)
        return out, function_of(job)(job, out)

    return run


@pytest.fixture(scope="session")
def tiny_llama(do: Do) -> Path:
    """A two-layer random Llama that ties embedding and head."""
    return do(TinyJob())[0]


@pytest.fixture(scope="session")
def tiny_qwen2(do: Do) -> Path:
    """A two-layer random Qwen2 with a head of its own."""
    return do(TinyJob(architecture="Qwen2ForCausalLM"))[0]


@pytest.fixture(scope="session")
def write_items(tmp_path_factory: pytest.TempPathFactory) -> Callable[[list[dict[str, Any]]], Path]:
    """Write items as the tuner does for its stages; returns the file."""

    def write(items: list[dict[str, Any]]) -> Path:
        file = tmp_path_factory.mktemp("items") / "items.json"
        file.write_text(json.dumps(items, ensure_ascii=False), encoding="utf-8")
        return file

    return write


def tone_items(count: int) -> list[dict[str, Any]]:
    """Items of several lengths whose tone can be told from a word of the prompt."""
    items = []
    for n in range(count):
        tone = TONES[n % 4]
        text = f"{n} " + "and on it goes " * (n % 3) + f"I felt {tone} today"
        items.append({"id": f"{n:016x}", "prompt": f"Text: {text}\nTone:", "completion": f" {tone}"})
    return items


@pytest.fixture(scope="session")
def items_file(write_items: Callable[[list[dict[str, Any]]], Path]) -> Path:
    """24 items."""
    return write_items(tone_items(24))


@pytest.fixture(scope="session")
def built(do: Do) -> Do:
    """Build a model folder for the CPU provider, once for each recipe: `folder, result = built(recipe, source)`."""
    made: dict[tuple[Recipe, Path], tuple[Path, Result]] = {}

    def build(recipe: Recipe, source: Path) -> tuple[Path, Result]:
        if (recipe, source) not in made:
            job = BuildJob(source=str(source), recipe=recipe, provider="cpu", source_dir=source, tokenizer=AS_SAVED)
            made[recipe, source] = do(job)
        return made[recipe, source]

    return build


@dataclass(frozen=True)
class Ran:
    """What one command did."""

    code: int
    out: str
    err: str


@pytest.fixture
def own_temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this test's temporary folders lie: what tests beside it leave there is no leftover here."""
    place = tmp_path / "temporary"
    place.mkdir()
    for name in ("TMPDIR", "TEMP", "TMP"):
        monkeypatch.setenv(name, str(place))
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    return place


@pytest.fixture
def autotune(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Ran]:
    """Run a command in this process, which keeps its handlers, in a folder of its own."""
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> Ran:
        capfd.readouterr()
        code = main([str(argument) for argument in arguments])
        seen = capfd.readouterr()
        return Ran(code, seen.out, seen.err)

    return run


@dataclass(frozen=True)
class TinySweep:
    """A whole sweep on the tiny model, once for all tests that look at its results and change nothing in them."""

    file: Path
    out: Path


@pytest.fixture(scope="session")
def tiny_sweep(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path, cache_root: Path) -> TinySweep:
    """A LoRA and a QLoRA adapter, each at fp32, int8 and int4, with data and a test split."""
    folder = tmp_path_factory.mktemp("tiny-sweep")
    for split, start, count in (("train", 0, 48), ("validation", 100, 24), ("test", 200, 12)):
        lines = (
            json.dumps({"text": f"{n} I felt {TONES[n % 4]} today", "tone": TONES[n % 4]})
            for n in range(start, start + count)
        )
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    sweep = {
        "name": "tiny", "model": str(tiny_llama),
        "data": {"train": "train.jsonl", "validation": "validation.jsonl", "test": "test.jsonl",
                 "prompt": "Text: {text}\nTone:", "completion": " {tone}"},
        "train": {"max_length": 64},
        "target": {"provider": "cpu", "threads": 1, "workload": {"prompt_tokens": 4, "new_tokens": 5},
                   "timing": {"processes": 2, "most": 2, "repeats": 0}},
        "space": {"lora": {"r": 8, "learning_rate": 3e-2, "steps": 40, "batch_size": 8, "quantized_base": {"choice": ["none", "nf4"]}},
                  "build": [{"precision": "fp32"}, {"precision": "int8"}, {"precision": "int4"}]},
        "strategy": "grid", "budget": {"trials": 6},
    }  # fmt: skip
    file = folder / "sweep.yaml"
    file.write_text(yaml.safe_dump(sweep), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("signal.signal", lambda *_: None)
        patch.setattr("sys.excepthook", sys.excepthook)
        kept_workers.keep(patch)
        assert main(["run", str(file), "--out", str(folder / "out")]) == 0
    return TinySweep(file, folder / "out")
