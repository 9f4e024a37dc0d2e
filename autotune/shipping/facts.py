"""Collects what a results folder holds about one candidate, for the model card and other descriptions."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from autotune.analysis.paired import Difference, paired_difference
from autotune.analysis.scores import summarise
from autotune.analysis.statistics import Interval
from autotune.candidate import Candidate
from autotune.metrics import METRICS, score_column
from autotune.models import BUILT_IN, HUB_NAME, local_folder
from autotune.paths import is_file
from autotune.results.folder import read_outcomes
from autotune.results.judge import base_of, named_candidate
from autotune.results.rows import Finalist, Measured, Trial
from autotune.results.table import read_table


@dataclass(frozen=True)
class Score:
    """A score on a split, with its 95 % interval."""

    metric: str
    split: str
    value: float
    interval: Interval | None
    items: int


@dataclass(frozen=True)
class Anew:
    """The score of a candidate that was made again for an export, if it differs from the recorded one."""

    score: Score
    outcomes: Mapping[str, Any]
    differing: int
    """Items whose answers differ from the recorded ones."""


@dataclass(frozen=True)
class Verified:
    """The check of an exported model: ONNX Runtime GenAI alone loads it, and answers prompts that it gets as text."""

    items: int = 0
    wrong: tuple[str, ...] = ()
    """Ids of items whose answers differ from the recorded ones."""
    why_not: str = ""
    """Why the model was not checked; empty if it was."""


@dataclass(frozen=True)
class Facts:
    """A candidate, its numbers and their sources."""

    folder: Path
    sweep: Mapping[str, Any]
    """As resolved."""
    candidate: Candidate
    row: Trial
    base: Trial | None
    """The untouched model's row; None where there is none."""
    final: Finalist | None
    """The candidate's row of finalists.csv, and the untouched model's; None where it was no finalist."""
    final_base: Finalist | None
    machine: Mapping[str, Any]
    inputs: Mapping[str, Any]
    """Digests of model and data."""
    base_model: str
    """The base model's name on the hub, or that of its folder."""
    on_hub: bool
    licence: str | None
    anew: Mapping[str, Anew] = field(default_factory=dict)
    """By split, if the candidate was made again and scores differently."""

    @property
    def name(self) -> str:
        """A name for the model: the sweep's name and the first digits of the candidate's id."""
        return f"{self.sweep.get('name') or 'autotune'}-{self.candidate.id[:8]}"

    @property
    def target(self) -> Mapping[str, Any]:
        """The target that the candidate was measured for, as the sweep has it."""
        several = self.sweep.get("targets")
        if isinstance(several, Mapping):
            return several.get(self.row.target) or next(iter(several.values()), {})
        return self.sweep.get("target") or {}

    @property
    def metric(self) -> str:
        """`data.metric`."""
        return str(self.sweep["data"].get("metric", "choice"))

    def scores(self) -> list[Score]:
        """Return the candidate's scores, test before validation."""
        return self._scores(self.row, self.final, self.anew)

    def base_scores(self) -> list[Score]:
        """Return the untouched model's scores, test before validation."""
        return self._scores(self.base, self.final_base, {})

    def _scores(self, row: Trial | None, final: Finalist | None, anew: Mapping[str, Anew]) -> list[Score]:
        column = score_column(self.metric)
        found = []
        on_test = final if final is not None and final.split == "test" else None
        sources: tuple[tuple[str, Measured | None], ...] = (("test", on_test), ("validation", row))
        for split, cells in sources:
            if split in anew:
                found.append(anew[split].score)
            elif cells is not None and (value := cells.number(column)) is not None:
                found.append(Score(column, split, float(value), cells.interval(column), cells.behind(column) or 0))
        return found

    @property
    def is_base(self) -> bool:
        """Whether the candidate is the untouched model itself."""
        return self.base is not None and self.base.candidate == self.candidate.id

    def difference(self, split: str) -> Difference | None:
        """Return the candidate's score minus the untouched model's on the items of a split; None without both outcomes."""
        if self.is_base or self.base is None:
            return None
        other = read_outcomes(self.folder, self.base.candidate, split)
        again = self.anew.get(split)
        mine = again.outcomes if again is not None else read_outcomes(self.folder, self.candidate.id, split)
        if other is None or mine is None:
            return None
        try:
            return paired_difference(self.metric, mine, other)
        except (KeyError, TypeError, ValueError):  # damaged
            return None


def score_of(metric: str, split: str, outcomes: Mapping[str, Any]) -> Score:
    """Return the score of outcomes. Raises KeyError, ValueError where they are damaged."""
    value, interval, items = summarise(metric, outcomes)
    return Score(score_column(metric), split, value, interval, items)


def gather(folder: Path, sweep: Mapping[str, Any], rows: list[Trial], row: Trial, base_model: str | None) -> Facts:
    """Return the facts about the candidate of `row`. `base_model`: the base model's name on the hub, if the user gives it."""
    candidate = named_candidate(row, folder / "results.csv")
    finals: list[Finalist] = []
    if is_file(folder / "finalists.csv"):
        finals = read_table(folder / "finalists.csv", Finalist)
    finals = [one for one in finals if one.target in (row.target, None)]  # None: of a version that had no targets
    root = folder / str(read_json(folder / "inputs.json").get("root") or ".")
    name, on_hub = hub_name(str(sweep["model"]), root)
    return Facts(
        folder=folder, sweep=sweep, candidate=candidate, row=row, base=base_of(rows),
        final=next((one for one in finals if one.candidate == candidate.id and one.role != "rival"), None),
        final_base=next((one for one in finals if one.role == "base"), None),
        machine=read_json(folder / "machine.json"), inputs=read_json(folder / "inputs.json"),
        base_model=base_model or name, on_hub=on_hub or base_model is not None,
        licence=licence_of(str(sweep["model"]), root),
    )  # fmt: skip


def read_json(file: Path) -> dict[str, Any]:
    """Return the JSON mapping in a file; empty where the file is missing or damaged."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def hub_name(model: str, root: Path) -> tuple[str, bool]:
    """Return the base model's name on the hub, and True; for a folder of unknown origin the folder's name, and False."""
    if model in BUILT_IN:
        return BUILT_IN[model].hub, True
    folder = local_folder(model, root)
    if folder is None:
        return (model, True) if HUB_NAME.fullmatch(model) else (_plain(Path(model).name), False)
    said = read_json(folder / "config.json").get("_name_or_path")
    if isinstance(said, str) and HUB_NAME.fullmatch(said) and not (root / said).exists() and not Path(said).exists():
        return said, True
    return _plain(folder.resolve().name), False


def _plain(name: str) -> str:
    """Return a name with only the characters that the hub allows."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._")[:96] or "model"


def licence_of(model: str, root: Path) -> str | None:
    """Return the licence that the base model's own card names; None if it names none."""
    if model in BUILT_IN:
        return BUILT_IN[model].licence
    folder = local_folder(model, root)
    try:
        text = (folder / "README.md").read_text(encoding="utf-8") if folder is not None else ""
        head = text.split("---", 2)[1] if text.startswith("---") else ""
        said = yaml.safe_load(head) or {}
    except (OSError, UnicodeDecodeError, IndexError, yaml.YAMLError):
        return None
    licence = said.get("license") if isinstance(said, dict) else None
    return licence if isinstance(licence, str) and re.fullmatch(r"[A-Za-z0-9.+-]{1,64}", licence) else None


def meaning_of(metric: str) -> str:
    """Return what a metric means, in words."""
    return METRICS[metric].meaning
