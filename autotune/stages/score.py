"""Score a model on items and keep the outcome of every item.

`choice` and `f1` compare the full log-likelihood of the labels after the prompt. The prompt is run once, its key-value
cache is shared by the labels, and the labels by a tree of their tokens, of which only what could win is run.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autotune.candidate import Session
from autotune.data.control import cut_at
from autotune.errors import StageError
from autotune.metrics import LABELLED
from autotune.stages.backends import Backend, OnnxBackend, Tokens, TorchBackend
from autotune.stages.jobs import ScoreJob
from autotune.stages.own_metric import evaluate, load_metric, nearest_reference, rouge_l, with_references
from autotune.stages.protocol import Result
from autotune.stages.text import Encoded, context_length, encode, end_token, end_tokens, load_tokenizer, read_items

TOKENS = 512
"""Tokens in one forward pass, about: more helps little on a CPU and costs memory for logits."""


def sound(logits: NDArray[Any]) -> NDArray[Any]:
    """Return the logits. Raises StageError (`failed`) where they have overflowed or are not numbers."""
    if not np.isfinite(logits.max()):
        raise StageError("failed", "the model's logits are infinite or not a number: it cannot be scored")
    return logits


def log_likelihood(logits: NDArray[np.float32], tokens: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
    """Return the log-probabilities of each row's tokens: logits (rows, vocabulary), tokens (rows, any number).

    In single precision but for the sum over the vocabulary: right to 1e-6 nats. Raises as `sound`.
    """
    sound(logits)
    highest = logits.max(axis=-1, keepdims=True)
    total = np.log(np.exp(logits - highest).sum(axis=-1, keepdims=True, dtype=np.float64))
    chosen = np.take_along_axis(logits, tokens, axis=-1).astype(np.float64)
    return np.asarray(chosen - highest - total, dtype=np.float64)


def groups(lengths: list[int], batched: bool, ragged: bool = False) -> Iterator[list[int]]:
    """Yield indices of items, the shortest first, at most about TOKENS tokens together with padding.

    The items of a group are of one length, unless `ragged`. One by one if not `batched`.
    """
    members: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        full = (len(members) + 1) * lengths[index] > TOKENS
        if members and (not batched or full or not (ragged or lengths[index] == lengths[members[0]])):
            yield members
            members = []
        members.append(index)
    if members:
        yield members


def label_tokens(tokenizer: Any, labels: tuple[str, ...]) -> list[tuple[int, ...]]:
    """Return the tokens of each label.

    Where one label's tokens begin another's, the end-of-text token is added to all: without it the longer could never
    be the more likely.
    """
    tokens = [tuple(tokenizer.encode(label, add_special_tokens=False)) for label in labels]
    if any(a != b and b[: len(a)] == a for a in tokens for b in tokens):
        tokens = [(*t, end_token(tokenizer)) for t in tokens]
    return tokens


class LabelTree:
    """The labels' tokens: `tokens` (labels, depth), padded with 0, and which labels begin with some tokens."""

    def __init__(self, labels: list[Tokens]) -> None:
        self.labels = labels
        self.lengths = np.array([len(label) for label in labels])
        self.tokens = np.array([[*label, *[0] * (self.lengths.max() - len(label))] for label in labels])
        self.under: dict[Tokens, list[int]] = {}
        for index, label in enumerate(labels):
            for depth in range(len(label)):
                self.under.setdefault(label[:depth], []).append(index)


class Race:
    """The search for one prompt's most likely label, best first.

    `scores` are the labels' log-likelihoods as far as they are `known` (tokens): of the others an upper bound, because
    log-probabilities only fall. No token is run that could be left out.
    """

    def __init__(self, tree: LabelTree) -> None:
        self.tree = tree
        self.scores = np.zeros(len(tree.labels))
        self.known = np.zeros(len(tree.labels), dtype=np.int64)

    def next(self) -> Tokens | None:
        """Return the tokens of the likeliest label so far, to ask what follows; None where a whole label has won."""
        whole = self.known == self.tree.lengths
        open_ = np.flatnonzero(~whole & (self.scores >= self.scores[whole].max(initial=-np.inf)))
        if not len(open_):
            return None
        best = int(open_[np.argmax(self.scores[open_])])
        return self.tree.labels[best][: self.known[best]]

    def learn(self, path: Tokens, likely: NDArray[np.float64]) -> None:
        """Take in the log-probability of every label's token after `path`."""
        members = self.tree.under[path]
        self.scores[members] += likely[members]
        self.known[members] += 1


