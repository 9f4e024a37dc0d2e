"""Recovers from a results folder what a command needs to use its models again: the sweep, its task, its items.

It looks in the folder and the cache first, and reads the sweep's model and data only for what is missing there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from autotune.data.schema import SPLITS, Dataset
from autotune.errors import AutotuneError, Problem, UsageError, did_you_mean
from autotune.metrics import LABELLED
from autotune.models import digest_folder, local_folder
from autotune.paths import exists, is_folder
from autotune.pipeline.graph import Graph
from autotune.pipeline.inputs import Inputs
from autotune.pipeline.inspection import Inspected, items_file
from autotune.pipeline.prepare import prepare, read_data
from autotune.pipeline.shipped import task_of
from autotune.present.inspection import inspected
from autotune.present.select import targets_in
from autotune.present.workshop import Workshop, say
from autotune.results.consistency import changed_settings, in_words
from autotune.results.folder import no_sweep, read_results, read_sweep
from autotune.results.layout import ABOUT
from autotune.results.nearby import remedy_for
from autotune.results.rows import Trial
from autotune.shipping.facts import read_json
from autotune.shipping.task import Task, read_task
from autotune.sweepfile.resolve import parse_sweep
from autotune.sweepfile.schema import Sweep


@dataclass(frozen=True)
class Recorded:
    """A results folder that was read."""

    folder: Path
    plain: Mapping[str, Any]
    """The sweep as resolved."""
    rows: list[Trial]
    inputs: Mapping[str, Any]
    """Digests of the model, the data and the code with which the rows were measured."""
    target: str | None = None
    """The target of the rows, if the sweep has several."""

    @property
    def best(self) -> Path:
        """The folder of the winner."""
        return self.folder / "best" / self.target if self.target is not None else self.folder / "best"

    @property
    def root(self) -> Path:
        """The folder of the sweep file, from which relative paths start."""
        return self.folder / str(self.inputs.get("root") or ".")

    def sweep(self) -> Sweep:
        """Return the sweep, for several targets with this one alone. Raises UsageError, also if its model is gone."""
        sweep = parse_sweep(self.plain, root=self.root, shown=str(self.folder / "sweep.yaml"))
        return sweep if self.target is None else sweep.targets[self.target]

    def of_target(self, name: str | None, candidate: str | None = None) -> Recorded:
        """Return the results of one target: `name`, or the target of a candidate, which is given by the beginning of its id.

        Raises UsageError if the folder has several targets and neither selects one, or `name` is none of them.
        """
        names = targets_in(self.rows) if isinstance(self.plain.get("targets"), dict) else []
        file = str(self.folder / "results.csv")
        if name is not None and name not in names:
            remedy = did_you_mean(name, names) if names else "leave it out: these results have one target"
            raise UsageError(Problem("no such target in these results", "--target", file, value=name, remedy=remedy))
        if name is None and candidate:
            own = {row.target for row in self.rows if row.candidate.startswith(candidate) and row.target}
            name = own.pop() if len(own) == 1 and names else None
        if name is None and names:
            rule = f"these results are of several targets: {', '.join(names)}"
            raise UsageError(Problem(rule, file=file, remedy="name one with --target"))
        return (
            self if name is None else replace(self, target=name, rows=[row for row in self.rows if row.target == name])
        )


def open_results(folder: Path, remedy: str = "name a results folder that `autotune run` wrote") -> Recorded:
    """Read a results folder. Raises UsageError, with the remedy where it is none."""
    if not is_folder(folder):
        rule = "is no folder" if exists(folder) else "no such folder"
        raise UsageError(Problem(rule, file=str(folder), remedy=remedy_for(folder, remedy)))
    plain = read_sweep(folder)
    if plain is None or not isinstance(plain.get("data"), dict) or "model" not in plain:
        raise UsageError(no_sweep(folder, remedy))
    rows, inputs = read_results(folder), read_json(folder / "inputs.json")
    found = Recorded(folder, plain, rows, inputs)
    changed = {
        key: both
        for key, both in changed_settings(folder, plain).items()
        if not key.startswith("objectives") and not _is_elsewhere(found, key, *both)
    }
    if changed and rows:
        rule = f"was changed since the rows in this folder were measured: {in_words(changed)}"
        raise UsageError(Problem(rule, file=str(folder / "sweep.yaml"), remedy="restore the file"))
    return found


def _is_elsewhere(recorded: Recorded, key: str, then: Any, now: Any) -> bool:
    """Whether a setting names what was moved since: the model with the same content, or data, whose content is compared where it
    is read.
    """
    if not (isinstance(then, str) and isinstance(now, str)):
        return False
    if key == "model":
        place = local_folder(now, recorded.root)
        return place is not None and digest_folder(place) == recorded.inputs.get("model")
    return key in {f"data.{split}" for split in SPLITS}


@dataclass(frozen=True)
class AtHand:
    """The task and the items of a sweep, with which any of its models can be scored."""

    task: Task
    items: Path | None
    """The file of the validation items, as they were scored; None if it is gone."""
    why_not: str = ""
    """Why there are no items; empty if there are."""


def at_hand(recorded: Recorded, cache: Path) -> AtHand:
    """Return the task and the validation items of a sweep, from the folder, the cache, or the data."""
    task = _kept_task(recorded.best)
    items = _kept_items(cache, str(recorded.inputs.get("validation")))
    if task is not None and items is not None:
        return AtHand(task, items)
    try:
        sweep = recorded.sweep()
        dataset = read_data(sweep)
        seen = inspected(sweep, dataset)[0]
    except AutotuneError as error:
        why = f"its model or data is not at hand ({str(error).splitlines()[0]})"
        return AtHand(task or _plain_task(recorded), items, "" if items else why)
    dataset = seen.dataset if seen is not None else dataset
    task = task or task_of(Graph(sweep, _inputs_of(dataset, cache, seen)))
    if items is None:
        digest, file = items_file(cache, dataset, "validation")
        if digest != recorded.inputs.get("validation", digest):
            return AtHand(task, None, "the content of its validation data has changed since")
        items = file
    return AtHand(task, items)


def prepared(recorded: Recorded, shop: Workshop) -> tuple[Sweep, Inputs]:
    """Return the sweep and the inputs of its candidates, from its model and data.

    Raises UsageError if these are missing, or have changed since the rows were measured; MachineError.
    """
    sweep, _, inputs = prepare(recorded.sweep(), shop.stages, shop.cache.root)
    now = {"model": inputs.base, **{split: digest for split, (digest, _) in inputs.items.items()}}
    changed = [
        name for name in ("model", "train", "validation") if recorded.inputs.get(name, now.get(name)) != now.get(name)
    ]
    if changed:
        rule = f"the content of {' and '.join(changed)} has changed since the rows in this folder were measured"
        remedy = "bring back what it was, or export a candidate whose artifacts are still in the cache"
        raise UsageError(Problem(rule, file=str(recorded.folder), remedy=remedy))
    shop.stages.settle(inputs.files, inputs.model_mb, inputs.places)
    for note in inputs.notes:
        say(note)
    return sweep, inputs


def _kept_task(best: Path) -> Task | None:
    try:
        return read_task(read_json(best / ABOUT), str(best / ABOUT))
    except UsageError:
        return None


def _kept_items(cache: Path, digest: str) -> Path | None:
    """Return the file of a split's items in the cache, if its content matches the digest in its name."""
    file = cache / "items" / f"{digest}.json"
    try:
        ids = [item["id"] for item in json.loads(file.read_text(encoding="utf-8"))]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return file if hashlib.sha256("\n".join(map(str, ids)).encode()).hexdigest() == digest else None


def _inputs_of(dataset: Dataset, cache: Path, seen: Inspected | None) -> Inputs:
    items = {"validation": items_file(cache, dataset, "validation")} if dataset.validation else {}
    counts = {"validation": len(dataset.validation)}
    encoding, pad = (seen.encoding, seen.pad) if seen is not None else (None, None)
    return Inputs(Path(), "", items, counts, dataset.labels, "cpu", "", encoding=encoding, pad=pad)


def _plain_task(recorded: Recorded) -> Task:
    """Return the task as the sweep file alone describes it, without labels that only the data has."""
    plain = recorded.plain
    several = plain.get("targets") or {}
    target = several.get(recorded.target) if recorded.target is not None else plain.get("target")
    data, target, train = plain["data"], target or {}, plain.get("train") or {}
    labels = data.get("labels") or () if data.get("metric", "choice") in LABELLED else ()
    return Task.model_validate(
        {"metric": "choice", **data, "labels": labels, "max_length": train.get("max_length", 256)}
        | {name: target[name] for name in ("provider", "threads") if name in target}
    )
