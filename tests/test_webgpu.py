"""The provider webgpu as a plugin, really run: without a GPU through SwiftShader, Chromium's software driver for Vulkan.

SwiftShader has no 16-bit floats, and computes something else on texts of 32 tokens and more: both must be found out before
anything is trained, so it serves as a device with faults as well.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime as ort
import pytest
import yaml
from conftest import Do, tone_items

from autotune.candidate import Recipe
from autotune.errors import Exit
from autotune.pipeline.on_provider import left_to_cpu
from autotune.providers import PROVIDERS
from autotune.results.folder import read_results
from autotune.stages.jobs import BuildJob
from autotune.stages.plugins import open_session
from autotune.stages.preparation_jobs import TinyJob
from autotune.stages.provider_share import RECORDED, share_of
from autotune.sweepfile.schema import Target

STUB = Path(__file__).with_name("stub_provider.c")
LENGTH = 28
"""Tokens of a text at most: fewer than those from which SwiftShader computes something else."""


@dataclass
class Place:
    """A folder with data and a cache of its own, and the environment in which webgpu runs."""

    folder: Path
    model: Path
    environment: dict[str, str]

    def write(self, name: str, **changes: Any) -> Path:
        sweep = {
            "name": name,
            "model": str(self.model),
            "data": {
                "train": "train.jsonl", "validation": "validation.jsonl", "prompt": "{prompt}", "completion": "{completion}",
            },
            "train": {"max_length": LENGTH},
            "target": {
                "provider": "webgpu",
                "workload": {"prompt_tokens": 4, "new_tokens": 3},
                "timing": {"processes": 2, "most": 2, "repeats": 0},
            },
            "space": {
                "lora": {"r": 2, "learning_rate": 1e-2, "steps": 2, "batch_size": 4},
                "build": [{"precision": ["fp16", "int4"]}],
            },
            "objectives": {"accuracy": "maximize", "size_mb": "minimize"},
            "strategy": "grid",
        }  # fmt: skip
        file = self.folder / f"{name}.yaml"
        file.write_text(yaml.safe_dump(sweep | changes), encoding="utf-8")
        return file

    def begin(self, *arguments: object, **more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "autotune", *map(str, arguments)], env=self.environment | more, text=True,
            encoding="utf-8", stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def run(self, *arguments: object, **more: str) -> tuple[int, str, str]:
        process = self.begin(*arguments, **more)
        out, err = process.communicate()
        assert "Traceback" not in err
        return process.returncode, out, err


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path, swiftshader: dict[str, str]) -> Place:
    folder = tmp_path_factory.mktemp("webgpu")
    for split, count in (("train", 8), ("validation", 4)):
        items = [{name: item[name] for name in ("prompt", "completion")} for item in tone_items(2 * count)[::2]]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")
    own = {"AUTOTUNE_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    return Place(folder, tiny_llama, {**os.environ, **swiftshader, **own})


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.1)


# --- A sweep, killed and gone on with -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def swept(place: Place) -> tuple[Path, int, str, str]:
    """Begin a sweep, kill it when its first row is there, and run the same command again."""
    file, out = place.write("sweep"), place.folder / "sweep"
    process = place.begin("run", file, "--out", out)
    table = out / "results.csv"
    wait_for(lambda: table.exists() and table.read_bytes().count(b"\n") > 1, process)
    process.kill()
    process.communicate()
    return out, *place.run("run", file, "--out", out)


@pytest.mark.slow
@pytest.mark.marathon
@pytest.mark.timeout(3600)
def test_a_sweep_on_webgpu_runs_to_its_end_and_goes_on_after_a_kill(swept: tuple[Path, int, str, str]) -> None:
    out, code, _, said = swept
    assert code == Exit.OK, said
    rows = {row["trial"]: row for row in read_results(out)}
    assert list(rows) == [0, 1]
    assert [rows[0]["build_precision"], rows[1]["build_precision"]] == ["fp32", "int4"]
    for row in rows.values():
        assert row["status"] == "ok"
        assert row["provider_share"] == 1
        assert row["greedy_agreement"] > 0
        # Shaders are compiled in the first sequence, and no latency holds that.
        assert row["warm_up_s"] * 1e3 > 2 * row["ttft_ms_p50"]
    # The device has no 16-bit floats: what needs them was left out, and the type that runs was chosen.
    assert rows[1]["build_use_webgpu_fp32"] is True
    assert "left out: fp16: on" in said
    assert "requires f16 but the device does not support it" in said


@pytest.mark.slow
@pytest.mark.marathon
@pytest.mark.timeout(3600)
def test_its_winner_loads_where_only_genai_and_the_plugin_are(swept: tuple[Path, int, str, str], place: Place) -> None:
    best = swept[0] / "best"
    about = json.loads((best / "candidate.json").read_text(encoding="utf-8"))
    assert about["provider"] == "webgpu"
    assert "onnxruntime-ep-webgpu" in about["install"]
    only = place.folder / "only"
    only.mkdir()
    for name in ("onnxruntime", "onnxruntime_genai", "onnxruntime_ep_webgpu", "numpy"):
        found = importlib.util.find_spec(name)
        assert found is not None
        assert found.origin is not None
        package = Path(found.origin).parent
        for folder in (package, package.with_name(f"{name}.libs")):
            if folder.exists():
                (only / folder.name).symlink_to(folder, target_is_directory=True)
    done = subprocess.run(
        [sys.executable, "-S", str(best / "load.py"), "Text: 1"], env=place.environment | {"PYTHONPATH": str(only)},
        capture_output=True, text=True, encoding="utf-8", check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Text: 1")


@pytest.mark.slow
@pytest.mark.marathon
@pytest.mark.timeout(3600)
def test_cpu_and_webgpu_are_targets_of_one_sweep(swept: tuple[Path, int, str, str], place: Place) -> None:
    target = place_target(place)
    laptop = target | {"provider": "cpu", "threads": 1, "limits": ["size_mb <= 10"]}
    targets = {"laptop": laptop, "gpu": target | {"limits": ["size_mb <= 0.2"]}}
    file = place.write("both", targets=targets, budget={"trials": 3})
    sweep = yaml.safe_load(file.read_text(encoding="utf-8"))
    del sweep["target"]
    sweep["space"]["build"] = [{"precision": ["fp32", "int4"]}]
    file.write_text(yaml.safe_dump(sweep), encoding="utf-8")
    out = place.folder / "both"
    code, said, err = place.run("run", file, "--out", out)
    assert code == Exit.OK, err
    rows = read_results(out)
    assert [(row.target, row.trial) for row in rows] == [
        ("gpu", 0), ("laptop", 0), ("gpu", 1), ("laptop", 1), ("gpu", 2),
    ]  # fmt: skip
    assert {row.status for row in rows} == {"ok", "over_limit"}  # fp32 is too large for one of the targets
    # One adapter for both: it was trained for the first sweep of this module, and merged once for both targets here.
    assert len({row.adapter for row in rows if row.adapter}) == 1
    assert sum(row.cost_s("train") is not None for row in rows) == 0
    assert sum(row.cost_s("merge") is not None for row in rows) == 1
    assert {row["provider_share"] for row in rows} == {None, 1}
    for name, provider, precision in (("laptop", "cpu", "fp32"), ("gpu", "webgpu", "int4")):
        about = json.loads((out / "best" / name / "candidate.json").read_text(encoding="utf-8"))
        assert (about["provider"], about["settings"]["recipe"]["precision"]) == (provider, precision)
        assert f"Target {name}:" in said
        assert place.run("select", out, "--target", name)[0] == Exit.OK
    assert "every target" in said
    assert place.run("select", out, "--target", "tv")[0] == Exit.USAGE


@pytest.mark.slow
@pytest.mark.marathon
@pytest.mark.timeout(3600)
def test_plan_knows_what_the_device_answered(swept: tuple[Path, int, str, str], place: Place) -> None:
    file = place.write("planned", space={"build": [{"precision": ["fp16", "int4"]}]})
    code, out, _ = place.run("plan", file, "--json")
    plan = json.loads(out)
    assert code == Exit.OK
    assert plan["recipes"] == ["int4 default block_size=32 accuracy_level=4 symmetric=True use_webgpu_fp32=True"]
    assert [item["combination"] for item in plan["left_out"]] == ["fp16"]
    assert any("SwiftShader" in note for note in plan["notes"])
    code, out, _ = place.run("plan", file, "--json", ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER="0")
    plan = json.loads(out)
    assert code == Exit.OK
    assert len(plan["recipes"]) == 2
    assert any("offers no device" in note and "what is known" in note for note in plan["notes"])


# --- Trouble --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            {"ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER": "0"},
            "provider webgpu offers no device on this machine: it needs a GPU",
        ),
        ({"VK_DRIVER_FILES": "/nowhere"}, "no session can be opened on webgpu: Failed to get a WebGPU adapter"),
    ],
)
def test_a_device_that_is_missing_is_the_machines_trouble(place: Place, more: dict[str, str], said: str) -> None:
    file = place.write("missing")
    code, _, err = place.run("run", file, "--out", place.folder / "missing", **more)
    assert code == Exit.MACHINE
    assert said in err
    assert "doctor" in err


def test_a_device_that_is_not_there_is_named_with_those_that_are(place: Place) -> None:
    file = place.write("second")
    code, _, err = place.run("run", file, "--out", place.folder / "second", "--set", "target.device=1")
    assert code == Exit.MACHINE
    assert "provider webgpu has no device 1: it offers 1, counted from 0 (it offers SwiftShader" in err


@pytest.mark.slow
@pytest.mark.marathon
@pytest.mark.timeout(3600)
def test_a_device_that_computes_something_else_is_refused_before_anything_is_trained(place: Place) -> None:
    file = place.write("long", train={"max_length": 64}, space={"build": [{"precision": "fp32"}]})
    code, _, err = place.run("run", file, "--out", place.folder / "long")
    assert code == Exit.MACHINE
    assert "no recipe of this sweep runs on the target's device" in err
    assert "it computes the same up to 31 tokens" in err


@pytest.fixture(scope="module")
def stub(place: Place) -> tuple[Path, Path, dict[str, str]]:
    """A library that has webgpu's devices and fails as a file says: the library, that file, and its environment."""
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("no gcc to compile a stub of a provider with")
    import onnxruntime_ep_webgpu

    library, does = place.folder / "libstub.so", place.folder / "does"
    subprocess.run([compiler, "-shared", "-fPIC", "-w", "-o", str(library), str(STUB), "-ldl"], check=True)
    return library, does, {"REAL_PROVIDER": onnxruntime_ep_webgpu.get_library_path(), "STUB_DOES": str(does)}


