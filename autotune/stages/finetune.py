"""Fine-tune a LoRA adapter, stop at a step, go on later as if nothing had happened.

Every random choice is a function of (seed, position): the adapter's first weights, the order of items, the dropout of
each forward pass. So a run needs no random state to continue: only adapter, optimiser and step are kept. A loop of our
own rather than a Trainer, because a Trainer keeps pickles and computes the logits of positions that nobody reads.
"""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

from autotune.candidate import Lora
from autotune.errors import Interrupted, StageError
from autotune.space.adapters import fit_modules
from autotune.stages.checkpoints import Checkpoints, Progress, restore, save
from autotune.stages.jobs import FinetuneJob
from autotune.stages.protocol import Result
from autotune.stages.text import Encoded, encode, end_token, load_tokenizer, read_items
from autotune.stages.torch_model import load_model, not_finite, resolve_device, resolve_dtype

WINDOW = 8
"""Batches whose items are sorted by length together, so that little is padded."""

_IGNORED = -100


def learning_rate(lora: Lora, step: int, horizon: int) -> float:
    """Return the learning rate of `step` (from 0): linear warm-up, then linear, cosine or constant."""
    warmup = lora.warmup * horizon if lora.warmup < 1 else lora.warmup
    if step < warmup:
        return lora.learning_rate * (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(1.0, horizon - warmup)
    factor = {"linear": 1 - progress, "cosine": 0.5 * (1 + math.cos(math.pi * progress)), "constant": 1.0}
    return lora.learning_rate * factor[lora.schedule]


def batches(lengths: list[int], batch_size: int, seed: int, start: int) -> Iterator[list[int]]:
    """Yield batches of item indices for ever, from batch number `start` on.

    Each epoch is its own permutation of all items, made from (seed, epoch). Items of similar length share a batch.
    """
    per_epoch = math.ceil(len(lengths) / batch_size)
    epoch, skip = divmod(start, per_epoch)
    while True:
        rng = np.random.default_rng([seed, epoch])
        order = rng.permutation(len(lengths))
        made: list[list[int]] = []
        for at in range(0, len(order), batch_size * WINDOW):
            window = sorted(order[at : at + batch_size * WINDOW].tolist(), key=lambda i: lengths[i])
            made += [window[k : k + batch_size] for k in range(0, len(window), batch_size)]
        for index in rng.permutation(len(made))[skip:]:
            yield made[index]
        epoch, skip = epoch + 1, 0


def given_tokens(item: Encoded, loss_on: str) -> int:
    """Return the number of tokens at the beginning of an item that have no loss: the prompt's, or the first alone.

    Nothing predicts the first token of a text.
    """
    return len(item.prompt) if loss_on == "completion" else 1


def collate(
    items: list[Encoded], end: int, pad: int, device: str, loss_on: str = "completion"
) -> dict[str, torch.Tensor]:
    """Return input_ids, attention_mask and labels, each (items, longest); labels of tokens without a loss are -100."""
    rows = [(*item.prompt, *item.completion, end) for item in items]
    width = max(map(len, rows))
    ids = torch.full((len(rows), width), pad)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    labels = torch.full((len(rows), width), _IGNORED)
    for index, (item, row) in enumerate(zip(items, rows, strict=True)):
        ids[index, : len(row)] = torch.tensor(row)
        mask[index, : len(row)] = 1
        first = given_tokens(item, loss_on)
        labels[index, first : len(row)] = ids[index, first : len(row)]
    return {"input_ids": ids.to(device), "attention_mask": mask.to(device), "labels": labels.to(device)}


def completion_loss(model: Any, batch: dict[str, torch.Tensor], sliced: bool) -> torch.Tensor:
    """Return the summed negative log-likelihood of the labelled tokens (nats).

    With `sliced`, logits are computed only at positions where some item of the batch has a label.
    """
    targets = batch["labels"][:, 1:]
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    if sliced:
        positions = (targets != _IGNORED).any(dim=0).nonzero().squeeze(1)
        logits = model(**inputs, logits_to_keep=positions).logits
        targets = targets[:, positions]
    else:
        logits = model(**inputs).logits[:, :-1]
    return torch.nn.functional.cross_entropy(
        logits.flatten(0, 1).float(), targets.flatten(), ignore_index=_IGNORED, reduction="sum"
    )


def _labelled(item: Encoded, loss_on: str) -> int:
    """Return the number of an item's tokens that have a loss, with the end-of-text token."""
    return len(item.prompt) + len(item.completion) + 1 - given_tokens(item, loss_on)


def target_modules(model: Any, wanted: str | tuple[str, ...]) -> str | list[str]:
    """Return PEFT's form of a preset or a list of module names.

    Raises StageError (`unsupported`) if no module matches, and for a head that shares its weights with the embedding.
    """
    if wanted == "all-linear":
        return wanted
    linear = {name: module for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    last = {name: name.rsplit(".", 1)[-1] for name in linear}
    if wanted in ("attention", "mlp"):
        parents = ("attn", "attention") if wanted == "attention" else ("mlp", "feed_forward", "ffn")
        inside = [n for n in linear if any(p in n.rpartition(".")[0].rsplit(".", 1)[-1] for p in parents)]
        if not inside:
            raise StageError(
                "unsupported", f"target_modules: this model has no modules for '{wanted}'; list their names"
            )
        found = {last[n] for n in inside}
        # PEFT matches by the last part of a name: where that means others too, only whole names will do.
        return sorted(found) if all(n in inside for n in linear if last[n] in found) else sorted(inside)
    asked = set(fit_modules((wanted,) if isinstance(wanted, str) else wanted, last.values()))
    missing = asked - set(last.values())
    if missing:
        message = f"target_modules: the model has no linear module named {', '.join(sorted(missing))}"
        raise StageError("unsupported", f"{message}; it has {', '.join(sorted(set(last.values())))}")
    embedding = model.get_input_embeddings()
    shared = sorted({last[n] for n, module in linear.items() if module.weight is embedding.weight} & asked)
    if shared:
        message = f"target_modules: {shared[0]} shares its weights with the embedding, which a merge would change too"
        raise StageError("unsupported", f"{message}; leave it out")
    return sorted(asked)


def adapt(model: Any, lora: Lora, seed: int) -> Any:
    """Return the model with a fresh adapter. Seeded before the adapter exists: its A matrices are random."""
    if lora.dora and lora.quantized_base == "int8" and model.device.type == "cpu":
        # PEFT moves the 8-bit weights on every forward pass, and bitsandbytes loses their scales on the way.
        raise StageError("unsupported", "dora on an int8 base does not train on a CPU; use nf4, fp4 or none")
    if lora.quantized_base != "none":
        # Its own gradient checkpointing is the re-entrant kind, which PyTorch is about to refuse.
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    if lora.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=target_modules(model, lora.target_modules),
        use_dora=lora.dora,
        use_rslora=lora.rslora,
    )
    torch.manual_seed(seed)
    return get_peft_model(model, config)


@dataclass(frozen=True)
class _Training:
    """What every step of a training needs: items, model, adapter and optimiser."""

    job: FinetuneJob
    device: str
    items: list[Encoded]
    cut: int
    """Items whose prompt lost its beginning."""
    end: int
    pad: int
    horizon: int
    base: Any
    model: Any
    """The base model with its adapter."""
    sliced: bool
    """Whether the model computes logits at the positions that are asked for alone."""
    parameters: list[torch.nn.Parameter]
    optimizer: torch.optim.Optimizer


def _set_up(job: FinetuneJob) -> _Training:
    """Read the items, load the model, and give it a fresh adapter and an optimiser."""
    lora = job.lora
    device = resolve_device(job.device)
    tokenizer = load_tokenizer(job.base_dir, job.encoding)
    end = end_token(tokenizer)
    items, cut = encode(tokenizer, read_items(job.data_file), lora.max_length)
    dtype = resolve_dtype(lora.dtype, device)
    base = load_model(job.base_dir, device, dtype, lora.quantized_base, bool(lora.double_quant), job.threads)
    sliced = "logits_to_keep" in inspect.signature(base.forward).parameters
    model = adapt(base, lora, job.seed)
    model.train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters, lr=lora.learning_rate, betas=(lora.adam_beta1, lora.adam_beta2), weight_decay=lora.weight_decay
    )
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else end
    horizon = job.horizon or lora.horizon(len(items))
    return _Training(job, device, items, cut, end, pad, horizon, base, model, sliced, parameters, optimizer)


