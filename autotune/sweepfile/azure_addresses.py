"""Addresses of Azure ML in a sweep: checked, and completed with the workspace that the sweep names."""

from __future__ import annotations

from typing import Any

from autotune.data.schema import SPLITS, DataSpec
from autotune.errors import Problem
from autotune.remote.addresses import Workspace, is_address, parse, split_rows
from autotune.sweepfile.submit import AzureML, Submit


def workspace_of(submit: Submit | None) -> Workspace | None:
    """Return the workspace of a sweep's `submit.azureml`; None unless all its three names are given."""
    given = (submit.azureml if submit is not None else None) or AzureML()
    names = (given.subscription_id, given.resource_group, given.workspace_name)
    return Workspace(*map(str, names)) if all(names) else None


def address_problems(model: Any, data: Any) -> list[Problem]:
    """Return the problems of a sweep's addresses; `model` and `data` are plain data."""
    values = {"model": model}
    values |= {f"data.{split}": data.get(split) for split in SPLITS} if isinstance(data, dict) else {}
    problems = []
    for key, value in values.items():
        if not is_address(value):
            continue
        try:
            kind = parse(split_rows(value)[0] if key != "model" else value).kind
        except ValueError as error:
            problems.append(Problem(str(error), key, value=value, remedy="correct it"))
            continue
        if kind == ("data" if key == "model" else "model"):
            rule = "names data, where a model is needed" if key == "model" else "names a model, where rows are needed"
            problems.append(Problem(rule, key, value=value, remedy="name the other kind of address"))
    return problems


def in_workspace(model: str, data: DataSpec, submit: Submit | None) -> tuple[str, DataSpec]:
    """Return model and data with the sweep's workspace in each address that names none, so that it is valid anywhere."""
    workspace = workspace_of(submit)
    if workspace is None:
        return model, data

    def full(text: str) -> str:
        address, rows = split_rows(text)
        return f"{parse(address).within(workspace)}{rows}"

    changed: dict[str, str] = {split: full(source) for split in SPLITS if is_address(source := getattr(data, split))}
    return (full(model) if is_address(model) else model), data.model_copy(update=changed)
