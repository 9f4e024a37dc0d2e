"""Score a model on a task of lm-evaluation-harness: its prompts, its metrics, our model on our provider.

The harness asks a model for three things: the log-likelihood of a continuation, that of a whole text, and a greedy
continuation. They are answered by the backend of the score stage, so that what is scored is the build that ships.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import random
from collections.abc import Callable, Iterator
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
from lm_eval.api.metrics import mean
from lm_eval.api.model import TemplateLM
from lm_eval.api.task import Task
from lm_eval.defaults import DEFAULT_OTHER_SEED
from lm_eval.evaluator import evaluate
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.tasks import TaskManager
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from autotune.analysis.scores import PARTS
from autotune.errors import StageError, did_you_mean
from autotune.metrics import task_of
from autotune.stages.backends import Backend
from autotune.stages.check_build import compare, texts_of
from autotune.stages.jobs import TaskCheckJob, TaskScoreJob
from autotune.stages.library_errors import reason
from autotune.stages.preparation_jobs import TaskJob
from autotune.stages.protocol import Result
from autotune.stages.score import generate, groups, log_likelihood, open_backend
from autotune.stages.text import Encoded, context_length, end_token, end_tokens, load_tokenizer, prompt_ids
from autotune.tasks import data_files, read_task

_CAP_SALT = "autotune/max_items/1"
NEW_TOKENS = 256
"""Tokens to generate where a task does not say: the harness's own default."""
RESAMPLES = 500


@contextlib.contextmanager
def _beside(file: Path) -> Iterator[None]:
    """Work in the task file's folder where its data lies there and not in the working directory."""
    config = read_task(file)
    named = data_files(config, file)
    inside = [path for path in named if path.is_relative_to(file.parent)]
    away = bool(named) and len(inside) == len(named) and Path.cwd() != file.parent
    with contextlib.chdir(file.parent) if away else contextlib.nullcontext():
        yield


def load_task(metric: str, file: Path) -> Task:
    """Return the one task that `lm-eval:<name or file>` names. Raises StageError."""
    name, _ = task_of(metric)
    logging.getLogger("lm_eval").setLevel(logging.WARNING)
    try:
        with _beside(file):
            tasks = TaskManager(include_defaults=False).load([str(file)])["tasks"]
    except (Exception, SystemExit) as error:
        said = f"{type(error).__name__}: {reason(error)}"
        raise StageError("failed", f"the task {name} cannot be loaded: {said}") from error
    task = next(iter(tasks.values()))
    if getattr(task, "UNSAFE_CODE", False):
        raise StageError("unsupported", f"the task {name} runs code that the model writes, which is never done here")
    if task.OUTPUT_TYPE not in ("loglikelihood", "loglikelihood_rolling", "generate_until", "multiple_choice"):
        raise StageError("unsupported", f"the task {name} asks for {task.OUTPUT_TYPE}, which is not supported")
    return task


def _metric_of(task: Task, metric: str) -> str:
    """Return the metric of a task that the sweep names after `@`, or its first. Raises StageError."""
    known = list(task.higher_is_better())
    wanted = task_of(metric)[1] or known[0]
    if wanted not in known:
        raise StageError("failed", f"{metric}: the task has no metric {wanted}; {did_you_mean(wanted, known)}")
    return wanted


def _text(doc: Any) -> str:
    return json.dumps(doc, sort_keys=True, ensure_ascii=False, default=str)


def _narrow(task: Task, split: str) -> list[Any]:
    """Have a task evaluate one of its splits, and return the documents there."""
    if split == "validation" and task.has_validation_docs():
        task.set_config("test_split", None)
    return list(task.eval_docs)