TWO_RECIPES = {"build": [{"precision": ["int4", "int8"]}]}
NAMED = {"target": {"provider": "WebGpuExecutionProvider"}, "space": {"build": [{"precision": "int4"}]}}


LIMITS = {"devices": 15, "capability": 25}
"""Seconds after which a device that is asked counts as hung, in place of minutes."""


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("crash at load", "fails when it is loaded: the process crashed (SIGABRT)"),
        ("crash", "fails when it is loaded: the process crashed (SIGABRT)"),
        ("gone", "the device is lost"),
        pytest.param("hang at load", "fails when it is loaded: ran past 15 s and was stopped", marks=pytest.mark.slow),
        pytest.param("hang", "fails when it is loaded: ran past 15 s and was stopped", marks=pytest.mark.slow),
        pytest.param("crash at run", "no recipe of this sweep runs on the target's device", marks=pytest.mark.slow),
        pytest.param("hang at run", "hangs when it computes on", marks=[pytest.mark.slow, pytest.mark.marathon]),
    ],
)
def test_a_library_that_fails_costs_one_message(
    place: Place, stub: tuple[Path, Path, dict[str, str]], what: str, said: str
) -> None:
    library, does, environment = stub
    does.write_text(what, encoding="utf-8")
    hangs = {"workers": {"time_limit_s": LIMITS}} if "hang" in what else {}
    file = place.write("stub", **NAMED, **hangs)
    named = f"WebGpuExecutionProvider={library}"
    arguments = ("run", file, "--out", place.folder / "stub", "--provider-library", named)
    code, _, err = place.run(*arguments, **environment)
    assert code == Exit.MACHINE
    assert said in err
    # Without the flag the same sweep loads nothing.
    code, _, err = place.run("run", file, "--out", place.folder / "stub", **environment)
    assert code == Exit.USAGE
    assert "--provider-library WebGpuExecutionProvider=PATH" in err


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.marathon
def test_a_device_that_goes_in_the_middle_costs_rows_that_the_same_command_makes_later(
    place: Place, stub: tuple[Path, Path, dict[str, str]]
) -> None:
    library, does, environment = stub
    does.write_text("", encoding="utf-8")
    target = place_target(place) | {"provider": "WebGpuExecutionProvider"}
    file = place.write("middle", target=target, space=TWO_RECIPES)
    out = place.folder / "middle"
    arguments = ("run", file, "--out", out, "--provider-library", f"WebGpuExecutionProvider={library}")
    process = place.begin(*arguments, **environment)
    table = out / "results.csv"
    wait_for(lambda: table.exists() and table.read_bytes().count(b"\n") > 1, process)
    does.write_text("gone", encoding="utf-8")
    _, err = process.communicate()
    assert process.returncode == Exit.NO_RESULT, err
    assert "Traceback" not in err
    rows = read_results(out)
    assert [row["status"] for row in rows] == ["ok", "lost", "lost"]
    assert all("the device is lost" in row["error"] for row in rows[1:])
    does.write_text("", encoding="utf-8")
    code, _, err = place.run(*arguments, **environment)
    assert code == Exit.OK, err
    assert [row["status"] for row in read_results(out)] == ["ok", "ok", "ok"]


