"""An Olive configuration as a sweep file: read part by part, with a ledger of every key.

    document -> Section (one spelling) -> Draft (keys of the sweep, origins) + Ledger (what became of every key)

The file's own single point stays one: `search_strategy: false` has one candidate. `widen` makes a space around it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autotune.data.dataset import load_dataset
from autotune.data.schema import DataSpec
from autotune.data.sources import hub_source
from autotune.errors import Problem, UsageError
from autotune.models import config_of, context_of, is_remote
from autotune.sweepfile.olive.data import DataConfigs
from autotune.sweepfile.olive.draft import SINGLE_POINT, Draft
from autotune.sweepfile.olive.engine import is_searching, read_engine
from autotune.sweepfile.olive.evaluators import Evaluators
from autotune.sweepfile.olive.foreign import keep_what_matters
from autotune.sweepfile.olive.input_model import read_input_model
from autotune.sweepfile.olive.joined import fit_batch
from autotune.sweepfile.olive.ledger import Ledger, text_of
from autotune.sweepfile.olive.passes import read_passes
from autotune.sweepfile.olive.sections import Node, Section
from autotune.sweepfile.olive.systems import Systems, set_provider
from autotune.sweepfile.olive.texts import DEFAULT_LENGTH
from autotune.sweepfile.olive.widen import widen
from autotune.sweepfile.syntax import DEEPEST, too_deep

SEARCH = "search=true"
"""Among the changes of the command line: widen an Olive configuration into a space around it."""
_FEW, _ROWS_EACH = 64, 5
"""Answers are labels where there are at most so many different ones, and so many rows for each on average."""
_WIKITEXT = {"dataset": "Salesforce/wikitext", "config": "wikitext-2-raw-v1"}
"""The texts that Olive itself calibrates on where a file names none."""
_NO_TEXTS = "the file names no texts"
_ORDER = (
    "name", "model", "data", "train", "target", "space", "objectives", "limits", "strategy", "budget", "seed", "submit",
)  # fmt: skip


@dataclass(frozen=True)
class Imported:
    """A sweep file that was an Olive configuration."""

    sweep: dict[str, Any]
    origins: Mapping[str, str]
    """By key of the sweep, where its value came from."""
    ledger: Ledger
    notes: tuple[str, ...]
    """What its user should know, one line each."""
    joined: bool = False
    """Whether Olive would join the rows that are trained on into blocks."""


def is_olive(data: Mapping[str, Any]) -> bool:
    """Whether plain data is an Olive configuration, and no sweep file."""
    return ("input_model" in data or "passes" in data) and not {"model", "space"} & set(data)


def read_olive(document: Mapping[str, Any], search: bool = False, providers: Sequence[str] = ()) -> Imported:
    """Return the sweep that an Olive configuration is, with the fate of every key; nothing is raised for what is refused.

    `search` and `providers` as in `import_olive`.
    """
    ledger = Ledger(document)
    draft = Draft(ledger)
    top = Section(ledger, Node((), document), ("engine",))
    draft.searching = is_searching(top)
    systems, data, evaluators = Systems(draft, top), DataConfigs(draft, top), Evaluators(draft, top)
    read_input_model(draft, top)
    _read_providers(draft, top, systems)
    root = top.take_text("data_root")
    read_passes(draft, top, data)
    evaluators.take(top, data)
    read_engine(draft, top)
    systems.close()
    data.close()
    if root is not None:
        _below(draft, root)
    _complete(draft)
    if search:
        widen(draft, providers)
    top.close("an Olive configuration")
    ledger.close()
    if draft.foreign:
        keep_what_matters(draft)
    told = [f"{text_of(entry.path)}: {entry.why}" for entry in ledger.entries.values() if entry.tell]
    sweep = {key: draft.sweep[key] for key in _ORDER if key in draft.sweep}
    return Imported(sweep, draft.origins, ledger, (*told, *draft.notes), draft.joined)


def import_olive(
    document: Mapping[str, Any], shown: str, search: bool = False, providers: Sequence[str] = ()
) -> Imported:
    """Return the sweep that an Olive configuration is. Raises UsageError with everything that is refused.

    `search`: widened into a space, with recipes for `providers` where the command line names others than the file.
    """
    if too_deep(document):
        rule = f"nested deeper than {DEEPEST} levels"
        raise UsageError(Problem(rule, file=shown, remedy="see Olive's documentation for examples"))
    imported = read_olive(document, search, providers)
    problems = imported.ledger.problems(shown)
    if problems:
        raise UsageError(problems)
    return imported


def _read_providers(draft: Draft, top: Section, systems: Systems) -> None:
    listed = top.nodes.get("execution_providers")
    found = [(name, "the system of target") for name in systems.take(top, "target")]
    place = text_of(listed.path) if listed is not None else ""
    found += [(name, place) for name in systems.providers(top.take("execution_providers"))]
    hosted = [(name, "the system of host") for name in systems.take(top, "host")]
    found = found or hosted
    if draft.ledger.document.get("passes") or found:
        set_provider(draft, found)


def _below(draft: Draft, root: Node) -> None:
    """Put paths of data below `data_root`."""
    moved = False
    for key in ("data.train", "data.validation"):
        value = draft.get(key)
        if isinstance(value, str) and "://" not in value and not Path(value).is_absolute():
            draft.put(key, f"{root.value.rstrip('/')}/{value}", root)
            moved = True
    if not moved:
        draft.ledger.unneeded(root.path, "no path of data is relative")


def _complete(draft: Draft) -> None:
    """Set what a sweep needs and the file leaves open."""
    trains = draft.get("space.lora") is not None
    if str(draft.get("data.metric") or "").startswith("lm-eval:"):
        for key in ("data.holdout", "data.validation"):
            draft.drop(key, "the task of lm-evaluation-harness brings the items that candidates are judged on")
    if draft.get("data.train") is None and not trains and draft.get("space.build") is not None:
        why = f"{_NO_TEXTS}: WikiText-2, as Olive calibrates on it"
        draft.default("data.train", {**_WIKITEXT, "split": "train[:2000]"}, why)
        metric = draft.get("data.metric")
        if metric is None:
            draft.default("data.validation", {**_WIKITEXT, "split": "test[:500]"}, why)
            draft.notes.append(f"{why}; name your own with --set data.train=FILE")
        draft.default("data.text", "{text}", why)
        draft.default("data.metric", "perplexity", "plain text is scored by perplexity")
        draft.default("train.max_length", 512, "enough of a text to tell builds apart")
    if draft.get("data.train") is not None and draft.get("data.validation") is None:
        metric = str(draft.get("data.metric") or "")
        if not metric.startswith("lm-eval:"):
            draft.default("data.holdout", 0.2, "our default: candidates are judged on rows that are held out")
    if draft.get("budget") is None and draft.get("strategy") == "grid" and not draft.searching:
        draft.default("budget.trials", 1, SINGLE_POINT)


def settle(
    sweep: dict[str, Any], root: Path, origins: Mapping[str, str], joined: bool = False
) -> tuple[dict[str, str], list[str]]:
    """Choose what depends on the data, once it is known which is meant: the metric, and where rows are `joined` the batch.

    `origins`: of what the command line has not changed. Prompts with answers are scored by `choice` where the answers are
    few; else they are free text, and perplexity tells candidates apart. What cannot be read is refused later. Returns new
    origins, and what the user is told. Raises UsageError where WikiText-2 would be fetched although the file names nothing
    on the hub.
    """
    _fit_length(sweep, root, origins)
    chosen = _choose_metric(sweep, root, origins)
    found, told = fit_batch(sweep, root, origins) if joined else ({}, [])
    return {**found, **({"data.metric": chosen} if chosen else {})}, told


def _choose_metric(sweep: dict[str, Any], root: Path, origins: Mapping[str, str]) -> str:
    """Choose the metric of prompts with answers, where none is named; returns why, or nothing."""
    data = sweep.get("data")
    own = isinstance(sweep.get("model"), str) and not is_remote(sweep["model"], root)
    train = data.get("train") if isinstance(data, dict) else None
    if (
        own
        and isinstance(train, dict)
        and train.get("dataset") == _WIKITEXT["dataset"]
        and _NO_TEXTS in origins.get("data.train", "")
    ):
        rule = f"{_NO_TEXTS} to score builds on, and nothing is fetched for a model that is not on the hub"
        raise UsageError(
            Problem(rule, "data_configs", remedy="add data_configs, or --set data.train=FILE and data.text='{column}'")
        )
    if not isinstance(data, dict) or data.get("metric") is not None or data.get("prompt") is None:
        return ""
    data["metric"] = "perplexity"
    if sweep.get("objectives"):
        return "the answers are scored as texts"
    try:
        spec = DataSpec.model_validate(data)
        if isinstance(spec.train, str) and hub_source(spec.train, root) is None:
            read = load_dataset(spec, root)
            answers = {item.completion for item in (*read.train, *read.validation)}
            rows = len(read.train) + len(read.validation)
            if 2 <= len(answers) <= _FEW and rows >= _ROWS_EACH * len(answers):
                load_dataset(spec.model_copy(update={"metric": "choice"}), root)
                data["metric"] = "choice"
                return f"the rows have {len(answers)} different answers"
    except (UsageError, ValueError):
        pass
    return "the answers are free text, or their rows are not at hand"


def _fit_length(sweep: Mapping[str, Any], root: Path, origins: Mapping[str, str]) -> None:
    """Bound Olive's default for the tokens of a text, which the file does not name, by the context of a model at hand."""
    model, train = sweep.get("model"), sweep.get("train")
    if origins.get("train.max_length") != DEFAULT_LENGTH or not isinstance(model, str) or not isinstance(train, dict):
        return
    with contextlib.suppress(UsageError):
        context = context_of(config_of(model, root) or {})
        if context is not None and isinstance(train.get("max_length"), int):
            train["max_length"] = min(train["max_length"], context)


def from_olive(problem: Problem, origins: Mapping[str, str]) -> Problem:
    """Return a problem of the sweep with the key of the Olive file that it comes from."""
    key = problem.key
    while key and key not in origins:
        key = key[: max(key.rfind("."), key.rfind("["), 0)]
    if not key or problem.file == "--set":
        return problem
    origin = origins[key].split("; ", 1)[0]
    return Problem(
        problem.rule, f"{problem.key} (from {origin})", problem.file, problem.line, problem.value, problem.remedy
    )