def choose_labels(
    backend: Backend, items: list[Encoded], labels: list[Tokens], batched: bool = True
) -> tuple[list[int], list[float], NDArray[np.float64]]:
    """Return for each item the index of its most likely label, its lead over the second (nats), and the labels'
    log-likelihoods (items, labels).

    Of a label that was not run to its end the log-likelihood is an upper bound: if that is the second, the lead is at
    least the number given. Where a label passes the length of LongRoPE's short factors and its prompt does not, all labels
    are read with their prompts as whole texts, as an exported run.py reads them.
    """
    scores = np.zeros((len(items), len(labels)))
    tree = LabelTree(labels)
    for members in groups([len(item.prompt) for item in items], batched, backend.ragged):
        prompts = [items[i].prompt for i in members]
        most = len(prompts[0]) + tree.lengths.max()
        if backend.short_length is not None and len(prompts[0]) <= backend.short_length < most:
            scores[members] = _whole_texts(backend, prompts, labels)
        else:
            scores[members] = _raced(backend, prompts, tree)
    order = np.argsort(-scores, axis=1, kind="stable")
    leads = np.take_along_axis(scores, order[:, :1], axis=1) - np.take_along_axis(scores, order[:, 1:2], axis=1)
    return order[:, 0].tolist(), leads[:, 0].tolist(), scores


def _raced(backend: Backend, prompts: list[Tokens], tree: LabelTree) -> NDArray[np.float64]:
    """Return the labels' log-likelihoods after each prompt (prompts, labels), of labels that could not win an upper bound."""
    branches = backend.branch(prompts)
    races = [Race(tree) for _ in prompts]
    asked: list[tuple[int, Tokens]] = [(row, ()) for row in range(len(prompts))]
    logits = branches.logits
    while asked:
        likely = log_likelihood(logits, tree.tokens[:, [len(path) for _, path in asked]].T)
        for (row, path), values in zip(asked, likely, strict=True):
            races[row].learn(path, values)
        following = [(row, race.next()) for row, race in enumerate(races)]
        asked = [(row, path) for row, path in following if path is not None]
        if asked:
            logits = branches.after(asked)
    return np.array([race.scores for race in races])


def _whole_texts(backend: Backend, prompts: list[Tokens], labels: list[Tokens]) -> NDArray[np.float64]:
    """Return the log-likelihood of each label after each prompt (prompts, labels), each read as one text with its prompt.

    The prompts are of one length.
    """
    start = len(prompts[0]) - 1
    found = np.zeros((len(prompts), len(labels)))
    for place, label in enumerate(labels):
        read = backend.read([(*prompt, *label) for prompt in prompts], [start] * len(prompts))
        tokens = np.array(label)[:, None]
        found[:, place] = [log_likelihood(logits[:-1], tokens).sum() for logits in read]
    return found


def label_loss(scores: NDArray[np.float64], gold: list[int]) -> NDArray[np.float64]:
    """Return each item's cross-entropy over the labels (nats): scores (items, labels), gold (items,)."""
    highest = scores.max(axis=1)
    total = highest + np.log(np.exp(scores - highest[:, None]).sum(axis=1))
    return np.asarray(total - scores[np.arange(len(gold)), gold])


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
            length = ids.shape[1] + position + 1
            if backend.recomputed_at is not None and length == backend.recomputed_at + 1:
                whole = np.array([(*items[i].prompt, *tokens[i]) for i in active], dtype=np.int64)
                logits, cache = backend.run(whole, keep=True, last=True)
                continue
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
    for members in groups([len(item.prompt) + len(item.completion) for item in items], batched, backend.ragged):
        texts = [(items[i].prompt + items[i].completion)[:-1] for i in members]
        found = backend.read(texts, [len(items[i].prompt) - 1 for i in members])
        for logits, index in zip(found, members, strict=True):
            tokens = np.array(items[index].completion)[:, None]
            nll[index] = -float(log_likelihood(logits, tokens).sum())
    return nll


