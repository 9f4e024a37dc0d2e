"""What is to run elsewhere: a checked sweep, the words of its command, and the files that the command reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autotune.distribution import requirement
from autotune.errors import Problem, UsageError
from autotune.providers import NVIDIA
from autotune.sweepfile.olive.reader import SEARCH, import_olive, is_olive
from autotune.sweepfile.overrides import apply_set
from autotune.sweepfile.resolve import load_sweep
from autotune.sweepfile.schema import Sweep
from autotune.sweepfile.submit import Submit
from autotune.sweepfile.syntax import read_file

AZURE = "azureml://"
"""What begins an address of Azure ML."""
_STANDS_FOR = "azureml/model"
"""A model that is only to be had elsewhere is checked as one on the hub is: when the sweep begins."""


@dataclass(frozen=True)
class Plan:
    """A sweep that runs elsewhere."""

    sweep: Sweep
    file: Path
    words: tuple[str, ...]
    """The arguments of `autotune run` behind the sweep file, without --out."""
    addresses: dict[str, str]
    """By key of the sweep, what is an address of Azure ML: the model, and the data."""

    @property
    def submit(self) -> Submit:
        """The `submit:` part, or an empty one."""
        return self.sweep.submit or Submit()

    @property
    def needs_gpu(self) -> bool:
        """Whether the target, or the training, needs an NVIDIA GPU."""
        return self.sweep.target.provider in NVIDIA or self.sweep.train.device == "cuda"

    def install(self, named: str | None) -> str:
        """Return what pip installs there."""
        return named or requirement(self.sweep.provider.extra)


def make_plan(file: Path, sets: Sequence[str]) -> Plan:
    """Check a sweep as `plan` does, apart from what is only to be had elsewhere. Raises UsageError."""
    data, _ = read_file(file, str(file))
    if is_olive(data):
        data = import_olive(data, str(file), SEARCH in sets).sweep
    given = [one for one in sets if one != SEARCH]
    for assignment in given:
        apply_set(data, assignment)
    values = {"model": data.get("model")}
    part = data.get("data")
    values |= (
        {f"data.{name}": part.get(name) for name in ("train", "validation", "test")} if isinstance(part, dict) else {}
    )
    addresses = {key: value for key, value in values.items() if isinstance(value, str) and value.startswith(AZURE)}
    checked = [*sets, *([f"model={_STANDS_FOR}"] if "model" in addresses else [])]
    sweep = load_sweep(file, checked)
    words = [*(f"--set={one}" for one in given), *(["--search"] if SEARCH in sets else [])]
    return Plan(sweep, file, tuple(words), addresses)


def refuse_addresses(plan: Plan, where: str) -> None:
    """Raise UsageError where a sweep names what only a job of Azure ML has."""
    if plan.addresses:
        rule = f"is an address of Azure ML, which {where} does not have"
        remedy = "use --to azureml, or name a file, a folder or a name on the hub with --set"
        raise UsageError([Problem(rule, key, str(plan.file), remedy=remedy) for key in plan.addresses])