def _step(training: _Training, step: int, micro: list[list[int]]) -> tuple[float, float]:
    """Do one step (from 0) on batches of item indices, whose gradients add up. Returns its loss and learning rate.

    Raises StageError: `diverged`; `failed` if the base model itself computes no finite numbers.
    """
    job, lora, optimizer = training.job, training.job.lora, training.optimizer
    parts = [[training.items[i] for i in batch] for batch in micro]
    tokens = sum(_labelled(item, lora.loss_on) for part in parts for item in part)
    rate = learning_rate(lora, step, training.horizon)
    for group in optimizer.param_groups:
        group["lr"] = rate
    total = 0.0
    for index, part in enumerate(parts):
        torch.manual_seed((job.seed * 1_000_003 + step * lora.accumulation + index) % 2**63)
        batch = collate(part, training.end, training.pad, training.device, lora.loss_on)
        loss = completion_loss(training.model, batch, training.sliced) / tokens
        loss.backward()  # type: ignore[no-untyped-call]
        total += loss.item()
    if not math.isfinite(total):
        if step == 0 and (trouble := not_finite(training.base)):
            raise StageError("failed", trouble)
        raise StageError("diverged", f"the training loss became {total} at step {step + 1} (learning rate {rate:.2g})")
    if lora.max_grad_norm > 0:
        norm = torch.nn.utils.clip_grad_norm_(training.parameters, lora.max_grad_norm)
        if not torch.isfinite(norm):
            raise StageError("diverged", f"the gradient became {norm.item()} at step {step + 1}")
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return total, rate


