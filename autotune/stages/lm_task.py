"""Score a model on a task of lm-evaluation-harness, or a group of them: its prompts, its metrics, our model on our provider.

The harness asks a model for three things: the log-likelihood of a continuation, that of a whole text, and a greedy
continuation. They are answered by the backend of the score stage, so that what is scored is the build that ships.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Callable
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
from lm_eval.api.model import TemplateLM
from lm_eval.api.task import Task
from lm_eval.defaults import DEFAULT_OTHER_SEED
from lm_eval.evaluator import evaluate
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from autotune.analysis.scores import PARTS
from autotune.errors import StageError
from autotune.metrics import task_of
from autotune.stages.backends import Backend
from autotune.stages.check_build import compare, texts_of
from autotune.stages.jobs import TaskCheckJob, TaskScoreJob
from autotune.stages.library_errors import reason
from autotune.stages.lm_load import Loaded, load_tasks
from autotune.stages.preparation_jobs import TaskJob
from autotune.stages.protocol import Result
from autotune.stages.score import generate, groups, log_likelihood, open_backend
from autotune.stages.text import Encoded, context_length, end_token, end_tokens, load_tokenizer, prompt_ids
from autotune.tasks import Group

_CAP_SALT = "autotune/max_items/1"
NEW_TOKENS = 256
"""Tokens to generate where a task does not say: the harness's own default."""
RESAMPLES = 500


def _text(doc: Any) -> str:
    return json.dumps(doc, sort_keys=True, ensure_ascii=False, default=str)


def _narrow(task: Task, split: str) -> list[Any]:
    """Have a task evaluate one of its splits, and return the documents there."""
    if split == "validation" and task.has_validation_docs():
        task.set_config("test_split", None)
    return list(task.eval_docs)


def read(job: TaskJob, out: Path) -> Result:
    """Read a task or group: write for each split that it has what is scored, `validation.json` and `test.json`.

    A task with one split only is searched on that one, and a group with a task that has only one. Result: `metric`,
    `higher_is_better`, `mean` (whether the score is the mean of the items'), and of each split its digest and its number
    of items. Raises StageError (`failed`, `unsupported`).
    """
    loaded = load_tasks(job.metric, job.file)
    both = all(task.has_validation_docs() and task.has_test_docs() for task in loaded.tasks.values())
    splits: Result = {}
    for split in ("test", "validation") if both else ("validation",):
        documents = {name: [_text(doc) for doc in _narrow(task, split)] for name, task in loaded.tasks.items()}
        if loaded.group is not None:  # two tasks may ask different things of one document
            documents = {name: [f"{name}\n{text}" for text in texts] for name, texts in documents.items()}
        for name, texts in documents.items():
            if not texts:
                said = f"the task {name if loaded.group is not None else task_of(job.metric)[0]} has no {split} items"
                raise StageError("failed", said)
        limit = {"validation": job.max_validation, "test": job.max_test}[split]
        drawn = _draw(documents, limit, loaded)
        ids = [
            hashlib.sha256(documents[name][i].encode()).hexdigest()[:16]
            for name, chosen in drawn.items()
            for i in chosen
        ]
        indices: Any = drawn if loaded.group is not None else next(iter(drawn.values()))
        (out / f"{split}.json").write_text(json.dumps({"split": split, "indices": indices, "ids": ids}), "utf-8")
        content = hashlib.sha256("\n".join([job.code, split, *ids]).encode()).hexdigest()
        splits[split] = {"digest": content, "items": len(ids)}
    task = next(iter(loaded.tasks.values()))
    return {
        "metric": loaded.metric,
        "higher_is_better": bool(task.higher_is_better()[loaded.metric]),
        "mean": loaded.is_mean,
        "splits": splits,
    }


