"""The evaluator LMEvaluator of an Olive configuration: a task of lm-evaluation-harness becomes the metric."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from autotune.errors import shown
from autotune.metrics import TASK
from autotune.sweepfile.olive.draft import Draft
from autotune.sweepfile.olive.sections import Node, Section
from autotune.tasks import is_group

_MEAN = "aggregate_metric_list: [{metric: acc, weight_by_size: false}]"
"""How a group's file says that its score is the mean of its tasks' accuracies."""
_TASK_FILE = "write a task file with it, and name that: data.metric: lm-eval:tasks/mine.yaml"


def names_tasks(section: Section) -> bool:
    """Whether an evaluator without a type is one of lm-evaluation-harness: it names tasks, and no metrics."""
    return "tasks" in section.nodes and "metrics" not in section.nodes


def read_tasks(draft: Draft, section: Section) -> None:
    """Score on a task of lm-evaluation-harness."""
    ledger = draft.ledger
    draft.drop("data.max_items.validation", "the task of lm-evaluation-harness brings the items")
    given = section.nodes.get("tasks")
    if given is not None and isinstance(given.value, list) and any(isinstance(one, Mapping) for one in given.value):
        section.take("tasks")
        ledger.refuse(given.path, "a task is named, and not described", _TASK_FILE)
        for node in section.rest():
            ledger.pass_over(node.path, node.value, "the task is refused")
        return
    tasks = section.take_texts("tasks")
    if tasks is not None:
        tasks = Node(tasks.path, [one for one in tasks.value if one != "size_on_disk"])  # it is always measured
    if tasks is not None and len(tasks.value) == 1:
        draft.put("data.metric", f"lm-eval:{tasks.value[0]}", tasks)
    elif tasks is not None and tasks.value:
        rule = f"candidates are scored by one task, and {len(tasks.value)} are named"
        mean = f"group: mine, task: [{', '.join(tasks.value)}], {_MEAN}"
        remedy = f"keep one; or, for their mean, write {mean} into a file (three lines), and name it"
        ledger.refuse(tasks.path, rule, f'{remedy}: "tasks": ["mine.yaml"]')
    elif tasks is not None or given is None or given.value is None:
        ledger.refuse(tasks.path if tasks is not None else section.path, "needs a task", 'add "tasks": ["arc_easy"]')
    limit = section.take_number("limit")
    if limit is not None and limit.value >= 1 and limit.value == int(limit.value):
        metric = str(draft.get("data.metric"))
        grouped = metric.startswith(TASK) and is_group(metric, Path())
        why = "of all tasks of the group together, where Olive takes as many of each" if grouped else ""
        draft.put("data.max_items.validation", int(limit.value), limit, why, tell=grouped)
    elif limit is not None:
        ledger.refuse(limit.path, "a number of items is taken, 1 or more", "write e.g. 100")
    length = section.take_number("max_length", whole=True)
    if length is not None and draft.get("train.max_length") is not None:
        ledger.unneeded(length.path, "train.max_length is that of the data", tell=True)
    elif length is not None and 8 <= length.value <= 1_000_000:
        draft.put("train.max_length", int(length.value), length)
    elif length is not None:
        ledger.refuse(length.path, f"must be between 8 and 1,000,000, got {shown(length.value)}", "correct it")
    options = section.take("provider_options")
    if options is not None:
        _read_options(draft, options)
    section.unneeded(
        {
            "batch_size": "items are scored together, as many as fit",
            "model_class": "builds are scored on their provider, adapters in PyTorch",
            "execution_provider": "target.provider says it",
            "device": "target.provider says it",
            "max_gen_toks": "the task says how many tokens are generated",
            "bootstrap_iters": "intervals are made here",
            "sample_log_num": "outcomes/ has the outcome of every item",
            "sample_log_dir": "outcomes/ has the outcome of every item",
            "confirm_run_unsafe_code": "no code that a model writes is run",
        }
    )
    task = _TASK_FILE
    section.refuse(
        {
            "model_args": ("the model is loaded here, without arguments of its own", "remove it"),
            "apply_chat_template": ("tasks are scored as they are written", task),
            "system_instruction": ("tasks are scored as they are written", task),
            "fewshot_as_multiturn": ("tasks are scored as they are written", task),
            "num_fewshot": ("tasks are scored as they are written", task),
        }
    )
    section.close("LMEvaluator")


def _read_options(draft: Draft, node: Node) -> None:
    ledger = draft.ledger
    if not isinstance(node.value, Mapping):
        ledger.refuse(node.path, "must be a mapping", "write { ... }")
    elif draft.get("target.provider") in (None, "cpu"):
        ledger.unneeded(node.path, "the provider cpu has no options")
    elif not all(isinstance(value, str | int | float | bool) for value in node.value.values()):
        ledger.refuse(node.path, "options must be texts or numbers", "write each as a text")
    elif node.value:
        draft.put("target.provider_options", dict(node.value), node)
    else:
        ledger.unneeded(node.path, "it is empty")