@pytest.mark.slow
@pytest.mark.marathon
@pytest.mark.timeout(3600)
def test_a_device_that_goes_in_the_middle_leaves_the_other_target_alone(
    place: Place, stub: tuple[Path, Path, dict[str, str]]
) -> None:
    library, does, environment = stub
    does.write_text("", encoding="utf-8")
    target = place_target(place)
    targets = {"gpu": target | {"provider": "WebGpuExecutionProvider"}, "laptop": target | {"provider": "cpu"}}
    file = place.write("half", targets=targets, space=TWO_RECIPES)
    sweep = yaml.safe_load(file.read_text(encoding="utf-8"))
    del sweep["target"]
    file.write_text(yaml.safe_dump(sweep), encoding="utf-8")
    out = place.folder / "half"
    arguments = ("run", file, "--out", out, "--provider-library", f"WebGpuExecutionProvider={library}")
    process = place.begin(*arguments, **environment)
    table = out / "results.csv"
    wait_for(
        lambda: table.exists() and table.read_bytes().count(b"\n") > 1, process
    )  # that of the gpu's untouched model
    does.write_text("gone", encoding="utf-8")
    _, err = process.communicate()
    assert "Traceback" not in err
    assert process.returncode == Exit.NO_RESULT, err  # what the gpu alone would have
    assert "target gpu: " in err
    assert "its candidates are measured when the same command is run again" in err
    rows = read_results(out)
    assert [row["status"] for row in rows if row.target == "laptop"] == ["ok"] * 3
    assert [row["status"] for row in rows if row.target == "gpu"] == ["ok", "lost"]
    assert (out / "best" / "laptop" / "onnx").is_dir()
    does.write_text("", encoding="utf-8")
    code, _, err = place.run(*arguments, **environment)
    assert code == Exit.OK, err
    rows = read_results(out)
    assert [row["status"] for row in rows] == ["ok"] * 6
    assert (out / "best" / "gpu" / "onnx").is_dir()


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.marathon
@pytest.mark.parametrize(
    ("what", "status", "said"),
    [
        ("crash at run", "failed", "the process crashed (SIGABRT)"),
        ("hang at run", "timeout", "ran past 30 s and was stopped"),
    ],
)
def test_a_device_that_begins_to_crash_or_hang_costs_rows_and_nothing_that_was_done(
    what: str, status: str, said: str, place: Place, stub: tuple[Path, Path, dict[str, str]]
) -> None:
    library, does, environment = stub
    does.write_text("", encoding="utf-8")
    name = what.replace(" ", "-")
    target = place_target(place) | {"provider": "WebGpuExecutionProvider"}
    # The item's prompt is another one, so that nothing of the other sweeps is in the cache.
    data = yaml.safe_load(place.write("any").read_text(encoding="utf-8"))["data"] | {"prompt": f"{name}: {{prompt}}"}
    space = {"build": [{"precision": ["int4", "int8"]}]}
    file = place.write(name, target=target, space=space, data=data)
    out = place.folder / name
    arguments = ("run", file, "--out", out, "--provider-library", f"WebGpuExecutionProvider={library}")
    process = place.begin(*arguments, **environment)
    table = out / "results.csv"
    wait_for(lambda: table.exists() and table.read_bytes().count(b"\n") > 1, process)
    process.kill()  # what the device did so far is kept, and so is what it answered
    process.communicate()
    before = read_results(out)
    assert [row["status"] for row in before] == ["ok"]
    does.write_text(what, encoding="utf-8")
    limits = [f"--set=workers.time_limit_s.{stage}=30" for stage in ("check", "score", "time")]
    code, _, err = place.run(*arguments, *(limits if "hang" in what else ()), **environment)
    assert code == Exit.NO_RESULT, err
    rows = read_results(out)
    assert rows[0] == before[0]
    assert [row["status"] for row in rows[1:]] == [status, status]
    assert all(said in row["error"] for row in rows[1:]), [row["error"] for row in rows]