def _draw(documents: dict[str, list[str]], limit: int | None, loaded: Loaded) -> dict[str, list[int]]:
    """Return of each task which documents are scored, in order: all, or so many of them together, drawn by content.

    Where each task of a group counts the same, each gives the same number while it has more. Raises StageError.
    """
    places = [(name, i) for name, texts in documents.items() for i in range(len(texts))]
    if limit is None or limit >= len(places):
        return {name: list(range(len(texts))) for name, texts in documents.items()}
    order = {
        place: hashlib.sha256(f"{_CAP_SALT}\n{documents[place[0]][place[1]]}".encode()).digest() for place in places
    }
    if loaded.is_mean or loaded.group is None:
        chosen = sorted(places, key=order.__getitem__)[:limit]
    elif limit < len(documents):
        said = f"each of the {len(documents)} tasks of {loaded.group.name} counts the same, so max_items needs as many at least"
        raise StageError("failed", said)
    else:
        ranked = {name: sorted((p for p in places if p[0] == name), key=order.__getitem__) for name in documents}
        turns = [(turn, place) for own in ranked.values() for turn, place in enumerate(own)]
        chosen = [place for _, place in sorted(turns, key=lambda one: (one[0], order[one[1]]))[:limit]]
    return {name: sorted(i for own, i in chosen if own == name) for name in documents}


class _Model(TemplateLM):  # type: ignore[misc]
    """The harness's view of a backend."""

    def __init__(self, backend: Backend, tokenizer: Any, folder: Path, batched: bool) -> None:
        super().__init__()
        self.backend_, self.tokenizer, self.folder, self.batched = backend, tokenizer, folder, batched
        self.max_length = context_length(folder) or 2048

    @property
    def eot_token_id(self) -> int:
        return end_token(self.tokenizer)

    @property
    def prefix_token_id(self) -> int:
        begin = self.tokenizer.bos_token_id
        return self.eot_token_id if begin is None else int(begin)

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        first = self.tokenizer.decode(self.prefix_token_id)
        if add_special_tokens is None and first and string.startswith(first):
            add_special_tokens = False
        special = {} if add_special_tokens is None else {"add_special_tokens": add_special_tokens}
        return list(self.tokenizer.encode(string, **special))

    def _loglikelihood_tokens(self, requests: list[Any], **_: Any) -> list[tuple[float, bool]]:
        """Return of each (_, context, continuation) the log-likelihood (nats), and whether it is the greedy one."""
        rows = []
        for _, context, continuation in requests:
            if len(continuation) > self.max_length:
                message = (
                    f"a continuation of {len(continuation)} tokens does not fit into the model's {self.max_length}"
                )
                raise StageError("failed", message)
            rows.append(([*context, *continuation][-(self.max_length + 1) :], len(continuation)))
        found = [(0.0, True)] * len(rows)
        backend = self.backend_
        for members in groups([len(ids) for ids, _ in rows], self.batched, backend.ragged):
            texts = [tuple(rows[i][0][:-1]) for i in members]
            read = backend.read(texts, [len(rows[i][0]) - rows[i][1] - 1 for i in members])
            for logits, index in zip(read, members, strict=True):
                ids, count = rows[index]
                tokens = np.array(ids[len(ids) - count :])
                total = float(log_likelihood(logits, tokens[:, None]).sum())
                found[index] = (total, bool((logits.argmax(axis=-1) == tokens).all()))
        return found

    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> list[float]:
        del disable_tqdm
        totals = []
        for request in requests:
            tokens = self.tok_encode(request.args[0])
            windows = get_rolling_token_windows(tokens, self.prefix_token_id, self.max_length, 1)
            parts = [(None, *make_disjoint_window(window)) for window in windows]
            totals.append(sum(value for value, _ in self._loglikelihood_tokens(parts)))
        return totals

    def generate_until(self, requests: Any, disable_tqdm: bool = False) -> list[str]:
        del disable_tqdm
        texts = [""] * len(requests)
        ends = end_tokens(self.folder, self.tokenizer)
        alike: dict[tuple[tuple[str, ...], int], list[int]] = {}
        for index, request in enumerate(requests):
            wanted = normalize_gen_kwargs(dict(request.args[1]), NEW_TOKENS)
            if wanted.get("do_sample"):
                raise StageError("unsupported", "the task draws its answers at random; only greedy ones are scored")
            until = wanted.get("until") or []
            stops = tuple(stop for stop in ([until] if isinstance(until, str) else until) if stop)
            alike.setdefault((stops, int(wanted["max_gen_toks"])), []).append(index)
        for (stops, limit), members in alike.items():
            room = self.max_length - limit
            if room < 1:
                raise StageError("failed", f"{limit} new tokens do not fit into the model's {self.max_length}")
            prompts = [tuple(self.tok_encode(requests[i].args[0])[-room:]) for i in members]
            items = [Encoded(str(i), prompt, (), "") for i, prompt in zip(members, prompts, strict=True)]
            for i, text in zip(
                members, generate(self.backend_, items, self.tokenizer, ends, limit, self.batched, stops), strict=True
            ):
                texts[i] = text
        return texts


