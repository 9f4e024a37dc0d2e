"""Load a task of lm-evaluation-harness, or the tasks of a group, and refuse what cannot be scored item by item."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lm_eval.api.metrics import mean
from lm_eval.api.task import Task
from lm_eval.tasks import TaskManager
from lm_eval.tasks._index import TaskIndex
from lm_eval.tasks._yaml_loader import load_yaml

from autotune.errors import StageError, did_you_mean
from autotune.metrics import task_of
from autotune.stages.library_errors import reason
from autotune.tasks import Group, configs_of, data_files, group_of


@dataclass(frozen=True)
class Loaded:
    """The tasks whose items are scored: one, or those of a group."""

    tasks: dict[str, Task]
    metric: str
    group: Group | None

    @property
    def is_mean(self) -> bool:
        """Whether the score is the mean of the items': of a group, where each task counts by its number of items."""
        if self.group is not None:
            return self.group.weighted
        (task,) = self.tasks.values()
        return task.aggregation()[self.metric] is mean


@contextlib.contextmanager
def _beside(metric: str, file: Path) -> Iterator[None]:
    """Work in the task file's folder where its data lies there and not in the working directory."""
    named = [path for config in configs_of(metric, file) for path in data_files(config, file)]
    inside = [path for path in named if path.is_relative_to(file.parent)]
    away = bool(named) and len(inside) == len(named) and Path.cwd() != file.parent
    with contextlib.chdir(file.parent) if away else contextlib.nullcontext():
        yield


def load_tasks(metric: str, file: Path) -> Loaded:
    """Return the task, or the tasks of the group, that `lm-eval:<name or file>` names. Raises StageError."""
    name, _ = task_of(metric)
    logging.getLogger("lm_eval").setLevel(logging.WARNING)
    try:
        group = group_of(metric, file)
        with _beside(metric, file):
            manager = TaskManager(include_defaults=False)
            for part in group.files if group is not None else ():  # its index of all files takes tens of seconds
                config = load_yaml(part, resolve_func=False, recursive=True)
                TaskIndex.process_cfg(config, part, manager.task_index)
            tasks = manager.load([str(file) if group is None else group.name])["tasks"]
    except (Exception, SystemExit) as error:
        said = f"{type(error).__name__}: {reason(error)}"
        raise StageError("failed", f"the task {name} cannot be loaded: {said}") from error
    for own, task in tasks.items():
        name = own if group is not None else name
        if getattr(task, "UNSAFE_CODE", False):
            raise StageError(
                "unsupported", f"the task {name} runs code that the model writes, which is never done here"
            )
        if task.OUTPUT_TYPE not in ("loglikelihood", "loglikelihood_rolling", "generate_until", "multiple_choice"):
            raise StageError("unsupported", f"the task {name} asks for {task.OUTPUT_TYPE}, which is not supported")
    if group is None:
        return Loaded(tasks, _metric_of(next(iter(tasks.values())), metric), None)
    _check_group(group, tasks)
    return Loaded(tasks, group.metric, group)


def _metric_of(task: Task, metric: str) -> str:
    """Return the metric of a task that the sweep names after `@`, or its first. Raises StageError."""
    known = list(task.higher_is_better())
    wanted = task_of(metric)[1] or known[0]
    if wanted not in known:
        raise StageError("failed", f"{metric}: the task has no metric {wanted}; {did_you_mean(wanted, known)}")
    return wanted


def _check_group(group: Group, tasks: dict[str, Task]) -> None:
    """Raise StageError where the score of a group is not made of its items' numbers, or not of those of all its tasks."""
    away = sorted({str(member.config["task"]) for member in group.members} ^ {name.split("::")[-1] for name in tasks})
    if away:
        raise StageError("failed", f"the group {group.name} has other tasks for lm-eval than for its file: {away[0]}")
    without = [name for name, task in tasks.items() if group.metric not in task.higher_is_better()]
    if without:
        said = f"the group {group.name} has no score of all its tasks: {without[0]} has no metric {group.metric}"
        raise StageError("unsupported", f"{said}; name a group whose tasks all have it")
    odd = [name for name, task in tasks.items() if task.aggregation()[group.metric] is not mean]
    if odd:
        said = f"{group.metric} of {odd[0]}, a task of the group {group.name}, is not the mean of its items"
        raise StageError("unsupported", f"{said}; name one of the tasks")
    if len({bool(task.higher_is_better()[group.metric]) for task in tasks.values()}) > 1:
        raise StageError(
            "unsupported",
            f"{group.metric} is maximized in some tasks of the group {group.name}, and minimized in others",
        )
