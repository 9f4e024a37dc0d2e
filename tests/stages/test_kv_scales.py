"""Quantised key-value caches: calibrated on training items, built, loaded by the runtime, and what PyTorch computes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime_genai as og
import pytest
from conftest import Do
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from autotune.candidate import Recipe, Session
from autotune.errors import StageError
from autotune.execution.local import LocalEngine
from autotune.space.adapters import resolve_lora
from autotune.stages.backends import OnnxBackend, Tokens
from autotune.stages.graph_nodes import read_back
from autotune.stages.jobs import BuildJob, CheckJob, FinetuneJob, MergeJob, ScoreJob, TimeJob
from autotune.stages.kv_scales import (
    Captured,
    baseline,
    calibrate,
    calibration_texts,
    capture,
    envelope,
    scales,
    threshold,
)
from autotune.stages.protocol import Result
from autotune.stages.text import encode, load_tokenizer, read_items
from autotune.stages.timing import load

SCHEMES = ("int8_per_tensor", "int8_per_channel", "int4_per_tensor", "int4_per_channel")
INT4 = {"algorithm": "default", "block_size": 32, "accuracy_level": 4, "symmetric": True}
ERROR = {"int8": 0.05, "int4": 0.35}
"""Of logits at fp32 weights, relative: random weights spread keys wider than trained ones."""

Made = Callable[..., tuple[Path, Result]]


@pytest.fixture(scope="module")
def made(do: Do, tiny_llama: Path, items_file: Path) -> Made:
    """Build a recipe calibrated on items, once each: `made(scheme, precision="int4")`."""
    kept: dict[tuple[Recipe, Path], tuple[Path, Result]] = {}

    def make(
        scheme: str | None, precision: str = "fp32", source: Path | None = None, **changes: Any
    ) -> tuple[Path, Result]:
        source = source or tiny_llama
        settings_ = INT4 if precision.startswith("int") else {}
        recipe = Recipe(precision=precision, kv_cache_quant_scheme=scheme, **settings_ | changes)
        if (recipe, source) not in kept:
            given_ = {"data": "d", "max_length": 64, "data_file": items_file} if scheme else {}
            kept[recipe, source] = do(
                BuildJob(source=str(source), recipe=recipe, provider="cpu", source_dir=source, **given_)
            )
        return kept[recipe, source]

    return make


def scales_in(folder: Path) -> dict[str, NDArray[np.float32]]:
    """Return the scales of the cache in a graph."""
    graph = onnx.load(str(folder / "model.onnx")).graph
    found = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    return {name: scale for name, scale in found.items() if name.endswith(("k_scale", "v_scale"))}


@pytest.mark.parametrize("precision", ["fp32", "int8", "int4"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_it_is_built_checked_and_scored_as_the_runtime_runs_it(
    do: Do, made: Made, tiny_llama: Path, items_file: Path, scheme: str, precision: str
) -> None:
    folder, built = made(scheme, precision)
    assert built["cache"] == [{"int8": "INT8", "int4": "UINT8"}[scheme[:4]]]
    recipe = Recipe(precision=precision, kv_cache_quant_scheme=scheme)
    check = CheckJob(
        source="s", provider="cpu", recipe=recipe, data="d", max_length=64, model_dir=folder, source_dir=tiny_llama,
        data_file=items_file,
    )  # fmt: skip
    found = do(check)[1]
    assert found["trouble"] is None
    if precision == "fp32":
        # More than rounding of floats: the cache was quantised. Not more than that.
        assert 1e-4 < found["logit_error"] < ERROR[scheme[:4]]
    score = ScoreJob(
        source="s", provider="cpu", data="d", metric="exact_match", max_length=64, model_dir=folder, data_file=items_file,
        max_new_tokens=6,
    )  # fmt: skip
    scored = json.loads((do(score)[0] / "outcomes.json").read_text(encoding="utf-8"))["predicted"]
    tokenizer = load_tokenizer(tiny_llama)
    items, _ = encode(tokenizer, read_items(items_file), 64)
    model = load(folder, "cpu", Session())
    for item, text in list(zip(items, scored, strict=True))[:8]:
        params = og.GeneratorParams(model)
        params.set_search_options(max_length=len(item.prompt) + 6, do_sample=False)
        generator = og.Generator(model, params)
        generator.append_tokens(np.array(item.prompt, dtype=np.int32))
        while not generator.is_done():
            generator.generate_next_token()
        new = generator.get_sequence(0)[len(item.prompt) :]
        assert tokenizer.decode(new, skip_special_tokens=True).strip() == text


def test_it_is_timed_as_any_build(made: Made, tmp_path: Path) -> None:
    folder, built = made("int8_per_channel", "int4")
    job = TimeJob(
        graph=built["signature"], provider="cpu", prompt_tokens=8, new_tokens=4, batch=2, machine="m", model_dir=folder
    )
    with LocalEngine() as engine:
        found = engine.run_fresh(job, tmp_path / "log")[0]
    assert found["itl_ms"]
    assert all(ms > 0 for ms in found["itl_ms"])


def test_scales_make_no_graph_of_their_own(do: Do, made: Made, tiny_llama: Path, items_file: Path) -> None:
    lora = resolve_lora({"r": 4, "steps": 3, "batch_size": 4, "max_length": 64, "learning_rate": 1e-2})
    trained = FinetuneJob(
        base="b", data="d", lora=lora, seed=0, device="cpu", base_dir=tiny_llama, data_file=items_file
    )
    merged = do(MergeJob(adapter="a", base="b", base_dir=tiny_llama, adapter_dir=do(trained)[0]))[0]
    signatures = set()
    for scheme in ("int8_per_tensor", "int4_per_channel"):
        one, other = made(scheme, "int4"), made(scheme, "int4", merged)
        assert one[1]["signature"] == other[1]["signature"]
        values = [scales_in(folder) for folder, _ in (one, other)]
        assert values[0].keys() == values[1].keys()
        assert len(values[0]) == 4
        assert not any(np.array_equal(values[0][name], values[1][name]) for name in values[0])
        signatures.add(one[1]["signature"])
    signatures.add(made(None, "int4")[1]["signature"])
    assert len(signatures) == 3


def test_scales_inside_the_graph_file_are_no_part_of_it_either(made: Made, tmp_path: Path) -> None:
    folder, _ = made("int8_per_tensor")
    signatures = set()
    for factor in (1, 2, 3):
        copy = Path(shutil.copytree(folder, tmp_path / str(factor)))
        model = onnx.load(str(copy / "model.onnx"), load_external_data=False)
        inside = {name: onnx.numpy_helper.from_array(scale * factor, name) for name, scale in scales_in(folder).items()}
        for tensor in model.graph.initializer:
            if tensor.name in inside:
                tensor.CopyFrom(inside[tensor.name])
        onnx.save(model, str(copy / "model.onnx"))
        signatures.add(read_back(copy)["signature"])
    assert len(signatures) == 1


def test_scales_are_those_of_the_calibrator_that_ships_with_the_runtime(
    made: Made, tiny_llama: Path, items_file: Path, tmp_path: Path
) -> None:
    from onnxruntime_genai.models.quantization import kv_cache_calibration as shipped

    folder, _ = made(None)
    corpus = [f"{item['prompt']}{item['completion']}" for item in read_items(items_file)]
    windows = [tuple(ids[0].tolist()) for ids in shipped._tokenize_corpus(load_tokenizer(tiny_llama), 6, 32, corpus)]
    for scheme, method in zip(SCHEMES, ("minmax", "minmax", None, "mse"), strict=True):
        if method is None:  # its least error is one a channel, ours one of the whole tensor
            continue
        theirs, ours = tmp_path / "theirs.json", tmp_path / "ours.json"
        shipped.calibrate_kv_scales(
            str(folder / "model.onnx"), str(tiny_llama), str(theirs), quant_type=scheme, method=method, target_seq=32,
            num_seqs=6, corpus=corpus,
        )  # fmt: skip
        calibrate(folder, windows, scheme, ours)
        one, other = (json.loads(file.read_text(encoding="utf-8")) for file in (theirs, ours))
        assert other.keys() == one.keys()
        assert (other["qmax"], other["layer_ids"]) == (one["qmax"], one["layer_ids"])
        for side in ("k_scales", "v_scales"):
            # Theirs keeps samples in half precision where it tries clips: neighbouring ones may change places.
            close = np.isclose(other["scales"][side], one["scales"][side], rtol=1e-4 if method == "minmax" else 0.08)
            assert close.mean() >= (1 if method == "minmax" else 0.95)


# --- Numbers --------------------------------------------------------------------------------------------------------


def rounded(samples: NDArray[np.float32], clip: NDArray[np.float32], kind: str) -> NDArray[np.float32]:
    qmax = {"int8": 128, "int4": 8}[kind]
    scale = clip / qmax
    return np.asarray(np.clip(np.rint(samples / scale), -qmax, qmax - 1) * scale)


@settings(max_examples=50)
@given(st.integers(0, 10_000), st.sampled_from(SCHEMES), st.integers(1, 40), st.floats(1e-3, 1e3))
def test_a_clip_keeps_what_it_should(seed: int, scheme: str, tokens: int, width: float) -> None:
    samples = (np.random.default_rng(seed).standard_t(3, size=(tokens, 6)) * width).astype(np.float32)
    clip = threshold(samples, scheme)
    assert clip.shape == ((1,) if scheme.endswith("tensor") else (6,))
    largest = np.abs(samples).max() if scheme.endswith("tensor") else np.abs(samples).max(axis=0)
    if scheme.startswith("int8"):
        assert clip == pytest.approx(largest)
    else:
        assert (clip <= largest * 1.0001).all()
        error = np.square(rounded(samples, clip, "int4") - samples).mean()
        assert error <= np.square(rounded(samples, largest, "int4") - samples).mean() * 1.0001


@given(st.integers(0, 10_000), st.floats(0, 6.28))
def test_the_bound_of_keys_holds_at_every_position(seed: int, angle: float) -> None:
    keys = np.random.default_rng(seed).normal(size=(3, 2, 8)).astype(np.float32)
    first, second = keys[..., :4], keys[..., 4:]
    turned = np.concatenate(
        [first * np.cos(angle) - second * np.sin(angle), first * np.sin(angle) + second * np.cos(angle)], axis=-1
    )
    assert (np.abs(turned) <= envelope(keys) + 1e-5).all()
    assert envelope(turned) == pytest.approx(envelope(keys), abs=1e-5)


def test_keys_that_are_no_numbers_are_no_scales() -> None:
    good = np.ones((2, 1, 4), dtype=np.float32)
    for bad in (np.inf, np.nan):
        values = good.copy()
        values[1, 0, 2] = bad
        with pytest.raises(StageError, match="layer 3 are infinite or not a number") as caught:
            scales(Captured({0: good, 3: good}, {0: good, 3: values}), "int8_per_tensor")
        assert caught.value.status == "failed"
    assert scales(Captured({0: good}, {0: good * 2}), "int4_per_tensor")["layer_ids"] == [0]


def test_dead_channels_have_a_scale_above_zero() -> None:
    nothing = np.zeros((4, 1, 2), dtype=np.float32)
    for scheme in SCHEMES:
        found: Any = scales(Captured({0: nothing}, {0: nothing}), scheme)
        assert all(one > 0 for side in ("k_scales", "v_scales") for one in found["scales"][side][0])


def test_calibration_takes_whole_items_evenly() -> None:
    items: list[tuple[Tokens, Tokens]] = [((n,) * 90, (n,) * 10) for n in range(1000)]
    texts = calibration_texts(items)
    assert [text[0] for text in texts] == [round(n * 1000 / 41 - 0.499) for n in range(41)]
    assert calibration_texts([((1,) * 5000, (2,))]) == [(1,) * 5000 + (2,)]
    assert calibration_texts(items[:3]) == [prompt + completion for prompt, completion in items[:3]]


def test_what_is_captured_are_the_keys_and_values_of_every_token(made: Made) -> None:
    backend = OnnxBackend(made(None)[0], "cpu", None)
    texts: list[Tokens] = [tuple(range(5, 25)), tuple(range(30, 33))]
    found = capture(backend, texts)
    assert sorted(found.keys) == sorted(found.values) == [0, 1]
    _, cache = backend.run(np.array([texts[1]]), keep=True, last=True)
    place = backend.presents.index("present.1.value")
    assert np.array_equal(found.values[1][20:], np.moveaxis(cache[place][0], 1, 0)[:3])
    assert len(found.keys[0]) == 23


@pytest.mark.parametrize(
    ("recipe", "plain"),
    [
        (
            Recipe(precision="int4", kv_cache_quant_scheme="int8_per_tensor", **INT4),
            Recipe(precision="int4", prune_lm_head=True, **INT4),
        ),
        (
            Recipe(precision="bf16", kv_cache_quant_scheme="int8_per_tensor", enable_cuda_graph=True, fuse_qkv=False),
            Recipe(precision="fp32", prune_lm_head=True, fuse_qkv=False),
        ),
        (
            Recipe(precision="int8", kv_cache_quant_scheme="int4_per_channel", use_cuda_bf16=True, block_size=64),
            Recipe(precision="int8", prune_lm_head=True, block_size=64),
        ),
    ],
)
def test_what_is_calibrated_on_runs_on_the_cpu(recipe: Recipe, plain: Recipe) -> None:
    assert baseline(recipe) == plain


def test_scales_for_cuda_are_calibrated_on_the_cpu(do: Do, tiny_llama: Path, items_file: Path) -> None:
    for precision, more in (("fp16", {}), ("int4", {**INT4, "accuracy_level": 0})):
        recipe = Recipe(precision=precision, kv_cache_quant_scheme="int8_per_channel", **more)
        job = BuildJob(
            source="s", recipe=recipe, provider="cuda", data="d", max_length=64, source_dir=tiny_llama,
            data_file=items_file,
        )  # fmt: skip
        assert do(job)[1]["cache"] == ["INT8"]


def test_a_build_without_calibration_has_the_key_that_it_had() -> None:
    plain = BuildJob(source="s", recipe=Recipe(precision="fp32"), provider="cpu")
    assert plain.described()["inputs"] == {"source": "s", "recipe": {"precision": "fp32"}, "provider": "cpu"}
    calibrated = plain.model_copy(update={"data": "d", "max_length": 64})
    assert calibrated.key != plain.key
    assert calibrated.model_copy(update={"data_file": Path("x")}).key == calibrated.key