def place_target(place: Place) -> dict[str, Any]:
    """Return the target of the place's sweeps."""
    target: dict[str, Any] = yaml.safe_load(place.write("any").read_text(encoding="utf-8"))["target"]
    return target


# --- A provider that leaves some of the work to the CPU -------------------------------------------------------------


def test_a_graph_with_an_operator_that_webgpu_does_not_take_shows_its_share(
    do: Do, monkeypatch: pytest.MonkeyPatch, swiftshader: dict[str, str]
) -> None:
    for name, value in swiftshader.items():
        monkeypatch.setenv(name, value)
    source, _ = do(TinyJob(architecture="GptOssForCausalLM"))
    recipe = Recipe(precision="fp32")
    folder, _ = do(BuildJob(source="s", recipe=recipe, provider="webgpu", source_dir=source))
    options = ort.SessionOptions()
    options.add_session_config_entry(RECORDED, "1")
    session = open_session(str(folder / "model.onnx"), options, "webgpu")
    share = share_of(session, PROVIDERS["webgpu"].runtime_name)
    assert share.left == {"MoE": 2}
    plain = share.plain()
    assert plain["provider_share"] == pytest.approx(share.taken / (share.taken + 2))
    said = left_to_cpu(plain, Target(provider="webgpu"))
    assert said is not None
    assert "webgpu takes 82% of the nodes" in said
    assert "MoE (2)" in said
    assert left_to_cpu(plain, Target(provider="webgpu", min_share=0.8)) is None
    assert left_to_cpu({"provider_share": None}, Target(provider="webgpu")) is None