def score(job: TaskScoreJob, out: Path) -> Result:
    """Score `job.model_dir` on a task or group and write `outcomes.json` into `out`, in the order of its items.

    `values` of the items where the score is their mean; elsewhere `score` with `low` and `high`, its 95 % bootstrap
    interval, and `parts`, each item's part in it (`_parts`). `stderr` is the harness's own, of one task. Raises
    StageError: `failed`, `unsupported`.
    """
    wanted = json.loads(job.data_file.read_text(encoding="utf-8"))
    assert job.code_file is not None
    loaded = load_tasks(job.metric, job.code_file)
    indices = _indices(loaded, wanted)
    for name in indices:
        task = loaded.tasks[name]
        _narrow(task, wanted["split"])
        if task.get_config("num_fewshot") is None:
            task.set_config("num_fewshot", 0)
        task.set_fewshot_seed(seed=DEFAULT_OTHER_SEED)
    model = _Model(open_backend(job), load_tokenizer(job.model_dir, job.encoding), job.model_dir, job.batched)
    tasks = {name: loaded.tasks[name] for name in indices}
    try:
        found = evaluate(model, {"tasks": tasks}, samples=indices, bootstrap_iters=RESAMPLES)
    except (StageError, MemoryError):
        raise
    except (Exception, SystemExit) as error:
        raise StageError("failed", f"score: {job.metric} raised {type(error).__name__}: {reason(error)}") from error
    outcomes: dict[str, Any] = {"ids": wanted["ids"], "stderr": None}
    if loaded.group is not None:
        outcomes |= _of_group(loaded.group, found, indices)
    else:
        outcomes |= _of_task(job.metric, loaded, found, len(wanted["ids"]))
    (out / "outcomes.json").write_text(json.dumps(outcomes), encoding="utf-8")
    return {"items": len(wanted["ids"]), "cut": 0}


def _indices(loaded: Loaded, wanted: dict[str, Any]) -> dict[str, list[int]]:
    """Return which documents of each task are scored, of those tasks that have some."""
    indices = wanted["indices"]
    if loaded.group is None:
        return dict.fromkeys(loaded.tasks, indices)
    return {name: chosen for name, chosen in indices.items() if chosen}


def _shares(found: Any, name: str, metric: str, filters: tuple[str, ...]) -> tuple[list[Any], str]:
    """Return the items' numbers of a task, and the filter of answers that they are of: the first that is meant."""
    samples = found["samples"][name]
    chosen = filters[0] if filters else samples[0]["filter"]
    return [sample[metric] for sample in samples if sample["filter"] == chosen and metric in sample], chosen


def _of_task(metric: str, loaded: Loaded, found: Any, count: int) -> dict[str, Any]:
    ((name, task),) = loaded.tasks.items()
    own = loaded.metric
    shares, chosen = _shares(found, name, own, ())
    value, stderr = (found["results"][name].get(f"{key},{chosen}") for key in (own, f"{own}_stderr"))
    said = {"stderr": stderr if isinstance(stderr, float) else None}
    if isinstance(value, Real) and len(shares) == count and _is_mean(float(value), shares):
        return said | {"values": [float(share) for share in shares]}
    if not isinstance(value, Real) or not math.isfinite(value):
        raise StageError("failed", f"score: {own} of {metric} is {value!r}, which is no finite number")
    draw, aggregate = random.Random(0), task.aggregation()[own]  # noqa: S311 - a bootstrap keeps no secret
    scores = [float(aggregate(draw.choices(shares, k=len(shares)))) for _ in range(RESAMPLES)]
    low, high = np.quantile(scores, [0.025, 0.975])
    parts = _parts(aggregate, shares, float(value))
    return said | {"score": float(value), "low": float(low), "high": float(high), "parts": parts}


