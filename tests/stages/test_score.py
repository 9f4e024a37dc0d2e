"""Scores of real builds: PyTorch and ONNX agree, batches change nothing, the shortcuts are exact."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from conftest import TONES, Do, tone_items
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper, save
from transformers import MistralConfig, MistralForCausalLM

from autotune.analysis.scores import macro_f1, summarise
from autotune.candidate import Recipe
from autotune.errors import StageError
from autotune.space.adapters import resolve_lora
from autotune.stages.backends import OnnxBackend, TorchBackend
from autotune.stages.jobs import FinetuneJob, MergeJob, ScoreJob
from autotune.stages.score import (
    TOKENS,
    choose_labels,
    completion_nll,
    generate,
    groups,
    label_loss,
    label_tokens,
    log_likelihood,
)
from autotune.stages.text import Encoded, encode, end_tokens, load_tokenizer, prompt_ids

Write = Callable[[list[dict[str, Any]]], Path]
BLOCKS = {"algorithm": "default", "block_size": 32, "accuracy_level": 4, "symmetric": True}
FP32, INT8, INT4 = Recipe(precision="fp32"), Recipe(precision="int8", **BLOCKS), Recipe(precision="int4", **BLOCKS)
RECIPES = pytest.mark.parametrize("recipe", [FP32, INT8, INT4], ids=lambda recipe: recipe.precision)
LABELS = tuple(f" {tone}" for tone in TONES)
# Many tokens, the first ones shared, and one label the beginning of another.
LONG = (" sad", " sadness", " sadness and fear", " sadness and joy", " sadder", " surprise", " surprised", " joy")


@pytest.fixture
def outcomes(do: Do, items_file: Path) -> Callable[..., dict[str, Any]]:
    """Score a folder: `outcomes(folder, "choice")`; in PyTorch with provider=None."""

    def run(folder: Path, metric: str, **changes: Any) -> dict[str, Any]:
        job = {
            "source": "s", "provider": "cpu", "data": "d", "metric": metric, "max_length": 64, "model_dir": folder,
            "labels": LABELS if metric in ("choice", "f1") else (), "data_file": items_file,
        }  # fmt: skip
        out, result = do(ScoreJob(**{**job, **changes}))
        found: dict[str, Any] = json.loads((out / "outcomes.json").read_text(encoding="utf-8"))
        assert result["items"] == len(found["ids"])
        return found

    return run


@pytest.mark.parametrize("metric", ["choice", "exact_match", "perplexity"])
def test_items_scored_in_blocks_come_out_as_all_at_once(
    built: Do, tiny_llama: Path, outcomes: Callable[..., dict[str, Any]], items_file: Path, tmp_path: Path, metric: str
) -> None:
    folder, _ = built(INT8, tiny_llama)
    file = tmp_path / "mixed.json"
    file.write_text(json.dumps(json.loads(items_file.read_text(encoding="utf-8"))[::-1]), encoding="utf-8")
    whole = outcomes(folder, metric, data_file=file)
    count = len(whole["ids"])
    blocks = [outcomes(folder, metric, block=block, data_file=file) for block in ((0, 3), (3, 5), (5, count))]
    ids = [name for block in blocks for name in block["ids"]]
    assert ids == sorted(whole["ids"])
    assert ids != whole["ids"]  # a fair draw, and not the file's beginning
    for name in set(whole) - {"ids"}:
        parts = dict(zip(ids, (x for block in blocks for x in block[name]), strict=True))
        assert [parts[name] for name in whole["ids"]] == (
            whole[name] if name in ("predicted", "gold", "tokens") else pytest.approx(whole[name], abs=1e-4)
        )


# --- PyTorch and ONNX ---------------------------------------------------------------------------------------------


def test_pytorch_and_the_fp32_build_agree(
    built: Do, tiny_llama: Path, tiny_qwen2: Path, outcomes: Callable[..., dict[str, Any]]
) -> None:
    for model in (tiny_llama, tiny_qwen2):
        onnx, _ = built(FP32, model)
        for labels in (LABELS, tuple(sorted({*LONG, *LABELS}))):
            one = outcomes(model, "choice", provider=None, labels=labels)
            other = outcomes(onnx, "choice", labels=labels)
            assert one["predicted"] == other["predicted"]
            assert one["margin"] == pytest.approx(other["margin"], abs=1e-4)
        one, other = outcomes(model, "perplexity", provider=None), outcomes(onnx, "perplexity")
        assert one["nll"] == pytest.approx(other["nll"], abs=1e-4)
        assert one["tokens"] == other["tokens"]
        assert outcomes(model, "exact_match", provider=None) == outcomes(onnx, "exact_match")


def test_scores_are_those_of_the_plain_definition(
    built: Do, tiny_qwen2: Path, outcomes: Callable[..., dict[str, Any]]
) -> None:
    """Log-likelihoods by one plain forward pass a text, and greedy decoding by hand."""
    backend = TorchBackend(tiny_qwen2, None, "cpu", None)
    tokenizer = load_tokenizer(tiny_qwen2)
    items, _ = encode(tokenizer, tone_items(24), 64)
    perplexity, choice = (
        outcomes(built(FP32, tiny_qwen2)[0], "perplexity"),
        outcomes(tiny_qwen2, "choice", provider=None),
    )
    exact = outcomes(built(FP32, tiny_qwen2)[0], "exact_match")
    labels = [tokenizer.encode(label, add_special_tokens=False) for label in LABELS]
    limit = max(len(item.completion) for item in items) + 1
    with torch.no_grad():
        for n, item in enumerate(items):
            likelihoods = []
            for tokens in (*labels, item.completion):
                row = torch.tensor([[*item.prompt, *tokens]])
                likely = backend.model(input_ids=row).logits[0].double().log_softmax(-1)
                start = len(item.prompt) - 1
                likelihoods.append(sum(float(likely[start + k, token]) for k, token in enumerate(tokens)))
            assert perplexity["nll"][n] == pytest.approx(-likelihoods[-1], abs=1e-4)
            assert choice["predicted"][n] == int(np.argmax(likelihoods[:-1]))
            best, second = sorted(likelihoods[:-1])[-1:-3:-1]
            assert choice["margin"][n] <= best - second + 1e-4
            row = list(item.prompt)
            while len(row) - len(item.prompt) < limit:
                following = int(backend.model(input_ids=torch.tensor([row])).logits[0, -1].argmax())
                if following == tokenizer.eos_token_id:
                    break
                row.append(following)
            assert exact["predicted"][n] == tokenizer.decode(row[len(item.prompt) :], skip_special_tokens=True).strip()


@RECIPES
def test_batches_change_nothing(
    built: Do, tiny_qwen2: Path, outcomes: Callable[..., dict[str, Any]], recipe: Recipe
) -> None:
    folder, _ = built(recipe, tiny_qwen2)
    for labels in (LABELS, tuple(sorted({*LONG, *LABELS}))):
        together, alone = (outcomes(folder, "choice", labels=labels, batched=b) for b in (True, False))
        assert together["predicted"] == alone["predicted"]
        assert together["margin"] == pytest.approx(alone["margin"], abs=1e-4)
    assert len(set(together["predicted"])) > 1
    for metric in ("exact_match", "perplexity"):
        together, alone = (outcomes(folder, metric, batched=b) for b in (True, False))
        if metric == "perplexity":
            assert together.pop("nll") == pytest.approx(alone.pop("nll"), abs=1e-4)
        assert together == alone


@pytest.mark.parametrize("ragged", [True, False])
def test_a_group_is_bounded_and_of_one_length_where_it_must_be(ragged: bool) -> None:
    lengths = [30, 31, 30, 600, 30, *[8] * 100]
    for batched in (True, False):
        found = list(groups(lengths, batched, ragged))
        assert sorted(i for group in found for i in group) == list(range(len(lengths)))
        assert ragged or all(len({lengths[i] for i in group}) == 1 for group in found)
        assert all(len(group) == 1 or len(group) * max(lengths[i] for i in group) <= TOKENS for group in found)
        assert (len(found) < len(lengths)) is batched
    assert len(list(groups(lengths, True, ragged))) == (4 if ragged else 5)


# --- The most likely label ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fp32(built: Do, tiny_qwen2: Path) -> OnnxBackend:
    return OnnxBackend(built(FP32, tiny_qwen2)[0], "cpu", 1)


def exhaustive(backend: OnnxBackend, item: Encoded, labels: Sequence[tuple[int, ...]]) -> list[float]:
    """The log-likelihood of every label, each by a forward pass of its own."""
    texts = [Encoded("", item.prompt, label, "") for label in labels]
    return [-value for value in completion_nll(backend, texts, batched=False)]


tokens = st.integers(1, 12).map(lambda n: 40 * n)  # few, so that labels share their beginnings
label_sets = st.lists(st.lists(tokens, min_size=1, max_size=5).map(tuple), min_size=2, max_size=24, unique=True)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(label_sets, st.lists(st.integers(1, 511), min_size=1, max_size=6), st.booleans())
def test_the_shortcut_finds_what_the_long_way_finds(
    fp32: OnnxBackend, labels: list[tuple[int, ...]], prompt: list[int], batched: bool
) -> None:
    items = [Encoded("", tuple(prompt), (), ""), Encoded("", (7, *prompt[1:]), (), "")]
    chosen, margins, scores = choose_labels(fp32, items, labels, batched)
    for item, choice, margin, bounds in zip(items, chosen, margins, scores, strict=True):
        likely = exhaustive(fp32, item, labels)
        assert bounds[choice] == pytest.approx(likely[choice], abs=1e-5)
        assert (bounds >= np.array(likely) - 1e-5).all()
        best, second = sorted(likely, reverse=True)[:2]
        assert likely[choice] == pytest.approx(best, abs=1e-5)
        assert 0 <= margin <= best - second + 1e-5


def test_the_loss_is_the_cross_entropy_over_the_labels() -> None:
    scores = np.log(np.array([[0.5, 0.25, 0.25], [0.1, 0.2, 0.1]]))  # their sum need not be 1
    assert label_loss(scores, [0, 2]) == pytest.approx([np.log(2), np.log(4)])


def test_labels_that_begin_one_another_are_compared_with_their_end(tiny_llama: Path) -> None:
    tokenizer = load_tokenizer(tiny_llama)
    plain = label_tokens(tokenizer, (" joy", " fear"))
    ended = label_tokens(tokenizer, (" joy", " joyful", " fear"))
    assert all(tokenizer.decode(t) == text for t, text in zip(plain, (" joy", " fear"), strict=True))
    assert ended[1][: len(ended[0]) - 1] == ended[0][:-1]
    assert all(t[-1] == tokenizer.eos_token_id for t in ended)


def test_a_longer_label_can_win_over_its_own_beginning(
    do: Do, tiny_llama: Path, write_items: Write, outcomes: Callable[..., dict[str, Any]]
) -> None:
    labels = (" joy", " joy and fear")
    items = [{"id": str(n), "prompt": f"{n} Tone:", "completion": " joy and fear"} for n in range(8)]
    file = write_items(items)
    lora = resolve_lora({"r": 8, "steps": 30, "batch_size": 8, "max_length": 64, "learning_rate": 1e-2})
    job = FinetuneJob(base="b", data="d", lora=lora, seed=0, device="cpu", base_dir=tiny_llama, data_file=file)
    adapter, _ = do(job)
    found = outcomes(
        tiny_llama, "choice", provider=None, adapter_dir=adapter, labels=labels, data_file=file, device="cpu"
    )
    assert found["predicted"] == found["gold"] == [1] * 8


def test_f1_is_that_of_the_chosen_labels(built: Do, tiny_qwen2: Path, outcomes: Callable[..., dict[str, Any]]) -> None:
    folder, _ = built(FP32, tiny_qwen2)
    choice, f1 = outcomes(folder, "choice"), outcomes(folder, "f1")
    assert f1 == choice
    value, interval, n = summarise("f1", f1)
    assert value == macro_f1(np.array(choice["predicted"]), np.array(choice["gold"]))
    assert (interval.low <= value <= interval.high, n) == (True, 24)


# --- What is scored -----------------------------------------------------------------------------------------------


def test_messages_go_through_the_chat_template(
    built: Do, tiny_llama: Path, write_items: Write, outcomes: Callable[..., dict[str, Any]]
) -> None:
    chat = [{"role": "system", "content": "Name the tone."}, {"role": "user", "content": "What a day!"}]
    text = "<|system|>Name the tone.<|end|><|user|>What a day!<|end|><|assistant|>"
    tokenizer = load_tokenizer(tiny_llama)
    assert prompt_ids(tokenizer, chat) == tuple(tokenizer.encode(text))
    folder, _ = built(FP32, tiny_llama)
    by_chat, by_text = (
        outcomes(folder, "perplexity", data_file=write_items([{"id": "1", "prompt": p, "completion": "joy"}]))
        for p in (chat, text)
    )
    assert by_chat == by_text
    tokenizer.chat_template = None
    with pytest.raises(StageError, match="needs a model with a chat template"):
        prompt_ids(tokenizer, chat)


def test_text_beyond_ascii_and_odd_spaces_goes_through(
    built: Do, tiny_llama: Path, write_items: Write, outcomes: Callable[..., dict[str, Any]]
) -> None:
    labels = (" Freude", " Ärger", " 悲しみ", " 🙂🙃")
    items = [
        {"id": str(n), "prompt": f"Satz: Grüße aus Köln\u2028{n} …\t\nTon:", "completion": label}
        for n, label in enumerate(labels)
    ]
    file = write_items(items)
    folder, _ = built(FP32, tiny_llama)
    choice = outcomes(folder, "choice", labels=labels, data_file=file)
    assert choice["gold"] == [0, 1, 2, 3]
    assert outcomes(folder, "exact_match", data_file=file)["gold"] == [label.strip() for label in labels]
    assert all(0 < value < 200 for value in outcomes(folder, "perplexity", data_file=file)["nll"])


def test_a_long_prompt_is_cut_alike_whatever_its_label(
    built: Do, do: Do, tiny_llama: Path, write_items: Write, outcomes: Callable[..., dict[str, Any]]
) -> None:
    labels = (" joy", " a very long label of many many tokens")
    prompt = "so it went on " * 40 + "\nTone:"
    items = [{"id": str(n), "prompt": prompt, "completion": label} for n, label in enumerate(labels)]
    folder, _ = built(FP32, tiny_llama)
    job = ScoreJob(
        source="s", provider="cpu", data="d", metric="choice", labels=labels, max_length=40, model_dir=folder,
        data_file=write_items(items),
    )  # fmt: skip
    out, result = do(job)
    assert result.pop("load_s") > 0
    assert result == {"items": 2, "cut": 2}
    found = json.loads((out / "outcomes.json").read_text(encoding="utf-8"))
    assert found["predicted"][0] == found["predicted"][1]
    assert found["margin"][0] == found["margin"][1]
    tokenizer = load_tokenizer(tiny_llama)
    longest = max(len(tokens) for tokens in label_tokens(tokenizer, labels))
    cut, _ = encode(tokenizer, items, 40, longest)
    assert {len(item.prompt) for item in cut} == {40 - longest - 1}
    assert all(tuple(tokenizer.encode(prompt)[-len(item.prompt) :]) == item.prompt for item in cut)
    with pytest.raises(StageError, match="does not fit into max_length 8"):
        encode(tokenizer, items, 8, longest)


# --- The whole way ------------------------------------------------------------------------------------------------


def test_a_qlora_candidate_learns_and_keeps_it_through_merge_and_int4(
    do: Do, built: Do, tiny_llama: Path, items_file: Path, outcomes: Callable[..., dict[str, Any]]
) -> None:
    lora = resolve_lora(
        {"r": 16, "steps": 120, "batch_size": 8, "max_length": 64, "learning_rate": 1e-2, "quantized_base": "nf4"}
    )
    trained = FinetuneJob(
        base="b", data="d", lora=lora, seed=0, device="cpu", base_dir=tiny_llama, data_file=items_file
    )
    adapter, _ = do(trained)
    merged, _ = do(MergeJob(adapter="a", base="b", base_dir=tiny_llama, adapter_dir=adapter))
    before = summarise("choice", outcomes(built(INT4, tiny_llama)[0], "choice"))[0]
    int4, _ = built(INT4, merged)
    after = summarise("choice", outcomes(int4, "choice"))[0]
    assert before < 0.5 < 0.8 < after
    in_torch = outcomes(tiny_llama, "choice", provider=None, adapter_dir=adapter, device="cpu")
    assert summarise("choice", in_torch)[0] >= after - 0.1
    assert summarise("exact_match", outcomes(int4, "exact_match"))[0] > 0.5
    assert summarise("perplexity", outcomes(int4, "perplexity"))[0] < 3


@pytest.mark.parametrize("precision", [FP32, INT4], ids=lambda recipe: recipe.precision)
def test_a_pruned_head_scores_as_the_whole_one(
    built: Do, tiny_qwen2: Path, outcomes: Callable[..., dict[str, Any]], precision: Recipe
) -> None:
    whole, _ = built(precision, tiny_qwen2)
    pruned, _ = built(precision.model_copy(update={"prune_lm_head": True}), tiny_qwen2)
    logits = next(o for o in ort.InferenceSession(str(pruned / "model.onnx")).get_outputs() if o.name == "logits")
    assert logits.shape[1] == 1
    for metric, labels in (("choice", LABELS), ("choice", (*LONG, " fear")), ("exact_match", ()), ("perplexity", ())):
        one, other = (outcomes(folder, metric, labels=labels) for folder in (whole, pruned))
        assert one == other


def test_other_graphs_of_one_model_score_alike(
    built: Do, tiny_llama: Path, outcomes: Callable[..., dict[str, Any]]
) -> None:
    plain = outcomes(built(FP32, tiny_llama)[0], "perplexity")["nll"]
    for changes in ({"shared_embeddings": False}, {"fuse_qkv": False}, {"fuse_mlp_gate_up": True}):
        other = outcomes(built(FP32.model_copy(update=changes), tiny_llama)[0], "perplexity")["nll"]
        assert other == pytest.approx(plain, abs=1e-4)
    qdq = INT4.model_copy(update={"use_qdq": True, "shared_embeddings": False})
    nbits = INT4.model_copy(update={"shared_embeddings": False})
    one, other = (outcomes(built(recipe, tiny_llama)[0], "perplexity")["nll"] for recipe in (qdq, nbits))
    assert one == pytest.approx(other, abs=0.1)


# --- Failing ------------------------------------------------------------------------------------------------------


def test_a_build_that_does_not_load_is_unsupported(built: Do, tiny_llama: Path) -> None:
    folder, _ = built(INT4.model_copy(update={"symmetric": False}), tiny_llama)
    with pytest.raises(StageError, match="the build does not load on cpu") as caught:
        OnnxBackend(folder, "cpu", None)
    assert caught.value.status == "unsupported"


def test_a_provider_that_is_not_here_is_named_with_its_extra(built: Do, tiny_llama: Path) -> None:
    with pytest.raises(StageError, match="no DmlExecutionProvider; install the directml extra") as caught:
        OnnxBackend(built(FP32, tiny_llama)[0], "dml", None)
    assert caught.value.status == "unsupported"


@pytest.mark.parametrize("metric", ["choice", "exact_match", "perplexity"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_logits_that_are_no_numbers_are_no_score(
    built: Do, tiny_llama: Path, tmp_path: Path, outcomes: Callable[..., dict[str, Any]], metric: str, value: float
) -> None:
    folder = tmp_path / "broken"
    folder.mkdir()
    for file in built(FP32, tiny_llama)[0].iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    weights = np.fromfile(folder / "model.onnx.data", dtype=np.float32)
    np.full_like(weights, value).tofile(folder / "model.onnx.data")
    with pytest.raises(StageError, match="infinite or not a number") as caught:
        outcomes(folder, metric)
    assert caught.value.status == "failed"


def test_log_probabilities_hold_where_logits_are_large() -> None:
    logits = np.array([[1e4, 0.0, -1e4], [-np.inf, 2.0, 2.0]], dtype=np.float32)
    found = log_likelihood(logits, np.array([[0, 1, 2], [0, 1, 2]]))
    assert found.dtype == np.float64
    assert found[0].tolist() == [0.0, -1e4, -2e4]
    assert found[1] == pytest.approx([-math.inf, -math.log(2), -math.log(2)])


def test_log_probabilities_are_right_to_a_millionth_over_a_large_vocabulary() -> None:
    logits = np.random.default_rng(0).normal(scale=4, size=(3, 150_000)).astype(np.float32)
    tokens = np.array([[0, 5], [7, 149_999], [3, int(logits[2].argmax())]])
    exact = torch.from_numpy(logits).double().log_softmax(-1).numpy()
    assert log_likelihood(logits, tokens) == pytest.approx(np.take_along_axis(exact, tokens, -1), abs=1e-6)


# --- Backends -----------------------------------------------------------------------------------------------------


def half_model(folder: Path) -> None:
    """Write a graph with a bfloat16 cache: the logits of a position are the sum of all tokens so far, one-hot."""
    make, f32, bf16, i64 = helper.make_node, TensorProto.FLOAT, TensorProto.BFLOAT16, TensorProto.INT64
    table = np.eye(16, dtype=np.float32)
    shape = np.array([0, 1, -1, 16], dtype=np.int64)
    axis, past = np.array(2, dtype=np.int64), np.array([2], dtype=np.int64)
    nodes = [
        make("Gather", ["table", "input_ids"], ["flat"]),
        make("Reshape", ["flat", "shape"], ["new32"], allowzero=0),
        make("Cast", ["new32"], ["new"], to=bf16),
        make("Concat", ["past_key_values.0.key", "new"], ["present.0.key"], axis=2),
        make("Cast", ["present.0.key"], ["all"], to=f32),
        make("CumSum", ["all", "axis"], ["sums"]),
        make("Shape", ["past_key_values.0.key"], ["old"], start=2, end=3),
        make("Shape", ["present.0.key"], ["end"], start=2, end=3),
        make("Slice", ["sums", "old", "end", "past"], ["mine"]),
        make("Squeeze", ["mine", "one"], ["logits"]),
    ]
    inputs = [
        helper.make_tensor_value_info("input_ids", i64, ["b", "s"]),
        helper.make_tensor_value_info("past_key_values.0.key", bf16, ["b", 1, "p", 16]),
    ]
    outputs = [
        helper.make_tensor_value_info("logits", f32, ["b", "s", 16]),
        helper.make_tensor_value_info("present.0.key", bf16, ["b", 1, "t", 16]),
    ]
    constants = {"table": table, "shape": shape, "axis": axis, "past": past, "one": np.array([1], dtype=np.int64)}
    initial = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "half", inputs, outputs, initial)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), folder / "model.onnx")
    config = {"model": {"decoder": {"head_size": 16, "session_options": {}}}}
    (folder / "genai_config.json").write_text(json.dumps(config), encoding="utf-8")


def test_a_bfloat16_cache_is_carried_over(tmp_path: Path) -> None:
    half_model(tmp_path)
    backend = OnnxBackend(tmp_path, "cpu", None)
    ids = np.array([[3, 5, 5, 1], [2, 2, 9, 9]], dtype=np.int64)
    whole, _ = backend.run(ids)
    assert whole[0, 2].tolist() == [2.0 if n == 5 else 1.0 if n == 3 else 0.0 for n in range(16)]
    first, cache = backend.run(ids[:, :2], keep=True)
    rest, _ = backend.run(ids[:, 2:], cache)
    assert np.array_equal(np.concatenate([first, rest], axis=1), whole)
    twice, _ = backend.run(ids[[1, 1], 2:], backend.select(cache, [1, 1]))
    assert np.array_equal(twice, whole[[1, 1], 2:])
    second, _ = backend.run(ids[1:, 2:], backend.select(cache, [1]), last=True)
    assert np.array_equal(second, whole[1:, -1:])


@pytest.mark.parametrize("kind", ["onnx", "torch", "torch sliding window"])
def test_a_cache_stands_for_the_tokens_before(built: Do, tiny_llama: Path, tmp_path: Path, kind: str) -> None:
    backend: OnnxBackend | TorchBackend
    if kind == "onnx":
        backend = OnnxBackend(built(FP32, tiny_llama)[0], "cpu", None)
    else:
        folder = tiny_llama
        if "window" in kind:
            sizes = {
                "vocab_size": 512, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
                "num_attention_heads": 2, "num_key_value_heads": 1, "sliding_window": 5, "initializer_range": 0.2,
            }  # fmt: skip
            torch.manual_seed(0)
            MistralForCausalLM(MistralConfig(**sizes)).save_pretrained(tmp_path)
            folder = tmp_path
        backend = TorchBackend(folder, None, "cpu", None)
    ids = np.random.default_rng(0).integers(1, 512, size=(3, 14))
    whole, none = backend.run(ids)
    assert none is None
    assert whole.shape == (3, 14, 512)
    last, _ = backend.run(ids, last=True)
    assert last == pytest.approx(whole[:, -1:], abs=1e-4)
    _, cache = backend.run(ids[:, :9], keep=True, last=True)
    for rows in ([2, 0], [1] * 4, [0, 1, 2]):  # what was taken from a cache has not changed it
        picked, _ = backend.run(ids[rows, 9:10], backend.select(cache, rows))
        assert picked == pytest.approx(whole[rows, 9:10], abs=1e-4)
    rest, _ = backend.run(ids[1:2, 9:], backend.select(cache, [1]))
    assert rest == pytest.approx(whole[1:2, 9:], abs=1e-4)
    lengths = [14, 3, 9] if backend.ragged else [9, 9, 9]
    prompts = [tuple(ids[row, :length].tolist()) for row, length in enumerate(lengths)]
    for start, found in zip((2, 0, 8), backend.read(prompts, [2, 0, 8]), strict=True):
        row = (2, 0, 8).index(start)
        assert found == pytest.approx(whole[row, start : lengths[row]], abs=1e-4)
    branches = backend.branch(prompts)
    assert branches.logits == pytest.approx(whole[range(3), np.array(lengths) - 1], abs=1e-4)
    # Deeper and back again, and not always with every prompt.
    for asked in (
        [(0, (5,)), (1, (6,)), (2, (7,))],
        [(1, (6, 8)), (2, (7, 9)), (0, (5, 1))],
        [(2, (7, 9, 3)), (1, (6, 2))],
        [(2, (7, 9, 3, 4)), (1, (6, 8, 3)), (0, (9,))],
        [(2, (7, 9, 3, 4, 5))],
    ):
        for (row, path), found in zip(asked, branches.after(asked), strict=True):
            alone, _ = backend.run(np.array([[*prompts[row], *path]]), last=True)
            assert found == pytest.approx(alone[0, -1], abs=1e-4)


def test_generation_ends_at_an_end_token_or_the_limit(fp32: OnnxBackend, tiny_qwen2: Path) -> None:
    tokenizer = load_tokenizer(tiny_qwen2)
    items, _ = encode(tokenizer, tone_items(6), 64)
    one, six = (generate(fp32, items, tokenizer, {0}, limit) for limit in (1, 6))
    assert all(longer.startswith(text) and longer != text for text, longer in zip(one, six, strict=True))
    logits = [fp32.run(np.array([item.prompt]), last=True)[0] for item in items]
    assert generate(fp32, items, tokenizer, {int(found.argmax()) for found in logits}, 6) == [""] * 6


def test_texts_end_where_the_deployed_model_stops(tiny_qwen2: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(tiny_qwen2)
    assert end_tokens(tmp_path, tokenizer) == end_tokens(tiny_qwen2, tokenizer) == {0}
    for name, settings_ in (
        ("genai_config.json", {"model": {"eos_token_id": [3, 4]}}),
        ("generation_config.json", {"eos_token_id": 5}),
        ("config.json", {"eos_token_id": None}),
    ):
        (tmp_path / name).write_text(json.dumps(settings_), encoding="utf-8")
    assert end_tokens(tmp_path, tokenizer) == {0, 3, 4, 5}