def _train(training: _Training, progress: Progress, stop_at: int, kept: Checkpoints) -> list[float]:
    """Train up to `stop_at`; `progress` grows. Returns the seconds of each step.

    Raises StageError: `diverged`, `timeout`, `failed`; Interrupted where `job.stop_file` asks for it, with a checkpoint kept.
    """
    job, lora, first = training.job, training.job.lora, progress.step
    lengths = [len(item.prompt) + len(item.completion) for item in training.items]
    feed = batches(lengths, lora.batch_size, job.seed, first * lora.accumulation)
    seconds = []
    for step in range(first, stop_at):
        started = time.perf_counter()
        loss, rate = _step(training, step, [next(feed) for _ in range(lora.accumulation)])
        seconds.append(time.perf_counter() - started)
        progress.add(loss, rate)
        if progress.step == stop_at:
            break
        ended = job.stop_file is not None and job.stop_file.exists()
        late = job.time_limit_s is not None and progress.spent_s > job.time_limit_s
        if ended or late or kept.due():
            kept.write(training.model, training.optimizer, progress)
        if ended:
            raise Interrupted
        if late:
            limit = f"train.time_limit_s = {job.time_limit_s:g}"
            raise StageError("timeout", f"training passed {limit} at step {progress.step} of {stop_at}")
    return seconds


def finetune(job: FinetuneJob, out: Path) -> Result:
    """Train up to `job.stop_at` and write adapter, optimiser and curve into `out`.

    Result: `step`, `horizon`, `loss` (mean over the last tenth of the steps, nats a token), `trainable` (parameters),
    `items`, `cut` (items whose prompt lost its beginning), `step_s` (median seconds of a step), `device`.
    Raises StageError: `diverged`, `timeout`, `unsupported`, `failed`; Interrupted where `job.stop_file` asks for it,
    with a checkpoint kept in `job.keep_dir`.
    """
    began = time.perf_counter()
    training = _set_up(job)
    kept = Checkpoints(job.keep_dir)
    before = kept.latest() or job.checkpoint_dir
    progress = Progress(training.horizon, began)
    if before is not None:
        progress.go_on(restore(training.model, training.optimizer, before))
    stop_at = min(job.stop_at or training.horizon, training.horizon)
    seconds = _train(training, progress, stop_at, kept)
    if not all(bool(torch.isfinite(p).all()) for p in training.parameters):
        raise StageError("diverged", f"the adapter's weights are not finite after step {stop_at}")
    save(training.model, training.optimizer, progress, out)
    tail = [loss for _, loss, _ in progress.curve[-max(1, len(progress.curve) // 10) :]]
    return {
        "step": stop_at,
        "horizon": training.horizon,
        "loss": sum(tail) / len(tail),
        "trainable": sum(p.numel() for p in training.parameters),
        "items": len(training.items),
        "cut": training.cut,
        "step_s": float(np.median(seconds)) if seconds else None,
        "device": training.device,
    }
