"""Calls a user's own metric. Besides `own_stage`, only this module runs code of the user's, and only if the sweep names it."""

from __future__ import annotations

import importlib
import inspect
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from autotune.errors import StageError, UsageError
from autotune.stages.library_errors import reason
from autotune.stages.preparation_jobs import MetricJob
from autotune.stages.protocol import Result
from autotune.stages.rouge import scorer
from autotune.usercode import ARGUMENTS, METRIC, SIGNATURE, Kind, digest_code

Metric = Callable[[str, str, Mapping[str, object]], object]
_LOADED: dict[tuple[str, str], Callable[..., object]] = {}
"""By function and digest: a warm worker imports a module once."""


def load_metric(metric: str, code: str, file: Path, root: Path | None) -> Metric:
    """Import a metric, as `load_function` does. Raises StageError (`failed`)."""
    found = load_function(metric, code, file, root, METRIC)
    try:
        inspect.signature(found).bind(*ARGUMENTS)
    except TypeError as error:
        raise StageError("failed", f"{metric} must take {', '.join(ARGUMENTS)}: {error}; write {SIGNATURE}") from error
    except ValueError:  # a function of an extension module tells nothing of its arguments
        pass
    return found


def load_function(metric: str, code: str, file: Path, root: Path | None, kind: Kind) -> Callable[..., object]:
    """Import `module:function`, whose source lies in `file` and has the digest `code`.

    The folder `root` goes to the end of the path, so that a file in it hides no library. Raises StageError (`failed`).
    """
    if (metric, code) in _LOADED:
        return _LOADED[metric, code]
    name, _, function = metric.partition(":")
    try:
        now = digest_code(file, root)
    except (OSError, UsageError) as error:
        raise StageError("failed", f"{metric}: {file} cannot be read any more: {reason(error)}") from error
    if now != code:
        remedy = "undo the change, or give the new sweep another --out"
        raise StageError("failed", f"{metric}: {file} has changed since the sweep began; {remedy}")
    if root is not None and str(root) not in sys.path:
        sys.path.append(str(root))
    try:
        module = importlib.import_module(name)
    except (Exception, SystemExit) as error:
        said = f"{type(error).__name__}: {reason(error)}"
        raise StageError("failed", f"{metric}: {file} cannot be imported: {said}") from error
    origin = getattr(module, "__file__", None)
    if origin is None or Path(origin).resolve() != file.resolve():
        taken = f"the name {name} is taken by {origin or 'a part of Python'}"
        raise StageError("failed", f"{metric}: {taken}; give {file.name} another name")
    found = getattr(module, function, None)
    if not callable(found):
        what = "no function" if found is None else f"no function, but {found!r}, as"
        raise StageError("failed", f"{metric}: {file} has {what} {function}; write {kind.signature}")
    _LOADED[metric, code] = found
    return _LOADED[metric, code]


def check_metric(job: MetricJob, out: Path) -> Result:
    """Import a metric, so that one that cannot be used is refused before anything is trained. Raises StageError."""
    del out
    load_metric(job.metric, job.code, job.file, job.root)
    return {}


def with_references(items: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the items, each with `references`: the completions of all items that have its prompt, and its own others."""
    answers: dict[str, dict[str, None]] = {}
    prompts = [json.dumps(item["prompt"], sort_keys=True) for item in items]
    for prompt, item in zip(prompts, items, strict=True):
        answers.setdefault(prompt, {}).update(dict.fromkeys((item["completion"], *item.get("references", ()))))
    return [{**item, "references": list(answers[prompt])} for prompt, item in zip(prompts, items, strict=True)]


def nearest_reference(prediction: str, item: Mapping[str, Any]) -> str:
    """Return the reference of an item that a text equals, or its own completion."""
    wanted = [str(one).strip() for one in item["references"]]
    return prediction if prediction in wanted else str(item["completion"]).strip()


def rouge_l() -> Metric:
    """Return ROUGE-L as a metric: that of the reference that fits best, where a prompt has several.

    An item's `references` are all completions of its prompt, its own among them.
    """
    score = scorer()

    def metric(prediction: str, reference: str, item: Mapping[str, object]) -> float:
        references = item.get("references", (reference,))
        assert isinstance(references, Sequence)
        return max(score(prediction, str(one).strip()) for one in references)

    return metric


def evaluate(metric: str, function: Metric, predicted: Sequence[str], items: Sequence[dict[str, Any]]) -> list[float]:
    """Return the function's value of every item. Raises StageError (`failed`), naming the item."""
    values = []
    for prediction, item in zip(predicted, items, strict=True):
        try:
            value = function(prediction, item["completion"].strip(), item)
        except MemoryError:
            raise
        except (Exception, SystemExit) as error:
            said, kind = reason(error), type(error).__name__
            raised = kind if said == kind else f"{kind}: {said}"
            raise StageError("failed", f"score: {metric} raised {raised} on item {item['id']}") from error
        if not isinstance(value, Real | np.bool_) or not math.isfinite(float(value)):
            shown = repr(value) if len(repr(value)) <= 60 else f"{repr(value)[:57]}..."
            message = f"score: {metric} returned {shown} on item {item['id']}"
            raise StageError("failed", f"{message}; it must return a finite number")
        values.append(float(value))
    return values
