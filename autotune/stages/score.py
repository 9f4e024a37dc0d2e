"""Score a model on items and keep the outcome of every item.

`choice` and `f1` compare the full log-likelihood of every label after the prompt; the prompt is run once and its
key-value cache shared by the labels. A label whose first tokens are already less likely than another whole label is
not run to its end: log-probabilities only fall, so it cannot win any more.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autotune.errors import StageError
from autotune.metrics import LABELLED
from autotune.stages.backends import Backend, OnnxBackend, TorchBackend
from autotune.stages.custom import evaluate, load_metric, rouge_l
from autotune.stages.jobs import Result, ScoreJob
from autotune.stages.text import Encoded, context_length, encode, end_token, end_tokens, load_tokenizer, read_items

TOKENS = 512
"""Tokens in one forward pass, about: more helps little on a CPU and costs memory for logits."""
LABELS = 16
"""Labels that are run together after a prompt."""


def sound(logits: NDArray[Any]) -> NDArray[Any]:
    """Return the logits. Raises StageError (`failed`) where they have overflowed or are not numbers."""
    if not np.isfinite(logits.max()):
        raise StageError("failed", "the model's logits are infinite or not a number: it cannot be scored")
    return logits


def log_softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Return log-probabilities along the last axis, in double precision. Raises as `sound`."""
    sound(logits)
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)), dtype=np.float64)