def open_backend(job: ScoreJob) -> Backend:
    """Load what a job scores: a build on its provider, or a model in PyTorch. Raises StageError."""
    if job.provider is None:
        return TorchBackend(job.model_dir, job.adapter_dir, job.device or "cpu", job.threads, job.dtype or "auto")
    return OnnxBackend(
        job.model_dir, job.provider, job.threads, Session(provider_options=job.provider_options).options,
        device=job.device_index,
    )  # fmt: skip


def _chosen(
    job: ScoreJob, backend: Backend, items: list[Encoded], labels: list[tuple[int, ...]]
) -> dict[str, list[Any]]:
    """Return the outcomes of choosing a label for every item."""
    predicted, margins, scores = choose_labels(backend, items, labels, job.batched)
    gold = [job.labels.index(item.text) for item in items]
    return {
        "predicted": predicted,
        "gold": gold,
        "margin": [round(margin, 6) for margin in margins],
        "loss": [round(float(loss), 6) for loss in label_loss(scores, gold)],
    }


def _generated(
    job: ScoreJob, backend: Backend, tokenizer: Any, items: list[Encoded], given: list[dict[str, Any]], limit: int
) -> dict[str, list[Any]]:
    """Return the outcomes of generating at most `limit` tokens for every item; `given`: the items as they were read."""
    _room(job.model_dir, items, limit)
    ends = end_tokens(job.model_dir, tokenizer)
    texts = generate(backend, items, tokenizer, ends, limit, job.batched, job.stop or ())
    predicted = [text.strip() for text in texts]
    if job.metric == "rouge_l":
        return {"predicted": predicted, "values": evaluate("rouge_l", rouge_l(), predicted, given)}
    if job.code is not None:
        assert job.code_file is not None
        function = load_metric(job.metric, job.code, job.code_file, job.code_root)
        return {"predicted": predicted, "values": evaluate(job.metric, function, predicted, given)}
    return {
        "predicted": predicted,
        "gold": [nearest_reference(text, item) for text, item in zip(predicted, given, strict=True)],
    }


def score(job: ScoreJob, out: Path) -> Result:
    """Score `job.model_dir` and write `outcomes.json` into `out`: the outcome of every item, in the items' order.

    choice, f1: `predicted` and `gold` (indices into the labels), `margin` (nats), `loss` (cross-entropy over the labels,
    nats; a label that was given up early counts with what it had); exact_match: `predicted` and `gold` texts; rouge_l, a
    user's own function: `predicted` texts and `values`; perplexity: `nll` and `tokens`. Where a prompt has several
    completions, exact_match and rouge_l count the one that fits best.
    Result: `items`, `cut` (items whose prompt lost its beginning), `load_s`. Raises StageError: `failed`, `unsupported`.
    """
    began = time.perf_counter()
    backend = open_backend(job)
    load_s = time.perf_counter() - began
    tokenizer = load_tokenizer(job.model_dir, job.encoding)
    labels = label_tokens(tokenizer, job.labels)
    longest = max(map(len, labels), default=0)
    given = read_items(job.data_file)
    items, cut = encode(tokenizer, given, job.max_length, longest)
    if job.metric in ("exact_match", "rouge_l"):
        given = with_references(given)
    answer = max(len(item.completion) for item in items)
    if job.block is not None:
        places = sorted(range(len(given)), key=lambda place: given[place]["id"])[slice(*job.block)]
        given, items = [given[place] for place in places], [items[place] for place in places]
    if job.metric in LABELLED:
        found = _chosen(job, backend, items, labels)
    elif job.metric == "perplexity":
        found = {
            "nll": [round(value, 6) for value in completion_nll(backend, items, job.batched)],
            "tokens": [len(item.completion) for item in items],
        }
    else:
        found = _generated(job, backend, tokenizer, items, given, job.max_new_tokens or answer + 1)
    outcomes = {"ids": [item.id for item in items], **found}
    (out / "outcomes.json").write_text(json.dumps(outcomes, ensure_ascii=False), encoding="utf-8")
    return {"items": len(items), "cut": cut, "load_s": load_s}
