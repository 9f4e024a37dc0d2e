"""The content of `candidate.json` beside a model: its candidate, settings, and the task that it was tuned for."""

from __future__ import annotations

from typing import Any

from autotune.candidate import Candidate
from autotune.shipping.task import Task


def about_model(candidate: Candidate, model: str, task: Task | None) -> dict[str, Any]:
    """Return it as plain data; `model`: the base model as the sweep names it; `task` None: not known."""
    about: dict[str, Any] = {"candidate": candidate.id, "settings": candidate.model_dump(exclude_none=True)}
    about["model"] = model
    return about if task is None else about | {"task": task.plain()}
