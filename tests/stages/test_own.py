"""A user's own stages: read from a recipe, cached by their source, called with their options, verified like any build."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import yaml
from conftest import TONES, Do

from autotune.candidate import Candidate, Recipe
from autotune.cli import main
from autotune.errors import Problem, StageError, UsageError
from autotune.providers import PROVIDERS
from autotune.results.folder import read_results
from autotune.space.own_stages import OWN_STAGES, read_stage, spell_stage, stage_choices
from autotune.space.recipes import parse_recipes
from autotune.stages.check_build import check
from autotune.stages.jobs import BuildJob, CheckJob, OwnBuildJob
from autotune.stages.preparation_jobs import OwnStageJob
from autotune.sweepfile.resolve import parse_sweep
from autotune.usercode import STAGE, Code, find_function

SOURCE = '''
"""Stages for tests."""
import json, shutil
from pathlib import Path

import numpy as np


def copy(source, out, note="plain"):
    shutil.copytree(source, out, dirs_exist_ok=True)
    (out / "note.txt").write_text(str(note), encoding="utf-8")


def scale(source: Path, out: Path, *, factor: float = 1.0, layer: int = 0) -> None:
    """Scale the weights of one layer of a model of transformers."""
    from safetensors.numpy import load_file, save_file

    shutil.copytree(source, out, dirs_exist_ok=True)
    tensors = load_file(out / "model.safetensors")
    name = f"model.layers.{layer}.mlp.down_proj.weight"
    tensors[name] = (tensors[name] * np.float32(factor)).astype(tensors[name].dtype)
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})


def ruin(source, out):
    import onnx
    from onnx import numpy_helper

    shutil.copytree(source, out, dirs_exist_ok=True)
    model = onnx.load(str(out / "model.onnx"))
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.ndim == 2 and array.dtype == np.float32:
            noise = np.random.default_rng(0).normal(size=array.shape).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(noise * 10, tensor.name))
    for file in out.glob("model.onnx*"):
        file.unlink()
    onnx.save(model, str(out / "model.onnx"))


def nothing(source, out):
    pass


def fails(source, out):
    raise ValueError("no such layer")


def dirty(source, out):
    for file in source.iterdir():
        file.rename(out / file.name)


def one(source):
    pass
'''
FP32 = "fp32"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a module of stages whose name is its own."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / f"mine_{tmp_path.name}.py").write_text(SOURCE, encoding="utf-8")
    return tmp_path


@pytest.fixture
def make(do: Do, place: Path, tiny_llama: Path) -> Callable[..., tuple[Path, dict[str, Any]]]:
    """Build the tiny model with stages of the module: `make(graph="copy note=x")`."""

    def build(model: str = "", graph: str = "", precision: str = FP32) -> tuple[Path, dict[str, Any]]:
        return do(own_job(place, tiny_llama, model, graph, precision))

    return build


def own_job(place: Path, source: Path, model: str = "", graph: str = "", precision: str = FP32) -> OwnBuildJob:
    module = f"mine_{place.name}"
    given: dict[str, Any] = {"code_root": place}
    texts = {}
    for kind, text in (("model", model), ("graph", graph)):
        if text:
            texts[f"{kind}_stage"] = f"{module}:{text}"
            code: Code = find_function(f"{module}:{text.split()[0]}", place, STAGE)
            given |= {f"{kind}_code": code.digest, f"{kind}_file": code.file}
    more = (
        {} if precision == FP32 else {"algorithm": "default", "block_size": 32, "accuracy_level": 4, "symmetric": True}
    )
    recipe = Recipe(precision=precision, **more, **texts)
    return OwnBuildJob(source="s", recipe=recipe, provider="cpu", source_dir=source, **given)


# --- In a sweep file -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        ("m:f", ["m:f"]),
        ("m.n:f  share=0.1 layers=2", ["m.n:f layers=2 share=0.1"]),
        ({"function": "m:f", "options": {"b": [1, 2], "a": "x"}}, ["m:f a=x b=1", "m:f a=x b=2"]),
        ({"function": "m:f", "options": {"a": True}}, ["m:f a=1"]),
        (["m:f", {"function": "m:g"}, "m:f"], ["m:f", "m:g"]),
        ({"function": "m:f", "options": {}}, ["m:f"]),
    ],
)
def test_a_stage_has_one_spelling(raw: Any, found: list[str]) -> None:
    problems: list[Problem] = []
    assert list(stage_choices(raw, "k", problems)) == found
    assert problems == []
    for text in found:
        stage = read_stage(text)
        assert spell_stage(stage.function, stage.options) == (text, "")
        assert stage_choices(text, "k", problems) == (text,)


@pytest.mark.parametrize(
    "raw",
    ["f", "m:f x", "m:", 3, None, {}, {"options": {}}, {"function": "m:f", "option": {}}, {"function": 1},
     {"function": "m:f", "options": {"a b": 1}}, {"function": "m:f", "options": {"a": "x y"}},
     {"function": "m:f", "options": {"a": {}}}, {"function": "m:f", "options": [1]}, {"function": "m:f", "options": {1: 1}}],
)  # fmt: skip
def test_what_names_no_stage_is_refused(raw: Any) -> None:
    problems: list[Problem] = []
    assert stage_choices(raw, "space.build[0].graph_stage", problems) == ()
    assert all(problem.remedy for problem in problems)
    assert problems


def test_options_multiply_to_recipes_that_rows_hold() -> None:
    problems: list[Problem] = []
    raw = [
        {"precision": "fp32", "graph_stage": {"function": "m:f", "options": {"share": [0.1, 0.2]}}},
        {"precision": "fp32"},
    ]
    recipes, _ = parse_recipes(raw, PROVIDERS["cpu"], None, problems)
    assert problems == []
    assert [recipe.graph_stage for recipe in recipes] == ["m:f share=0.1", "m:f share=0.2", None]
    assert len({Candidate(recipe=recipe).id for recipe in recipes}) == 3
    for recipe in recipes:
        cells = {name: str(value) for name, value in Candidate(recipe=recipe).columns().items()}
        assert Candidate.from_columns(cells).recipe == recipe
        again, _ = parse_recipes(recipe.model_dump(exclude_none=True), PROVIDERS["cpu"], None, problems)
        assert again == (recipe,)


@pytest.mark.parametrize(
    ("function", "said"),
    [("nowhere:f", "no module nowhere"), ("{}:missing", "defines no function"), ("{}:one", "must take")],
)
def test_a_stage_that_is_not_there_is_refused_before_anything_runs(place: Path, function: str, said: str) -> None:
    name = function.format(f"mine_{place.name}")
    data = {"model": "smollm2-135m-instruct", "data": {"train": "x.jsonl", "prompt": "{a}", "completion": "{b}"},
            "space": {"build": {"precision": "fp32", "graph_stage": name}}}  # fmt: skip
    with pytest.raises(UsageError) as error:
        parse_sweep(data, root=place)
    assert said in str(error.value)
    assert "space.build" in str(error.value)


# --- Done ----------------------------------------------------------------------------------------------------------


def test_a_stage_behind_the_build_is_given_the_folder_and_its_options(make: Any, place: Path) -> None:
    folder, result = make(graph="copy note=7")
    assert (folder / "note.txt").read_text(encoding="utf-8") == "7"
    assert result["size_mb"] > 0
    assert result["signature"] == make(graph="copy note=8")[1]["signature"]


def test_a_stage_before_the_build_changes_the_model_and_not_its_source(make: Any, tiny_llama: Path) -> None:
    before = (tiny_llama / "model.safetensors").read_bytes()
    plain = make(graph="copy")[0]
    _, result = make(model="scale factor=0.5 layer=1", precision="int4")
    assert result["bits"] == {"4": 8} or sum(result["bits"].values()) > 0
    scaled = make(model="scale factor=0.5")[0]
    weights = [
        {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(str(one / "model.onnx")).graph.initializer}
        for one in (plain, scaled)
    ]
    name = next(n for n in weights[0] if "layers.0" in n and "down_proj" in n)
    assert weights[1][name] == pytest.approx(weights[0][name] * 0.5)
    assert (tiny_llama / "model.safetensors").read_bytes() == before
    make(model="dirty")
    assert (tiny_llama / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("stage", "said"),
    [
        ({"graph": "nothing"}, "wrote no genai_config.json"),
        ({"model": "nothing"}, "wrote no config.json"),
        ({"graph": "fails"}, "raised ValueError: no such layer"),
        ({"graph": "copy other=1"}, "does not take other"),
    ],
)
def test_a_stage_that_fails_costs_its_candidate(make: Any, stage: dict[str, str], said: str) -> None:
    with pytest.raises(StageError, match=said) as error:
        make(**stage)
    assert error.value.status == "failed"


def test_options_are_tried_before_anything_is_trained(do: Do, place: Path) -> None:
    module = f"mine_{place.name}"
    code = find_function(f"{module}:scale", place, STAGE)
    do(OwnStageJob(text=f"{module}:scale factor=2", code=code.digest, file=code.file, root=place))
    with pytest.raises(StageError, match="does not take size"):
        do(OwnStageJob(text=f"{module}:scale size=2", code=code.digest, file=code.file, root=place))


def test_a_build_is_found_again_by_its_source_and_its_options(place: Path, tiny_llama: Path) -> None:
    one = own_job(place, tiny_llama, graph="copy note=1")
    assert one.key == own_job(place, tiny_llama, graph="copy note=1").key
    assert one.key != own_job(place, tiny_llama, graph="copy note=2").key
    (place / f"mine_{place.name}.py").write_text(SOURCE + "\n# changed\n", encoding="utf-8")
    assert one.key != own_job(place, tiny_llama, graph="copy note=1").key
    plain = {"source": "s", "recipe": Recipe(precision="fp32"), "provider": "cpu"}
    assert BuildJob(**plain).key == OwnBuildJob(**plain).key, "builds without stages keep their keys"


def test_what_a_stage_made_is_compared_with_the_model(
    make: Any, do: Do, place: Path, tiny_llama: Path, items_file: Path
) -> None:
    def trouble(**stage: str) -> str | None:
        folder, _ = make(**stage)
        recipe = own_job(place, tiny_llama, **stage).recipe
        job = CheckJob(
            source="s", provider="cpu", recipe=recipe, data="d", max_length=64, model_dir=folder, source_dir=tiny_llama,
            data_file=items_file,
        )  # fmt: skip
        found: str | None = check(job, folder)["trouble"]
        return found

    assert trouble(graph="copy") is None
    assert trouble(model="scale factor=0.9") is None
    assert "logits are not PyTorch's" in (trouble(graph="ruin") or "")


@pytest.mark.slow
def test_a_sweep_searches_a_stage(place: Path, tiny_llama: Path, capfd: pytest.CaptureFixture[str]) -> None:
    rows = [{"text": f"{n}, I felt {TONES[n % 4]} today", "tone": TONES[n % 4]} for n in range(40)]
    (place / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    module = f"mine_{place.name}"
    sweep = {
        "model": str(tiny_llama),
        "data": {"train": "rows.jsonl", "holdout": 0.4, "prompt": "Text: {text}\nTone:", "completion": " {tone}"},
        "train": {"max_length": 64},
        "target": {"threads": 1, "workload": {"prompt_tokens": 4, "new_tokens": 5},
                   "timing": {"processes": 2, "most": 2, "repeats": 0}},
        "space": {"build": [
            {"precision": "fp32", "model_stage": {"function": f"{module}:scale", "options": {"factor": [0.5, 0.9]}}},
            {"precision": "fp32", "graph_stage": f"{module}:copy"},
            {"precision": "fp32", "graph_stage": f"{module}:fails"},
        ]},
        "strategy": "grid",
    }  # fmt: skip
    (place / "sweep.yaml").write_text(yaml.safe_dump(sweep), encoding="utf-8")
    code = main(["run", str(place / "sweep.yaml"), "--out", str(place / "out")])
    err = capfd.readouterr().err
    assert code == 0, err
    found = {
        str(row["build_model_stage"] or row["build_graph_stage"]): row
        for row in read_results(place / "out")
        if row["trial"]
    }
    assert {name.split(" ", 1)[-1]: row["status"] for name, row in found.items()} == {
        "factor=0.5": "ok", "factor=0.9": "ok", f"{module}:copy": "ok", f"{module}:fails": "failed",
    }  # fmt: skip
    assert all(row["itl_ms_p50"] and row["accuracy"] is not None for row in found.values() if row["status"] == "ok")
    assert list((place / "out" / "best").rglob("model.onnx"))
    shutil.rmtree(place / "out")


def test_the_parameters_of_own_stages_are_those_of_recipes() -> None:
    assert set(OWN_STAGES) <= set(Recipe.model_fields)