def read(job: TaskJob, out: Path) -> Result:
    """Read a task: write for each split that it has what is scored, `validation.json` and `test.json`.

    A task with one split only is searched on that one. Result: `metric`, `higher_is_better`, `mean` (whether the score is
    the mean of the items'), and of each split its digest and its number of items. Raises StageError (`failed`,
    `unsupported`).
    """
    task = load_task(job.metric, job.file)
    metric = _metric_of(task, job.metric)
    both = task.has_validation_docs() and task.has_test_docs()
    splits: Result = {}
    for split in ("test", "validation") if both else ("validation",):
        documents = [_text(doc) for doc in _narrow(task, split)]
        limit = {"validation": job.max_validation, "test": job.max_test}[split]
        indices = list(range(len(documents)))
        if limit is not None and limit < len(documents):
            drawn = sorted(indices, key=lambda i: hashlib.sha256(f"{_CAP_SALT}\n{documents[i]}".encode()).digest())
            indices = sorted(drawn[:limit])
        ids = [hashlib.sha256(documents[i].encode()).hexdigest()[:16] for i in indices]
        if not ids:
            raise StageError("failed", f"the task {task_of(job.metric)[0]} has no {split} items")
        (out / f"{split}.json").write_text(json.dumps({"split": split, "indices": indices, "ids": ids}), "utf-8")
        content = hashlib.sha256("\n".join([job.code, split, *ids]).encode()).hexdigest()
        splits[split] = {"digest": content, "items": len(ids)}
    return {
        "metric": metric,
        "higher_is_better": bool(task.higher_is_better()[metric]),
        "mean": task.aggregation()[metric] is mean,
        "splits": splits,
    }


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
    """Score `job.model_dir` on a task and write `outcomes.json` into `out`, in the order of the task's items.

    `values` of the items where the score is their mean; elsewhere `score` with `low` and `high`, its 95 % bootstrap
    interval, and `parts`, each item's part in it (`_parts`). `stderr` is the harness's own. Raises StageError: `failed`,
    `unsupported`.
    """
    wanted = json.loads(job.data_file.read_text(encoding="utf-8"))
    assert job.code_file is not None
    task = load_task(job.metric, job.code_file)
    metric = _metric_of(task, job.metric)
    _narrow(task, wanted["split"])
    if task.get_config("num_fewshot") is None:
        task.set_config("num_fewshot", 0)
    task.set_fewshot_seed(seed=DEFAULT_OTHER_SEED)
    model = _Model(open_backend(job), load_tokenizer(job.model_dir, job.encoding), job.model_dir, job.batched)
    name = task.task_name
    try:
        found = evaluate(
            model, {"tasks": {name: task}}, samples={name: wanted["indices"]}, bootstrap_iters=RESAMPLES
        )  # fmt: skip
    except (StageError, MemoryError):
        raise
    except (Exception, SystemExit) as error:
        raise StageError("failed", f"score: {job.metric} raised {type(error).__name__}: {reason(error)}") from error
    chosen = found["samples"][name][0]["filter"]
    shares = [sample[metric] for sample in found["samples"][name] if sample["filter"] == chosen and metric in sample]
    value, stderr = (found["results"][name].get(f"{key},{chosen}") for key in (metric, f"{metric}_stderr"))
    outcomes: dict[str, Any] = {"ids": wanted["ids"], "stderr": stderr if isinstance(stderr, float) else None}
    if isinstance(value, Real) and len(shares) == len(wanted["ids"]) and _is_mean(float(value), shares):
        outcomes["values"] = [float(share) for share in shares]
    elif isinstance(value, Real) and math.isfinite(value):
        draw, aggregate = random.Random(0), task.aggregation()[metric]  # noqa: S311 - a bootstrap keeps no secret
        scores = [float(aggregate(draw.choices(shares, k=len(shares)))) for _ in range(RESAMPLES)]
        low, high = np.quantile(scores, [0.025, 0.975])
        outcomes |= {
            "score": float(value),
            "low": float(low),
            "high": float(high),
            "parts": _parts(aggregate, shares, float(value)),
        }
    else:
        raise StageError("failed", f"score: {metric} of {job.metric} is {value!r}, which is no finite number")
    (out / "outcomes.json").write_text(json.dumps(outcomes), encoding="utf-8")
    return {"items": len(shares), "cut": 0}


def check(job: TaskCheckJob, out: Path) -> Result:
    """Compare a build as `check_build.check` does, on the prompts of a task without their answers."""
    del out
    wanted = json.loads(job.data_file.read_text(encoding="utf-8"))
    assert job.code_file is not None
    task = load_task(job.metric, job.code_file)
    documents = _narrow(task, wanted["split"])
    prompts = []
    for index in wanted["indices"]:
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