def groups(lengths: list[int], batched: bool) -> Iterator[list[int]]:
    """Yield indices of items of one length each, at most about TOKENS tokens together; one by one if not `batched`."""
    by_length: dict[int, list[int]] = {}
    for index, length in enumerate(lengths):
        by_length.setdefault(length, []).append(index)
    for length in sorted(by_length):
        size = max(1, TOKENS // length) if batched else 1
        members = by_length[length]
        for at in range(0, len(members), size):
            yield members[at : at + size]


def label_tokens(tokenizer: Any, labels: tuple[str, ...]) -> list[tuple[int, ...]]:
    """Return the tokens of each label.

    Where one label's tokens begin another's, the end-of-text token is added to all: without it the longer could never
    be the more likely.
    """
    tokens = [tuple(tokenizer.encode(label, add_special_tokens=False)) for label in labels]
    if any(a != b and b[: len(a)] == a for a in tokens for b in tokens):
        tokens = [(*t, end_token(tokenizer)) for t in tokens]
    return tokens


def choose_labels(
    backend: Backend, items: list[Encoded], labels: list[tuple[int, ...]], batched: bool = True
) -> tuple[list[int], list[float]]:
    """Return for each item the index of its most likely label, and its lead over the second (nats).

    Where the second was not run to its end, the lead is at least the number given.
    """
    chosen, margins = [0] * len(items), [0.0] * len(items)
    longest = max(map(len, labels))
    first = np.array([label[0] for label in labels])
    for members in groups([len(item.prompt) for item in items], batched):
        ids = np.array([items[i].prompt for i in members], dtype=np.int64)
        logits, cache = backend.run(ids, keep=longest > 1, last=True)
        start = log_softmax(logits[:, -1])[:, first]
        for row, index in enumerate(members):
            scores = start[row]
            if longest > 1:
                scores = _finish(backend, cache, row, scores, labels, batched)
            order = np.argsort(-scores, kind="stable")
            chosen[index] = int(order[0])
            margins[index] = float(scores[order[0]] - scores[order[1]])
    return chosen, margins


def _finish(
    backend: Backend, cache: Any, row: int, bounds: NDArray[np.float64], labels: list[tuple[int, ...]], batched: bool
) -> NDArray[np.float64]:
    """Return the log-likelihood of every label that could win; of the others an upper bound below the winner's."""
    scores = bounds.copy()
    done = np.array([len(label) == 1 for label in labels])
    while not done.all():
        best = scores[done].max() if done.any() else -np.inf
        open_ = [i for i in np.argsort(-scores, kind="stable") if not done[i] and scores[i] >= best]
        if not open_:
            break
        part = open_[: LABELS if batched else 1]
        width = max(len(labels[i]) for i in part) - 1
        ids = np.array([[*labels[i][:-1], *[0] * (width - len(labels[i]) + 1)] for i in part], dtype=np.int64)
        logits, _ = backend.run(ids, backend.repeat(cache, row, len(part)))
        likely = log_softmax(logits)
        for k, i in enumerate(part):
            rest = labels[i][1:]
            scores[i] = bounds[i] + sum(likely[k, position, token] for position, token in enumerate(rest))
            done[i] = True
    return scores


def cut_at(text: str, stops: Collection[str]) -> str:
    """Return the text before the first of the `stops`."""
    return text[: min((at for at in map(text.find, stops) if at >= 0), default=len(text))]


def generate(
    backend: Backend,
    items: list[Encoded],
    tokenizer: Any,
    ends: Collection[int],
    limit: int,
    batched: bool = True,
    stops: Collection[str] = (),
) -> list[str]:
    """Return each prompt's greedy continuation up to one of the tokens `ends` or texts `stops`, or to `limit` tokens.

    The stop is not part of what is returned.
    """
    texts = [""] * len(items)
    for members in groups([len(item.prompt) for item in items], batched):
        ids = np.array([items[i].prompt for i in members], dtype=np.int64)
        logits, cache = backend.run(ids, keep=True, last=True)
        tokens: dict[int, list[int]] = {i: [] for i in members}
        active = list(members)
        for position in range(limit):
            following = sound(logits[:, -1]).argmax(axis=-1)
            keep = [k for k in range(len(active)) if int(following[k]) not in ends]
            for k in keep:
                tokens[active[k]].append(int(following[k]))
            if stops:  # a stop may begin inside of one token and end inside of another
                written = {k: tokenizer.decode(tokens[active[k]], skip_special_tokens=True) for k in keep}
                keep = [k for k in keep if cut_at(written[k], stops) == written[k]]
            if not keep or position == limit - 1:
                break
            if len(keep) < len(active):
                active, cache = [active[k] for k in keep], backend.select(cache, keep)
            logits, cache = backend.run(following[keep][:, None].astype(np.int64), cache, keep=True)
        for i in members:
            texts[i] = cut_at(tokenizer.decode(tokens[i], skip_special_tokens=True), stops)
    return texts


def _room(folder: Path, items: list[Encoded], limit: int) -> None:
    """Raise StageError (`failed`) where the model's context cannot hold a prompt and `limit` more tokens."""
    longest = max(len(item.prompt) for item in items)
    context = context_length(folder)
    if context is not None and longest + limit > context:
        message = f"a prompt of {longest} tokens and {limit} new ones do not fit into the model's {context}"
        raise StageError("failed", f"{message}; lower data.max_new_tokens or train.max_length")


def completion_nll(backend: Backend, items: list[Encoded], batched: bool = True) -> list[float]:
    """Return each item's negative log-likelihood of its completion (nats, summed over its tokens)."""
    nll = [0.0] * len(items)
    for members in groups([len(item.prompt) + len(item.completion) for item in items], batched):
        ids = np.array([items[i].prompt + items[i].completion for i in members], dtype=np.int64)
        logits, _ = backend.run(ids[:, :-1])
        for row, index in enumerate(members):
            start = len(items[index].prompt)
            likely = log_softmax(logits[row, start - 1 :])
            nll[index] = -float(sum(likely[k, token] for k, token in enumerate(items[index].completion)))
    return nll


def open_backend(job: ScoreJob) -> Backend:
    """Load what a job scores: a build on its provider, or a model in PyTorch. Raises StageError."""
    if job.provider is None:
        return TorchBackend(job.model_dir, job.adapter_dir, job.device or "cpu", job.threads)
    return OnnxBackend(job.model_dir, job.provider, job.threads)


def score(job: ScoreJob, out: Path) -> Result:
    """Score `job.model_dir` and write `outcomes.json` into `out`: the outcome of every item, in the items' order.

    choice, f1: `predicted` and `gold` (indices into the labels), `margin` (nats); exact_match: `predicted` and `gold`
    texts; rouge_l, a user's own function: `predicted` texts and `values`; perplexity: `nll` and `tokens`. Raises StageError: `failed`, `unsupported`.
    """
    backend = open_backend(job)
    tokenizer = load_tokenizer(job.model_dir)
    labels = label_tokens(tokenizer, job.labels)
    longest = max(map(len, labels), default=0)
    given = read_items(job.data_file)
    items, cut = encode(tokenizer, given, job.max_length, longest)
    outcomes: dict[str, Any] = {"ids": [item.id for item in items]}
    if job.metric in LABELLED:
        predicted, margins = choose_labels(backend, items, labels, job.batched)
        outcomes |= {
            "predicted": predicted,
            "gold": [job.labels.index(item.text) for item in items],
            "margin": [round(margin, 6) for margin in margins],
        }
    elif job.metric != "perplexity":
        limit = job.max_new_tokens or max(len(item.completion) for item in items) + 1
        _room(job.model_dir, items, limit)
        ends = end_tokens(job.model_dir, tokenizer)
        texts = generate(backend, items, tokenizer, ends, limit, job.batched, job.stop or ())
        outcomes["predicted"] = [text.strip() for text in texts]
        if job.metric == "rouge_l":
            outcomes["values"] = evaluate("rouge_l", rouge_l(), outcomes["predicted"], given)
        elif job.code is not None:
            assert job.code_file is not None
            function = load_metric(job.metric, job.code, job.code_file, job.code_root)
            outcomes["values"] = evaluate(job.metric, function, outcomes["predicted"], given)
        else:
            outcomes["gold"] = [item.text.strip() for item in items]
    else:
        outcomes |= {
            "nll": [round(value, 6) for value in completion_nll(backend, items, job.batched)],
            "tokens": [len(item.completion) for item in items],
        }
    (out / "outcomes.json").write_text(json.dumps(outcomes, ensure_ascii=False), encoding="utf-8")
    return {"items": len(items), "cut": cut}
