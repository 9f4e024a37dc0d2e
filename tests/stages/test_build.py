"""Every option of a recipe on the CPU provider: built as asked and read back, or refused in one line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
from conftest import Do
from safetensors import safe_open

from autotune.candidate import Recipe, Session
from autotune.errors import StageError
from autotune.execution.local import LocalEngine
from autotune.providers import PROVIDERS
from autotune.space.own_stages import OWN_STAGES
from autotune.space.parameter_tables import RECIPE
from autotune.space.recipes import ModelShape, parse_recipes
from autotune.stages import build as building
from autotune.stages.graph_nodes import differences, read_back
from autotune.stages.jobs import BuildJob, FinetuneJob, MergeJob, TimeJob
from autotune.stages.timing import load
from benchmarks.accuracy_level import stamp

BLOCKS = {"algorithm": "default", "block_size": 32, "accuracy_level": 4, "symmetric": True}


def int4(**changes: Any) -> Recipe:
    return Recipe(precision="int4", **{**BLOCKS, **changes})


def int8(**changes: Any) -> Recipe:
    return Recipe(precision="int8", **{**BLOCKS, **changes})


def fp32(**changes: Any) -> Recipe:
    return Recipe(precision="fp32", **changes)


K_QUANT = {"algorithm": "k_quant", "symmetric": None}
LAST8, MIXED = "last_matmul:int8", "last_matmul:int8,mixed_layers:int8"
DOWN = "/model/layers.0/mlp/down_proj/MatMul"

# What is read back beside bits, block, level and zero points, which are checked for all.
RUN: list[tuple[Recipe, dict[str, Any]]] = [
    (fp32(), {}),
    (fp32(shared_embeddings=False), {}),
    (fp32(fuse_qkv=False), {}),
    (fp32(fuse_mlp_gate_up=True), {}),
    (fp32(prune_lm_head=True), {"pruned": True}),
    (int8(), {"bits": {"8": 11}}),
    (int8(algorithm="rtn"), {}),
    (int8(**K_QUANT), {"symmetric": False}),
    (int8(block_size=16), {}),
    (int8(block_size=128), {}),
    (int8(accuracy_level=0), {}),
    (int8(accuracy_level=1), {}),
    (int8(symmetric=False), {}),
    (int8(nodes_to_exclude="/lm_head/MatMul"), {"left": ["/lm_head/MatMul"]}),
    (int8(op_types_to_quantize="MatMul"), {}),
    (int8(prune_lm_head=True), {"pruned": True}),
    (int4(), {"bits": {"4": 11}, "left": []}),
    (int4(algorithm="rtn"), {}),
    (int4(**K_QUANT), {"symmetric": False}),
    *((int4(block_size=size), {}) for size in (16, 64, 128, 256)),
    *((int4(accuracy_level=level), {}) for level in (0, 1, 2, 3)),
    (int4(symmetric=False, shared_embeddings=False), {}),
    (int4(symmetric=False, algorithm="rtn"), {}),
    (int4(mixed_precision=LAST8, shared_embeddings=False), {"bits": {"4": 10, "8": 1}}),
    (int4(mixed_precision=LAST8, algorithm="rtn"), {"bits": {"4": 10, "8": 1}}),
    (int4(mixed_precision=MIXED, **K_QUANT), {"bits": {"4": 8, "8": 3}}),
    (int4(nodes_to_exclude=DOWN), {"left": [DOWN]}),
    (int4(nodes_to_exclude=f"{DOWN},/lm_head/MatMul"), {"left": [DOWN, "/lm_head/MatMul"]}),
    (int4(op_types_to_quantize="MatMul/Gather"), {}),
    (int4(use_qdq=True, shared_embeddings=False), {"bits": {}}),
    (int4(shared_embeddings=False), {}),
    (int4(fuse_qkv=False), {"bits": {"4": 15}}),
    (int4(fuse_mlp_gate_up=True), {"bits": {"4": 9}}),
    (int4(prune_lm_head=True), {"pruned": True}),
    (int4(moe_quant_type="int4"), {}),  # no experts in here
    (int4(qmoe_block_size=32), {}),
]

# On a model that ties embedding and head; (status, what the one line says).
REFUSED: list[tuple[Recipe, str, str]] = [
    (int4(use_qdq=True), "unsupported", "only supports QOperator"),
    (int8(op_types_to_quantize="MatMul/Gather"), "failed", "no Gather is quantised"),
    (int4(nodes_to_exclude="/lm_head/MatMull"), "failed", "/lm_head/MatMull is not left unquantised"),
    *(
        (int4(kv_cache_quant_scheme=scheme, kv_cache_rotation=rotation), "unsupported", "kv_cache|KV")
        for scheme in ("int8_per_token", "int4_per_token")
        for rotation in (None, "hadamard")
    ),
]

# Built without a word on a model that ties embedding and head, and no runtime loads it.
BROKEN = [int4(symmetric=False), int4(mixed_precision=LAST8)]


CALIBRATED = [int4(kv_cache_quant_scheme="int8_per_tensor")]  # in test_kv_scales.py


def job(recipe: Recipe, source: Path, provider: str = "cpu") -> BuildJob:
    return BuildJob(source="s", recipe=recipe, provider=provider, source_dir=source)


def test_a_graph_is_the_same_from_whatever_commit_it_was_built(built: Do, tiny_llama: Path, tmp_path: Path) -> None:
    folder, result = built(int4(), tiny_llama)
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    model = onnx.load(str(copy / "model.onnx"), load_external_data=False)
    model.producer_version += "+abcdef0"
    onnx.save(model, str(copy / "model.onnx"))
    assert read_back(copy)["signature"] == result["signature"]
    model.graph.node[0].name += "x"
    onnx.save(model, str(copy / "model.onnx"))
    assert read_back(copy)["signature"] != result["signature"]


def test_every_option_that_means_something_on_the_cpu_is_tried_here() -> None:
    tried = {
        name
        for recipe in [*(one[0] for one in [*RUN, *REFUSED]), *CALIBRATED]
        for name in recipe.model_dump(exclude_none=True)
    }
    options = {name: p for name, p in RECIPE.items() if name not in OWN_STAGES}  # those: tests/stages/test_own.py
    assert tried >= {name for name, p in options.items() if not p.providers or "cpu" in p.providers}


@pytest.mark.parametrize(("recipe", "wanted"), RUN, ids=lambda value: str(value) if isinstance(value, Recipe) else "")
def test_it_builds_what_was_asked_and_it_loads(
    built: Do, tiny_llama: Path, recipe: Recipe, wanted: dict[str, Any]
) -> None:
    folder, result = built(recipe, tiny_llama)
    if recipe.precision == "fp32":
        assert (result["bits"], set(result["floats"])) == ({}, {"fp32"})
    elif not recipe.use_qdq:
        body = recipe.precision.removeprefix("int")
        assert body in result["bits"]
        assert set(result["blocks"]) == {str(recipe.block_size)}
        assert set(result["accuracy_levels"]) == {str(recipe.accuracy_level)}
        if recipe.symmetric is not None:
            assert result["symmetric"] is recipe.symmetric
    assert {name: result[name] for name in wanted} == wanted
    assert result["pruned"] is bool(recipe.prune_lm_head)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert result["size_mb"] == size / 1e6
    assert {"model.onnx", "model.onnx.data", "genai_config.json", "tokenizer.json"} <= {
        p.name for p in folder.iterdir()
    }
    load(folder, "cpu", Session())


@pytest.mark.parametrize(("recipe", "status", "said"), REFUSED, ids=str)
def test_what_cannot_be_built_is_said_in_one_line(
    tiny_llama: Path, tmp_path: Path, recipe: Recipe, status: str, said: str
) -> None:
    with pytest.raises(StageError, match=said) as caught:
        building.build(job(recipe, tiny_llama), tmp_path)
    assert caught.value.status == status
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("recipe", BROKEN, ids=str)
def test_what_builds_and_does_not_load_is_unsupported(built: Do, tiny_llama: Path, recipe: Recipe) -> None:
    folder, _ = built(recipe, tiny_llama)
    with pytest.raises(StageError, match="the build does not load on cpu") as caught:
        load(folder, "cpu", Session())
    assert caught.value.status == "unsupported"


def test_a_model_with_a_head_of_its_own_takes_what_a_tied_one_does_not(built: Do, tiny_qwen2: Path) -> None:
    for recipe in (*BROKEN, int4(use_qdq=True)):
        folder, _ = built(recipe, tiny_qwen2)
        load(folder, "cpu", Session())
    with pytest.raises(StageError, match="shared_embeddings=true requires a model that ties") as caught:
        built(int4(shared_embeddings=True), tiny_qwen2)
    assert caught.value.status == "unsupported"


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_builds_for_the_cpu_and_does_not_run_there(
    built: Do, tiny_llama: Path, tmp_path: Path, precision: str
) -> None:
    folder, result = built(Recipe(precision=precision), tiny_llama)
    assert set(result["floats"]) == {precision}
    timing = TimeJob(graph="g", provider="cpu", prompt_tokens=8, new_tokens=4, machine="m", model_dir=folder)
    with LocalEngine() as engine, pytest.raises(StageError, match=r"does not (load|run) on cpu") as caught:
        engine.run_fresh(timing, tmp_path / "log")
    assert caught.value.status == "unsupported"


def test_building_for_cuda_needs_no_gpu(do: Do, tiny_llama: Path) -> None:
    for precision in ("fp16", "bf16"):
        folder, result = do(job(Recipe(precision=precision), tiny_llama, "cuda"))
        assert set(result["floats"]) == {precision}
        config = json.loads((folder / "genai_config.json").read_text(encoding="utf-8"))
        assert "cuda" in json.dumps(config["model"]["decoder"]["session_options"])


def test_recipes_of_the_space_are_what_the_builder_takes(built: Do, tiny_llama: Path) -> None:
    problems: list[Any] = []
    written = [{"precision": "fp32"}, {"precision": ["int8", "int4"]}, {"precision": "int4", "algorithm": "k_quant"}]
    recipes, left_out = parse_recipes(written, PROVIDERS["cpu"], ModelShape((64, 128), tied=True), problems)
    assert (problems, left_out, len(recipes)) == ([], (), 4)
    for recipe in recipes:
        built(recipe, tiny_llama)


# --- Builds that lie ----------------------------------------------------------------------------------------------


def test_an_option_that_the_builder_ignores_is_found_out(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, recipe, said in (
        ("block_size", int4(block_size=64), "asked for block_size 64, got 32"),
        ("symmetric", int4(symmetric=False), "asked for symmetric False, got True"),
        ("accuracy_level", int4(accuracy_level=1), "asked for accuracy_level 1, got"),
        ("algorithm", int4(**K_QUANT), "asked for k_quant, and no node has the zero points"),
        ("mixed_precision", int4(mixed_precision=MIXED), "and no node has 8 bits"),
        ("nodes_to_exclude", int4(nodes_to_exclude=DOWN), f"{DOWN} is not left unquantised"),
        ("use_qdq", int4(use_qdq=True, shared_embeddings=False), "no DequantizeLinear node"),
        ("prune_lm_head", fp32(prune_lm_head=True), "asked for prune_lm_head True, got False"),
    ):
        misspelt = {**RECIPE, name: replace(RECIPE[name], option="int4_" + name)}
        monkeypatch.setattr(building, "RECIPE", misspelt)
        out = tmp_path / name
        out.mkdir()
        with pytest.raises(StageError, match=said) as caught:
            building.build(job(recipe, tiny_llama), out)
        assert caught.value.status == "failed"


HONEST: dict[str, Any] = {
    "bits": {"4": 11}, "blocks": {"32": 11}, "accuracy_levels": {"4": 11}, "symmetric": True, "left": [],
    "pruned": False, "floats": {"fp32": 8192}, "nodes": {"MatMulNBits": 11}, "signature": "s",
}  # fmt: skip
PLAIN: dict[str, Any] = {**HONEST, "bits": {}, "blocks": {}, "accuracy_levels": {}, "nodes": {"MatMul": 11}}


@pytest.mark.parametrize(
    ("recipe", "built_", "said"),
    [
        (int4(), HONEST, []),
        (int4(), PLAIN, ["no MatMulNBits node has 4 bits", "got none", "accuracy_level"]),
        (int8(), HONEST, ["no MatMulNBits node has 8 bits", "nodes have 4 bits"]),
        (int4(), {**HONEST, "bits": {"4": 10, "8": 1}}, ["nodes have 4, 8 bits"]),
        (int4(mixed_precision=LAST8), {**HONEST, "bits": {"4": 10, "8": 1}}, []),
        (int4(mixed_precision=LAST8), HONEST, ["no node has 8 bits"]),
        (int4(), {**HONEST, "blocks": {"32": 10, "64": 1}}, ["asked for block_size 32, got 32, 64"]),
        (int4(accuracy_level=1), HONEST, ["asked for accuracy_level 1, got 4"]),
        (int4(symmetric=False), HONEST, ["asked for symmetric False, got True"]),
        (int4(**K_QUANT), {**HONEST, "symmetric": False}, []),
        (int4(**K_QUANT), HONEST, ["zero points"]),
        (int4(op_types_to_quantize="MatMul/Gather"), HONEST, ["no Gather is quantised"]),
        (int4(nodes_to_exclude="a,b"), {**HONEST, "left": ["a", "c"]}, ["b is not left unquantised"]),
        (int4(use_qdq=True), {**PLAIN, "nodes": {"DequantizeLinear": 11}}, []),
        (int4(use_qdq=True), HONEST, ["no DequantizeLinear", "11 nodes are MatMulNBits"]),
        (fp32(), PLAIN, []),
        (fp32(), HONEST, ["11 nodes are quantised"]),
        (Recipe(precision="fp16"), PLAIN, ["weights are fp32"]),
        (Recipe(precision="fp16"), {**PLAIN, "floats": {"fp16": 5, "bf16": 1}}, ["weights are bf16"]),
        (fp32(prune_lm_head=True), PLAIN, ["prune_lm_head"]),
        (fp32(), {**PLAIN, "pruned": True}, ["prune_lm_head"]),
    ],
    ids=lambda value: str(value) if isinstance(value, Recipe) else "",
)
def test_differences_between_recipe_and_graph(recipe: Recipe, built_: dict[str, Any], said: list[str]) -> None:
    found = differences(recipe, built_)
    assert len(found) == len(said)
    for sentence, part in zip(found, said, strict=True):
        assert part in sentence


# --- Signatures ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def merged(do: Do, tiny_llama: Path, items_file: Path) -> Callable[..., Path]:
    """Train and merge an adapter on the tiny Llama."""
    from autotune.space.adapters import resolve_lora

    def make(**changes: Any) -> Path:
        lora = resolve_lora({"r": 4, "steps": 3, "batch_size": 4, "max_length": 64, "learning_rate": 1e-2, **changes})
        trained = FinetuneJob(
            base="b", data="d", lora=lora, seed=0, device="cpu", base_dir=tiny_llama, data_file=items_file
        )
        return do(MergeJob(adapter="a", base="b", base_dir=tiny_llama, adapter_dir=do(trained)[0]))[0]

    return make


def test_a_graph_has_one_signature_in_a_recipe_whatever_was_trained(
    built: Do, tiny_llama: Path, merged: Callable[..., Path]
) -> None:
    sources = [tiny_llama, merged(), merged(r=8, dora=True, target_modules="attention")]
    recipes = [fp32(), int8(), int4(), int4(**K_QUANT), int4(**K_QUANT, mixed_precision=MIXED)]
    signatures = [{built(recipe, source)[1]["signature"] for source in sources} for recipe in recipes]
    assert all(len(same) == 1 for same in signatures)
    assert len(set.union(*signatures)) == len(recipes)
    weights = {(built(int4(), source)[0] / "model.onnx.data").read_bytes() for source in sources}
    assert len(weights) == len(sources)


def test_recipes_that_differ_have_different_graphs(built: Do, tiny_llama: Path) -> None:
    # Means nothing on this model, or for this precision: the builder makes the same graph.
    idle = [
        int8(op_types_to_quantize="MatMul"),
        int4(op_types_to_quantize="MatMul/Gather"),
        int4(moe_quant_type="int4"),
        int4(qmoe_block_size=32),
    ]
    # The same operators around other weights: the graphs, and so the latencies, are one.
    alike = [int4(symmetric=False, algorithm="rtn"), int4(**K_QUANT)]
    recipes = [recipe for recipe, _ in RUN if recipe not in [*idle, alike[0]]]
    signatures = [built(recipe, tiny_llama)[1]["signature"] for recipe in recipes]
    assert len(set(signatures)) == len(recipes)
    assert len({built(recipe, tiny_llama)[1]["signature"] for recipe in alike}) == 1
    for recipe in idle:
        plain = int8() if recipe.precision == "int8" else int4()
        assert built(recipe, tiny_llama)[1]["signature"] == built(plain, tiny_llama)[1]["signature"]


def test_building_again_gives_the_same_bytes(do: Do, tiny_llama: Path) -> None:
    for recipe in (int4(), int4(**K_QUANT)):
        first, second = (do(job(recipe, tiny_llama))[0] for _ in range(2))
        for file in first.iterdir():
            assert file.read_bytes() == (second / file.name).read_bytes(), file.name


def test_running_out_of_memory_is_not_the_recipes_fault(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from onnxruntime_genai.models import builder

    def no_room(*_: Any, **__: Any) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried")

    monkeypatch.setattr(builder, "create_model", no_room)
    with pytest.raises(StageError) as caught:
        building.build(job(int4(), tiny_llama), tmp_path)
    assert caught.value.status == "out_of_memory"


def test_levels_can_be_set_by_the_width_of_the_nodes(built: Do, tiny_llama: Path, tmp_path: Path) -> None:
    """As benchmarks.accuracy_level does, to tell what each is worth."""
    folder, result = built(int4(mixed_precision=MIXED, algorithm="rtn"), tiny_llama)
    assert set(result["bits"]) == {"4", "8"}
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    for levels in ({4: 4, 8: 1}, {4: 1, 8: 4}, {4: 0, 8: 0}):
        stamp(copy, levels)
        found = read_back(copy)
        assert found["accuracy_levels"] == {
            str(level): sum(result["bits"][str(bits)] for bits, its in levels.items() if its == level)
            for level in sorted(set(levels.values()))
        }
        load(copy, "cpu", Session())


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("tied", [True, False])
def test_int4_for_tensorrt_rtx_is_what_the_weights_are(
    tiny_llama: Path, tiny_qwen2: Path, tmp_path: Path, symmetric: bool, tied: bool
) -> None:
    """Built without that device: QuantizeLinear and DequantizeLinear of 4 bits, whose numbers are the model's."""
    problems: list[Any] = []
    raw = {"precision": "int4", "symmetric": symmetric}
    (recipe,), _ = parse_recipes(raw, PROVIDERS["NvTensorRtRtx"], ModelShape((), tied=tied), problems)
    source = tiny_llama if tied else tiny_qwen2
    result = building.build(job(recipe, source, "NvTensorRtRtx"), tmp_path)
    assert (result["bits"], result["nodes"]["DequantizeLinear"]) == ({}, result["nodes"]["MatMul"])
    model = onnx.load(str(tmp_path / "model.onnx"))
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    (node,) = [
        one for one in model.graph.node if one.op_type == "DequantizeLinear" and "layers.0/mlp/down_proj" in one.name
    ]
    settings = {one.name: one.i for one in node.attribute}
    numbers, scales, *zeros = (weights[name].astype("float32") for name in node.input if name)
    assert len(zeros) == (not symmetric)
    size, rows = settings["block_size"], numbers.shape[settings["axis"]]
    spread = [part.repeat(size, axis=settings["axis"])[:rows] for part in (scales, *zeros)]
    made = (numbers - (spread[1] if zeros else 0)) * spread[0]
    with safe_open(source / "model.safetensors", "np") as file:
        meant = file.get_tensor("model.layers.0.mlp.down_proj.weight").astype("float32").T
    assert abs(made - meant).mean() < 0.15 * abs(meant).mean()