def _of_group(group: Group, found: Any, indices: dict[str, list[int]]) -> dict[str, Any]:
    """Return the outcomes of a group: the items' numbers where their mean is its score; where each task counts the same
    the mean of the tasks' scores, with an interval whose resamples keep the number of items of each task.

    Raises StageError.
    """
    numbers = []
    for name, chosen in indices.items():
        shares, filtered = _shares(found, name, group.metric, group.filters)
        value = found["results"][name].get(f"{group.metric},{filtered}")
        if len(shares) != len(chosen) or not isinstance(value, Real) or not _is_mean(float(value), shares):
            said = f"score: {group.metric} of {name}, a task of the group {group.name}, is not the mean of its items"
            raise StageError("unsupported", f"{said} (filter {filtered}); name one of the tasks")
        numbers.append(np.array(shares, dtype=np.float64))
    if group.weighted:
        return {"values": [float(one) for one in np.concatenate(numbers)]}
    draw = np.random.default_rng(0)
    scores = np.mean([draw.choice(own, (RESAMPLES, len(own))).mean(axis=1) for own in numbers], axis=0)
    low, high = np.quantile(scores, [0.025, 0.975])
    total = sum(map(len, numbers))
    parts = np.concatenate([own * (total / (len(numbers) * len(own))) for own in numbers])
    score_ = float(np.mean([own.mean() for own in numbers]))
    return {"score": score_, "low": float(low), "high": float(high), "parts": [float(one) for one in parts]}


def check(job: TaskCheckJob, out: Path) -> Result:
    """Compare a build as `check_build.check` does, on the prompts of a task without their answers."""
    del out
    wanted = json.loads(job.data_file.read_text(encoding="utf-8"))
    assert job.code_file is not None
    loaded = load_tasks(job.metric, job.code_file)
    prompts = []
    for name, indices in _indices(loaded, wanted).items():
        task = loaded.tasks[name]
        documents = _narrow(task, wanted["split"])
        for index in indices:
            prompt = task.doc_to_text(documents[index])
            # Some tasks have answers to choose between where others have the prompt.
            prompts.append(prompt if isinstance(prompt, str) and prompt.strip() else _text(documents[index]))
    tokenizer = load_tokenizer(job.source_dir)
    return compare(job, texts_of([(prompt_ids(tokenizer, prompt)[-job.max_length :], ()) for prompt in prompts]))


def _parts(aggregate: Callable[[list[Any]], Any], shares: list[Any], score: float) -> list[float]:
    """Return each item's part in an aggregate, as `scores.per_item` has it.

    Where the aggregate is a ratio of sums or made of one (the harness's perplexities, bits per byte and weighted means:
    each item is a number and its weight), the item's number over the mean weight, with the sign of the score. Elsewhere
    what the score would be without it moves, of each item or of each group of PARTS of them: the pseudo-values of the
    jackknife, moved so that their mean is the score. Source: Tukey, Ann. Math. Stat. 29 (1958), 614.
    """
    if all(isinstance(share, tuple | list) and len(share) == 2 for share in shares):
        numbers, weights = (np.array(each, dtype=np.float64) for each in zip(*shares, strict=True))
        ratio = float(numbers.sum() / weights.sum()) if weights.sum() > 0 else math.nan
        for sign, made in ((-1.0, math.exp(min(-ratio, 700.0))), (-1.0, -ratio / math.log(2)), (1.0, ratio)):
            if math.isclose(score, made, rel_tol=1e-9):
                return [float(part) for part in sign * numbers / weights.mean()]
    groups_ = min(len(shares), PARTS)
    if groups_ < 2:
        return [score]
    group = [k * groups_ // len(shares) for k in range(len(shares))]
    parts = []
    for left_out in range(groups_):
        rest = float(aggregate([share for share, own in zip(shares, group, strict=True) if own != left_out]))
        parts.append(groups_ * score - (groups_ - 1) * rest)
    away = score - float(np.mean(parts))
    return [part + away for part in parts]


def _is_mean(value: float, shares: list[Any]) -> bool:
    """Whether a score is the mean of its items' numbers."""
    if not all(isinstance(share, Real | np.bool_) and math.isfinite(float(share)) for share in shares):
        return False
    return abs(float(np.mean([float(share) for share in shares])) - value) <= 1e-9 * max(1.0, abs(value))
