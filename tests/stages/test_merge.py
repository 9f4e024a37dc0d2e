"""A merged model is the base with its adapter, in the base's own precision."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Do
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from autotune.errors import StageError
from autotune.space.adapters import resolve_lora
from autotune.stages.jobs import FinetuneJob, MergeJob
from autotune.stages.merge import merge
from autotune.stages.text import load_tokenizer

IDS = torch.tensor([[5, 70, 300, 20, 11, 9, 400, 3], [401, 8, 8, 100, 200, 300, 17, 2]])
Train = Callable[..., Path]


def merge_job(base: Path, adapter: Path) -> MergeJob:
    return MergeJob(adapter="a", base="b", base_dir=base, adapter_dir=adapter)


@pytest.fixture(scope="session")
def train(do: Do, items_file: Path) -> Train:
    """Train an adapter far enough that it matters: `folder = train(base, dora=True)`."""

    def run(base: Path, **changes: Any) -> Path:
        small = {"r": 4, "steps": 12, "batch_size": 4, "max_length": 64, "learning_rate": 1e-2}
        lora = resolve_lora({**small, **changes})
        job = FinetuneJob(base="b", data="d", lora=lora, seed=0, device="cpu", base_dir=base, data_file=items_file)
        return do(job)[0]

    return run


@torch.no_grad()
def logits(folder: Path, adapter: Path | None = None) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, str(adapter))
    found: torch.Tensor = model.eval()(IDS).logits
    return found


@pytest.mark.parametrize(
    "kind",
    [
        {},
        {"dora": True},
        {"rslora": True},
        {"dora": True, "rslora": True, "target_modules": "attention"},
        {"quantized_base": "nf4"},
        {"quantized_base": "nf4", "double_quant": True, "dora": True},
        {"quantized_base": "int8"},
        {"dtype": "bf16"},
    ],
    ids=str,
)
def test_it_gives_the_logits_of_the_adapter_on_the_original_base(
    do: Do, train: Train, tiny_llama: Path, kind: dict[str, Any]
) -> None:
    adapter = train(tiny_llama, **kind)
    folder, result = do(merge_job(tiny_llama, adapter))
    assert result == {"dtype": "float32"}
    together = logits(tiny_llama, adapter)
    assert torch.allclose(logits(folder), together, atol=1e-4)
    assert float((logits(tiny_llama) - together).abs().max()) > 0.1  # the adapter does something


def test_a_head_of_its_own_is_merged_too(do: Do, train: Train, tiny_qwen2: Path) -> None:
    adapter = train(tiny_qwen2, target_modules=("lm_head", "q_proj"))
    folder, _ = do(merge_job(tiny_qwen2, adapter))
    assert torch.allclose(logits(folder), logits(tiny_qwen2, adapter), atol=1e-4)


def test_it_is_a_model_folder_like_the_base(do: Do, train: Train, tiny_llama: Path) -> None:
    folder, _ = do(merge_job(tiny_llama, train(tiny_llama)))
    mine, base = (json.loads((f / "config.json").read_text(encoding="utf-8")) for f in (folder, tiny_llama))
    assert mine == base
    assert load_file(folder / "model.safetensors").keys() == load_file(tiny_llama / "model.safetensors").keys()
    text = "Text: äöü 🙂\nTone: joy"
    assert load_tokenizer(folder).encode(text) == load_tokenizer(tiny_llama).encode(text)
    assert load_tokenizer(folder).chat_template == load_tokenizer(tiny_llama).chat_template


def test_a_base_keeps_the_precision_that_it_was_saved_in(
    do: Do, train: Train, tiny_llama: Path, tmp_path: Path
) -> None:
    half = tmp_path / "bf16"
    AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.bfloat16).save_pretrained(half)
    load_tokenizer(tiny_llama).save_pretrained(half)
    folder, result = do(merge_job(half, train(half)))
    assert result == {"dtype": "bfloat16"}
    assert {t.dtype for t in load_file(folder / "model.safetensors").values()} == {torch.bfloat16}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_adapter_that_is_not_finite_has_diverged(
    train: Train, tiny_llama: Path, tmp_path: Path, value: float
) -> None:
    adapter = tmp_path / "adapter"
    shutil.copytree(train(tiny_llama), adapter)
    tensors = load_file(adapter / "adapter_model.safetensors")
    name = next(name for name in tensors if "lora_B" in name)
    tensors[name][0, 0] = value
    save_file(tensors, adapter / "adapter_model.safetensors")
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(StageError, match="cannot be merged") as caught:
        merge(merge_job(tiny_llama, adapter), out)
    assert caught.value.status == "diverged"
    assert not list(out.iterdir())
