"""Fine-tuning on the tiny model: continuing, seeds, the loss, what is trained, and how it fails."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Do, tone_items
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from autotune.candidate import Lora
from autotune.errors import Interrupted, StageError
from autotune.space.adapters import resolve_lora
from autotune.stages.checkpoints import Checkpoints, Progress
from autotune.stages.finetune import (
    adapt,
    batches,
    collate,
    completion_loss,
    finetune,
    learning_rate,
    target_modules,
)
from autotune.stages.jobs import FinetuneJob
from autotune.stages.text import Encoded, encode, load_tokenizer
from autotune.stages.torch_model import load_model, resolve_dtype

Write = Callable[[list[dict[str, Any]]], Path]


def lora(**changes: Any) -> Lora:
    small = {"r": 4, "steps": 6, "batch_size": 4, "max_length": 64, "learning_rate": 5e-3}
    return resolve_lora({name: v for name, v in {**small, **changes}.items() if v is not None})


@pytest.fixture
def job(tiny_llama: Path, items_file: Path) -> Callable[..., FinetuneJob]:
    """Make a job on the tiny Llama; keywords of the job itself, all others are LoRA settings."""

    def make(**changes: Any) -> FinetuneJob:
        own = {name: changes.pop(name) for name in list(changes) if name in FinetuneJob.model_fields}
        where = {"base_dir": tiny_llama, "data_file": items_file}
        return FinetuneJob(
            **{"base": "b", "data": "d", "lora": lora(**changes), "seed": 0, "device": "cpu"} | where | own
        )

    return make


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(load_file(folder / "adapter_model.safetensors"))


def gap(one: Path, other: Path) -> float:
    """The largest difference of any adapter weight."""
    a, b = weights(one), weights(other)
    assert a.keys() == b.keys()
    return max(float((a[name] - b[name]).abs().max()) for name in a)


# --- Going on -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "kind"),
    [(80, {}), (20, {"dora": True}), (20, {"quantized_base": "nf4"})],
    ids=["lora", "dora", "nf4"],
)
def test_stopping_and_going_on_equals_one_go(
    do: Do, job: Callable[..., FinetuneJob], steps: int, kind: dict[str, Any]
) -> None:
    hard = {"steps": steps, "dropout": 0.1, "accumulation": 2, "schedule": "cosine", "weight_decay": 0.1, **kind}
    whole, one_go = do(job(**hard))
    half, first = do(job(**hard, stop_at=steps // 2))
    rest, second = do(job(**hard, stop_at=steps, checkpoint_dir=half))

    assert (first["step"], second["step"], one_go["step"]) == (steps // 2, steps, steps)
    assert first["horizon"] == second["horizon"] == steps
    assert gap(whole, rest) < 1e-6
    assert gap(whole, half) > 1e-3  # the second half did train
    curves = [json.loads((folder / "state.json").read_text(encoding="utf-8"))["curve"] for folder in (whole, rest)]
    assert len(curves[0]) == steps
    for (step, loss, rate), other in zip(*curves, strict=True):
        assert (step, rate) == (other[0], other[2])
        assert loss == pytest.approx(other[1], abs=2e-6)
    assert second["loss"] == pytest.approx(one_go["loss"], abs=1e-5)


def test_a_training_that_is_asked_to_end_keeps_a_checkpoint_and_goes_on_from_it(
    do: Do, job: Callable[..., FinetuneJob], tmp_path: Path
) -> None:
    hard = {"steps": 20, "dropout": 0.1, "schedule": "cosine"}
    whole, one_go = do(job(**hard))
    kept = {"keep_dir": tmp_path / "kept", "stop_file": tmp_path / "stop"}
    (tmp_path / "stop").touch()
    for step in (1, 2, 3):
        with pytest.raises(Interrupted):
            do(job(**hard, **kept))
        assert [folder.name for folder in (tmp_path / "kept").iterdir()] == [f"step-{step}"]
    (tmp_path / "stop").unlink()
    (tmp_path / "kept" / "new").mkdir()  # a kill while a checkpoint was written leaves this
    (tmp_path / "kept" / "step-9").mkdir()
    rest, second = do(job(**hard, **kept))
    assert second["step"] == one_go["step"] == 20
    assert gap(whole, rest) < 1e-6
    curves = [json.loads((folder / "state.json").read_text(encoding="utf-8"))["curve"] for folder in (whole, rest)]
    assert [point[0] for point in curves[1]] == list(range(1, 21))
    assert curves[1][:3] == curves[0][:3]


def test_checkpoints_are_written_as_time_goes_by(
    do: Do, job: Callable[..., FinetuneJob], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    write = Checkpoints.write

    def noted(self: Checkpoints, model: Any, optimizer: Any, progress: Progress) -> None:
        write(self, model, optimizer, progress)
        written.append(progress.step)
        self._cost_s = 0.0  # however slow this disk is

    monkeypatch.setattr(Checkpoints, "write", noted)
    do(job(steps=4, keep_dir=tmp_path / "kept"))
    assert written == []  # a minute has not passed
    monkeypatch.setattr(Checkpoints, "DUE_S", 0.0)
    do(job(steps=4, keep_dir=tmp_path / "kept"))
    assert written == [1, 2, 3]  # the end is the stage's result
    assert [folder.name for folder in (tmp_path / "kept").iterdir()] == ["step-3"]
    seconds = json.loads((tmp_path / "kept" / "step-3" / "state.json").read_text(encoding="utf-8"))["seconds"]
    with pytest.raises(StageError, match=r"train.time_limit_s = ") as error:
        do(job(steps=40, time_limit_s=seconds, keep_dir=tmp_path / "kept"))  # what was spent before counts
    assert error.value.status == "timeout"


def test_a_checkpoint_holds_adapter_optimiser_and_state_and_no_pickle(do: Do, job: Callable[..., FinetuneJob]) -> None:
    folder, _ = do(job(steps=2))
    names = {path.name for path in folder.rglob("*")}
    assert names == {"adapter_config.json", "adapter_model.safetensors", "optimizer.safetensors", "state.json"}
    assert all(".lora_A." in name or ".lora_B." in name for name in weights(folder))
    parts = {name.rpartition(".")[2] for name in load_file(folder / "optimizer.safetensors")}
    assert parts == {"exp_avg", "exp_avg_sq", "step"}
    state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    assert (state["step"], state["horizon"]) == (2, 2)


def test_one_seed_gives_the_same_weights_and_another_others(do: Do, job: Callable[..., FinetuneJob]) -> None:
    first, again, other = (do(job(dropout=0.2, seed=seed))[0] for seed in (7, 7, 8))
    assert gap(first, again) == 0
    assert gap(first, other) > 1e-3


# --- The loss -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def encoded(tiny_llama: Path) -> list[Encoded]:
    return encode(load_tokenizer(tiny_llama), tone_items(6), 64)[0]


def gradients(model: Any, loss: torch.Tensor) -> torch.Tensor:
    model.zero_grad()
    loss.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def test_the_loss_is_that_of_the_completions_tokens_only(tiny_llama: Path, encoded: list[Encoded]) -> None:
    model = load_model(tiny_llama, "cpu")
    batch = collate(encoded, 0, 0, "cpu")
    reference = torch.zeros(())
    for item in encoded:  # one item at a time, nothing padded
        row = torch.tensor([[*item.prompt, *item.completion, 0]])
        likely = model(input_ids=row).logits[0].log_softmax(-1)
        for position in range(len(item.prompt), row.shape[1]):
            reference = reference - likely[position - 1, row[0, position]]
    sliced, full = completion_loss(model, batch, sliced=True), completion_loss(model, batch, sliced=False)
    assert float(sliced.detach()) == pytest.approx(float(reference.detach()), rel=1e-5)
    assert float(full.detach()) == pytest.approx(float(reference.detach()), rel=1e-5)
    wanted = gradients(model, reference)
    for loss in (sliced, full):
        assert torch.allclose(gradients(model, loss), wanted, atol=1e-4)


def test_labels_are_the_completion_and_its_end_and_nothing_of_prompt_or_padding(encoded: list[Encoded]) -> None:
    batch = collate(encoded, 0, 9, "cpu")
    width = max(len(item.prompt) + len(item.completion) + 1 for item in encoded)
    assert batch["input_ids"].shape == (len(encoded), width)
    for row, item in enumerate(encoded):
        start, end = len(item.prompt), len(item.prompt) + len(item.completion) + 1
        labels = batch["labels"][row]
        assert labels[start:end].tolist() == [*item.completion, 0]
        assert set(labels[:start].tolist()) | set(labels[end:].tolist()) <= {-100}
        assert batch["attention_mask"][row].tolist() == [1] * end + [0] * (width - end)
        assert set(batch["input_ids"][row, end:].tolist()) <= {9}


def test_what_is_padded_does_not_count(tiny_llama: Path, encoded: list[Encoded]) -> None:
    model = load_model(tiny_llama, "cpu")
    with torch.no_grad():
        losses = [float(completion_loss(model, collate(encoded, 0, pad, "cpu"), sliced=True)) for pad in (0, 77)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_half_a_batch_accumulated_twice_is_the_whole_batch(
    do: Do, job: Callable[..., FinetuneJob], write_items: Write
) -> None:
    eight = write_items(tone_items(8))  # an epoch is one step, so both see the same items
    first = {"steps": 1, "data_file": eight, "max_grad_norm": 0.0}
    whole, one = do(job(**first, batch_size=8))
    halves, two = do(job(**first, batch_size=4, accumulation=2))
    assert one["loss"] == pytest.approx(two["loss"], abs=1e-5)
    assert gap(whole, halves) < 1e-5


def test_gradient_checkpointing_changes_nothing_but_memory(do: Do, job: Callable[..., FinetuneJob]) -> None:
    for base in ("none", "nf4"):
        plain, _ = do(job(quantized_base=base, dropout=0.3))
        saving, _ = do(job(quantized_base=base, dropout=0.3, gradient_checkpointing=True))
        assert gap(plain, saving) < 1e-6


def test_it_learns(do: Do, job: Callable[..., FinetuneJob], tiny_qwen2: Path) -> None:
    folder, result = do(job(steps=60, r=8, learning_rate=1e-2, base_dir=tiny_qwen2))
    curve = json.loads((folder / "state.json").read_text(encoding="utf-8"))["curve"]
    assert result["loss"] < 0.6 * curve[0][1]
    assert result["items"] == 24
    assert result["cut"] == 0
    assert result["step_s"] > 0


# --- Order and rate -----------------------------------------------------------------------------------------------

lengths_of = st.lists(st.integers(1, 60), min_size=1, max_size=70)


@settings(max_examples=60, deadline=None)
@given(lengths_of, st.integers(1, 9), st.integers(0, 5))
def test_every_epoch_has_every_item_once(lengths: list[int], size: int, seed: int) -> None:
    per_epoch = math.ceil(len(lengths) / size)
    stream = list(islice(batches(lengths, size, seed, 0), 3 * per_epoch))
    for epoch in range(3):
        part = stream[epoch * per_epoch : (epoch + 1) * per_epoch]
        assert Counter(i for batch in part for i in batch) == Counter(range(len(lengths)))
        assert all(1 <= len(batch) <= size for batch in part)


@settings(max_examples=60, deadline=None)
@given(lengths_of, st.integers(1, 9), st.integers(0, 5), st.integers(0, 40))
def test_a_stream_that_starts_later_goes_on(lengths: list[int], size: int, seed: int, start: int) -> None:
    whole = list(islice(batches(lengths, size, seed, 0), start + 12))
    assert list(islice(batches(lengths, size, seed, start), 12)) == whole[start:]


def test_another_seed_or_epoch_is_another_order() -> None:
    lengths = list(range(1, 41))
    epochs = list(islice(batches(lengths, 4, 0, 0), 20))
    assert epochs[:10] != epochs[10:]
    assert list(islice(batches(lengths, 4, 1, 0), 10)) != epochs[:10]


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_a_rate_rises_to_its_peak_and_falls_as_scheduled(schedule: str) -> None:
    settings_ = lora(schedule=schedule, warmup=0.1, learning_rate=2e-3)
    rates = [learning_rate(settings_, step, 100) for step in range(100)]
    assert all(0 < rate <= 2e-3 for rate in rates)
    assert rates[:10] == sorted(rates[:10])
    assert rates[10] == 2e-3
    rest = rates[10:]
    assert rest == ([2e-3] * 90 if schedule == "constant" else sorted(rest, reverse=True))
    if schedule == "linear":
        assert rates[55] == pytest.approx(1e-3)
        assert rates[-1] == pytest.approx(2e-3 / 90)
    if schedule == "cosine":
        assert rates[55] == pytest.approx(1e-3)
        assert rates[-1] < 2e-3 / 1000


def test_a_warmup_is_a_share_below_one_and_steps_from_one_on() -> None:
    by_share = [learning_rate(lora(warmup=0.2), step, 50) for step in range(50)]
    by_steps = [learning_rate(lora(warmup=10), step, 50) for step in range(50)]
    assert by_share == by_steps
    assert learning_rate(lora(warmup=0.0), 0, 50) == 5e-3
    assert all(learning_rate(lora(warmup=1000), step, 50) < 5e-3 for step in range(50))


def test_epochs_are_turned_into_steps(do: Do, job: Callable[..., FinetuneJob]) -> None:
    assert lora(steps=None, epochs=1.5).horizon(24) == 9
    assert lora(steps=None, epochs=1, accumulation=2).horizon(24) == 3
    assert lora(steps=None, epochs=0.001).horizon(24) == 1
    _, result = do(job(steps=None, epochs=1.5))
    assert (result["step"], result["horizon"]) == (9, 9)


# --- What is trained ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "modules"),
    [
        ("attention", {"q_proj", "k_proj", "v_proj", "o_proj"}),
        ("mlp", {"gate_proj", "up_proj", "down_proj"}),
        ("all-linear", {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}),
        ("q_proj", {"q_proj"}),
        (("v_proj", "q_proj"), {"q_proj", "v_proj"}),
    ],
)
def test_targets(do: Do, job: Callable[..., FinetuneJob], wanted: Any, modules: set[str]) -> None:
    folder, result = do(job(steps=1, target_modules=wanted))
    found = weights(folder)
    assert {name.split(".lora_")[0].rsplit(".", 1)[-1] for name in found} == modules
    assert sum(tensor.numel() for tensor in found.values()) == result["trainable"]


def test_targets_that_are_not_there_are_named(job: Callable[..., FinetuneJob], tmp_path: Path) -> None:
    with pytest.raises(StageError, match="no linear module named q_prj; it has down_proj, gate_proj") as caught:
        finetune(job(target_modules=("q_prj", "v_proj")), tmp_path)
    assert caught.value.status == "unsupported"


def test_a_head_that_is_the_embedding_is_refused_and_one_of_its_own_is_not(
    do: Do, job: Callable[..., FinetuneJob], tiny_qwen2: Path, tmp_path: Path
) -> None:
    with pytest.raises(StageError, match="lm_head shares its weights with the embedding") as caught:
        finetune(job(target_modules=("lm_head", "q_proj")), tmp_path)
    assert caught.value.status == "unsupported"
    assert do(job(target_modules=("lm_head", "q_proj"), base_dir=tiny_qwen2))[1]["step"] == 6


def test_a_preset_never_reaches_a_module_of_the_same_name_elsewhere() -> None:
    class Layer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.self_attn = torch.nn.ModuleDict({"out_proj": torch.nn.Linear(2, 2)})
            self.conv = torch.nn.ModuleDict({"out_proj": torch.nn.Linear(2, 2)})

    assert target_modules(Layer(), "attention") == ["self_attn.out_proj"]
    with pytest.raises(StageError, match="no modules for 'mlp'"):
        target_modules(Layer(), "mlp")


@pytest.mark.parametrize(
    "kind",
    [
        {"quantized_base": "nf4", "double_quant": True},
        {"quantized_base": "fp4"},
        {"quantized_base": "int8"},
        {"quantized_base": "nf4", "dora": True},
        {"quantized_base": "nf4", "dtype": "bf16"},
        {"dtype": "bf16"},
        {"rslora": True},
        {"dora": True, "rslora": True},
    ],
    ids=str,
)
def test_kinds_of_base_and_adapter(do: Do, job: Callable[..., FinetuneJob], kind: dict[str, Any]) -> None:
    plain, _ = do(job())
    folder, result = do(job(**kind))
    assert result["step"] == 6
    # A fresh adapter changes nothing, so the first loss is that of the base.
    first = [json.loads((f / "state.json").read_text(encoding="utf-8"))["curve"][0][1] for f in (plain, folder)]
    assert first[0] == pytest.approx(first[1], rel=0.05)
    assert result["loss"] < first[1]
    assert all(tensor.dtype == torch.float32 and bool(tensor.isfinite().all()) for tensor in weights(folder).values())
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["use_rslora"] is kind.get("rslora", False)
    assert config["use_dora"] is kind.get("dora", False)
    if not kind.get("dora"):
        assert gap(plain, folder) > 0


@pytest.mark.parametrize("kind", ["nf4", "fp4", "int8"])
def test_a_quantised_base_is_quantised_and_frozen(tiny_llama: Path, kind: str) -> None:
    base = load_model(tiny_llama, "cpu", torch.float32, kind, double_quant=kind == "nf4")
    layer = base.model.layers[0].mlp.up_proj
    assert layer.weight.dtype == (torch.int8 if kind == "int8" else torch.uint8)
    if kind != "int8":
        assert layer.weight.quant_state.nested is (kind == "nf4")
        assert layer.weight.quant_state.quant_type == kind
    model = adapt(base, lora(quantized_base=kind), 0)
    assert all(("lora_" in name) is p.requires_grad for name, p in model.named_parameters())


def test_dora_on_an_int8_base_is_refused_on_a_cpu(job: Callable[..., FinetuneJob], tmp_path: Path) -> None:
    with pytest.raises(StageError, match="dora on an int8 base") as caught:
        finetune(job(quantized_base="int8", dora=True), tmp_path)
    assert caught.value.status == "unsupported"


def test_threads_of_one_job_are_not_those_of_the_next(do: Do, job: Callable[..., FinetuneJob]) -> None:
    before = torch.get_num_threads()
    do(job(steps=1, threads=before + 1))
    assert torch.get_num_threads() == before + 1
    do(job(steps=1))
    assert torch.get_num_threads() == before


def test_auto_arithmetic_is_fp32_on_a_cpu() -> None:
    assert resolve_dtype("auto", "cpu") == torch.float32
    assert resolve_dtype("bf16", "cpu") == torch.bfloat16


# --- Failing ------------------------------------------------------------------------------------------------------


def test_a_rate_that_is_far_too_high_diverges(job: Callable[..., FinetuneJob], tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"loss became (nan|inf) at step 2 \(learning rate 1e\+37\)") as caught:
        finetune(job(warmup=0.0, learning_rate=1e37, schedule="constant", max_grad_norm=0.0), tmp_path)
    assert caught.value.status == "diverged"
    assert not list(tmp_path.iterdir())


def test_weights_that_are_not_finite_are_never_kept(do: Do, job: Callable[..., FinetuneJob], tmp_path: Path) -> None:
    folder, _ = do(job(steps=3, stop_at=2))
    file = folder / "optimizer.safetensors"
    broken = {name: t * float("nan") if name == "1.exp_avg" else t for name, t in load_file(file).items()}
    save_file(broken, file)
    with pytest.raises(StageError, match="weights are not finite after step 3") as caught:
        finetune(job(steps=3, checkpoint_dir=folder), tmp_path)
    assert caught.value.status == "diverged"
    assert not list(tmp_path.iterdir())


def test_a_time_limit_stops_it_but_not_in_its_last_step(
    do: Do, job: Callable[..., FinetuneJob], tmp_path: Path
) -> None:
    with pytest.raises(StageError, match=r"train.time_limit_s = 1e-09 at step 1 of 6") as caught:
        finetune(job(time_limit_s=1e-9), tmp_path)
    assert caught.value.status == "timeout"
    assert do(job(steps=1, time_limit_s=1e-9))[1]["step"] == 1


def test_a_prompt_that_is_too_long_loses_its_beginning(
    do: Do, job: Callable[..., FinetuneJob], write_items: Write
) -> None:
    items = tone_items(8)
    items[3]["prompt"] = "so it went on " * 30 + "\nTone:"
    _, result = do(job(steps=1, data_file=write_items(items)))
    assert result["cut"] == 1


def test_a_completion_that_is_too_long_is_refused(
    job: Callable[..., FinetuneJob], write_items: Write, tmp_path: Path
) -> None:
    items = tone_items(8)
    items[3]["completion"] = " on and on" * 30
    with pytest.raises(StageError, match=r"does not fit into max_length 64; raise train.max_length") as caught:
        finetune(job(data_file=write_items(items)), tmp_path)
    assert caught.value.status == "failed"


def test_no_cuda_is_said_plainly(job: Callable[..., FinetuneJob], tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(StageError, match="PyTorch sees no CUDA device") as caught:
        finetune(job(device="cuda"), tmp_path)
    assert caught.value.status == "unsupported"


def test_a_tokenizer_without_an_end_is_refused(
    job: Callable[..., FinetuneJob], tiny_llama: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for file in tiny_llama.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    del config["eos_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(StageError, match="no end-of-text token") as caught:
        finetune(job(base_dir=folder), tmp_path / "out")
    assert caught.value.status == "unsupported"
