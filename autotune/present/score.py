"""The `score` command: scores a model on new labelled data with the sweep's metric, compares it with the untouched model, and
lists the wrong items."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from autotune.analysis.paired import Difference, paired_difference, wrong_places
from autotune.architectures import has_windowed_caches
from autotune.candidate import Recipe, Session, digest
from autotune.data.schema import DataSpec, Item
from autotune.data.scored import Scored, load_scored
from autotune.durable import write_aside
from autotune.errors import AutotuneError, Exit, Problem, StageError, UsageError
from autotune.metrics import LABELLED, METRICS, is_function, is_task
from autotune.models import BUILT_IN, digest_folder, local_folder
from autotune.paths import is_file, is_folder
from autotune.pipeline.shipped import score_job
from autotune.present.contamination import contamination_notes, count_used_before
from autotune.present.explained import explain
from autotune.present.export import choose_row
from autotune.present.parts import make_parts
from autotune.present.recorded import Recorded, open_results
from autotune.present.select import as_json, select
from autotune.present.tables import number
from autotune.present.workshop import Workshop, say, workshop
from autotune.providers import PROVIDERS
from autotune.results.layout import ABOUT, sha256_of
from autotune.results.rows import Trial
from autotune.results.table import text_of
from autotune.shipping.facts import Score, gather, read_json, score_of
from autotune.shipping.task import Task, read_task
from autotune.stages.inspection_findings import AS_SAVED
from autotune.stages.jobs import BuildJob
from autotune.stages.preparation_jobs import BaseJob
from autotune.sweepfile.schema import Target
from autotune.usercode import Code, find_function

_HEADINGS = ("row", "id", "prompt", "right", "answer", "value", "untouched")
"""The columns of the file with the wrong items."""


@dataclass(frozen=True)
class Asked:
    """The options of the command line."""

    data: str
    candidate: str | None = None
    limits: Sequence[str] = ()
    prefer: str | None = None
    wrong: Path | None = None
    most: int | None = None
    """The most items to score, drawn by content; None: all."""
    base: bool = True
    """Whether to score the untouched model, too."""
    target: str | None = None
    """The target whose winner to score, if the results have several."""


@dataclass(frozen=True)
class Built:
    """A built model, and the digest of its content."""

    folder: Path
    key: str


@dataclass(frozen=True)
class Subject:
    """The built model to score, its task, and how to find the untouched model."""

    name: str
    built: Built
    task: Task
    options: str | None
    root: Path
    """The folder from which paths of the user's own metric and of the base model start."""
    base: Built | None
    why_no_base: str = ""
    results: Path | None = None
    """The results folder of the model, if there is one."""
    trained: bool = True
    """Whether the model has an adapter."""


def score(place: Path, asked: Asked) -> tuple[str, Exit, dict[str, Any]]:
    """Score a results folder's candidate, an export or `best/`. Returns the text, the exit code and the same as plain data.

    Raises UsageError, MachineError.
    """
    if asked.most is not None and asked.most < 1:
        raise UsageError(Problem("must be 1 or more", "--max-items", value=asked.most))
    if asked.candidate is not None and (asked.limits or asked.prefer):
        rule = "--candidate names the model, and --limit or --prefer choose one"
        raise UsageError(Problem(rule, "--candidate", remedy="give one of them"))
    _check_wrong(asked)
    with workshop("score") as shop:
        if is_file(place / ABOUT):
            if asked.candidate or asked.limits or asked.prefer or asked.target:
                rule = "chooses among the candidates of a results folder, and this is one model"
                raise UsageError(
                    Problem(rule, "--candidate, --target, --limit or --prefer", str(place), remedy="leave it out")
                )
            subject = _of_export(place, shop, asked.base)
        else:
            remedy = "name an export, best/, or a results folder that `autotune run` wrote"
            recorded = open_results(place, remedy).of_target(asked.target, asked.candidate)
            selection = select(place, asked.limits, asked.prefer, recorded.target)
            row = choose_row(recorded, selection, asked.candidate)
            for note in selection.notes:
                say(note)
            if row is None:
                nothing = {"model": None, "selection": json.loads(as_json(selection))}
                return explain(selection), selection.exit_code, nothing
            subject = _of_results(recorded, row, shop, asked.base)
        return _scored(subject, asked, shop)


def _wrong_file(asked: Asked) -> Path:
    return asked.wrong or Path(f"{Path(asked.data).name.partition('.')[0] or 'data'}.wrong.csv")


def _check_wrong(asked: Asked) -> None:
    """Raise UsageError if the file for the wrong items exists, and an earlier call did not write it."""
    file = _wrong_file(asked)
    rule = "is a folder, and a file is written" if is_folder(file) else ""
    if not is_folder(file.parent):
        rule = f"cannot be written, because there is no folder {file.parent}"
    if is_file(file):
        with file.open("rb") as stream:
            first = stream.readline(1000).decode("utf-8", errors="replace").strip("\ufeff\r\n")
        if first not in ("", ",".join(_HEADINGS)):
            rule = "is there already, and does not hold the wrong items of an earlier call"
    if rule:
        raise UsageError(Problem(rule, "--wrong", str(file), remedy="name another file"))


# --- the models ------------------------------------------------------------------------------------------------------


def _of_export(place: Path, shop: Workshop, wants_base: bool) -> Subject:
    about, file = read_json(place / ABOUT), str(place / ABOUT)
    task = read_task(about, file)
    if not is_file(place / "onnx" / "genai_config.json"):
        rule = "the folder holds no built model, and an adapter alone is not scored here"
        raise UsageError(Problem(rule, file=str(place), remedy="export a candidate that has a recipe"))
    session = Session.model_validate(about.get("session") or {})
    found = next((one for one in place.absolute().parents[:2] if is_file(one / "inputs.json")), None)
    results = found or place.parent
    root = results / str(read_json(results / "inputs.json").get("root") or ".")
    base, why = None, "--no-base" if not wants_base else ""
    if wants_base:
        try:
            base = _untouched(str(about.get("model") or ""), task, root, shop)
        except AutotuneError as error:
            why = str(error).splitlines()[0]
    name = str(about.get("name") or about.get("candidate") or place)
    trained = is_folder(place / "adapter")
    return Subject(name, _known(place / "onnx"), task, session.provider_options, root, base, why, found, trained)


def _known(folder: Path) -> Built:
    content = {
        path.relative_to(folder).as_posix(): sha256_of(path) for path in sorted(folder.rglob("*")) if path.is_file()
    }
    return Built(folder, digest(content))


def _untouched(model: str, task: Task, root: Path, shop: Workshop) -> Built:
    """Return the untouched model, built as the `base` of limits is. Raises UsageError, StageError, MachineError."""
    folder = local_folder(model, root) if model not in BUILT_IN else None
    if folder is None:
        folder = shop.stages(BaseJob(name=model)).path
    config = read_json(folder / "config.json")
    recipe = Recipe(precision=PROVIDERS[task.provider].precisions[0])  # as `base_candidate` has it
    job = BuildJob(
        source=digest_folder(folder), recipe=recipe, provider=PROVIDERS[task.provider].builds_as, source_dir=folder,
        whole_caches=True if has_windowed_caches(config, task.provider) else None,
        tokenizer=AS_SAVED if (task.encoding or "").endswith(AS_SAVED) else None,
    )  # fmt: skip
    if shop.stages.find(job) is None:
        say(f"building the untouched model in {recipe} ...")
    return Built(shop.stages(job).path, job.key)


def _of_results(recorded: Recorded, row: Trial, shop: Workshop, wants_base: bool) -> Subject:
    place = recorded.folder
    facts = gather(place, recorded.plain, recorded.rows, row, None)
    if facts.candidate.recipe is None:
        rule = f"candidate {facts.candidate.id} is not built, and an adapter alone is not scored here"
        raise UsageError(Problem(rule, "--candidate", str(place), remedy="name a candidate that has a recipe"))
    made = make_parts(recorded, facts, shop, False)
    options = (facts.candidate.session or Session()).provider_options or _options(facts.target)
    base, why = None, "--no-base" if not wants_base else ""
    if wants_base and facts.base is not None and not facts.is_base:
        try:
            others = gather(place, recorded.plain, recorded.rows, facts.base, None)
            base = _known(make_parts(recorded, others, shop, False).parts["onnx"])
        except (AutotuneError, KeyError) as error:
            why = str(error).splitlines()[0]
    elif wants_base:
        why = "it is the untouched model itself" if facts.is_base else "the results have no untouched model"
    trained = facts.candidate.lora is not None
    return Subject(
        facts.name, _known(made.parts["onnx"]), made.hand.task, options, recorded.root, base, why, place, trained
    )


def _options(target: Mapping[str, Any]) -> str | None:
    try:
        return Target.model_validate(target).session.provider_options
    except ValidationError:
        return None


# --- the score -------------------------------------------------------------------------------------------------------


def _scored(subject: Subject, asked: Asked, shop: Workshop) -> tuple[str, Exit, dict[str, Any]]:
    task = subject.task
    if is_task(task.metric):
        rule = f"{task.metric} brings its own items, so that no file can be scored with it"
        raise UsageError(Problem(rule, "--data", remedy="run lm-evaluation-harness on the model itself"))
    if task.metric in LABELLED and not task.labels:
        rule = "the labels that the model chooses among are not known here"
        raise UsageError(Problem(rule, "--data", remedy="score the results folder where the sweep's data is at hand"))
    spec = task.data(asked.data)
    if asked.most is not None:
        spec = spec.model_copy(update={"max_items": spec.max_items.model_copy(update={"test": asked.most})})
    data = load_scored(spec, task.labels)
    code = find_function(task.metric, subject.root) if is_function(task.metric) else None
    mine, cut = _outcomes(subject, subject.built, data, code, shop, "the model")
    theirs, why = None, subject.why_no_base
    if subject.base is not None:
        try:
            theirs, _ = _outcomes(subject, subject.base, data, code, shop, "the untouched model")
        except StageError as error:
            why = str(error)
    found = score_of(task.metric, "test", mine)
    other = score_of(task.metric, "test", theirs) if theirs is not None else None
    difference = paired_difference(task.metric, mine, theirs) if theirs is not None else None
    places = wrong_places(task.metric, mine)
    seen = count_used_before(subject.results, shop.cache.root, [item.id for item in data.items], subject.trained)
    notes = [
        *contamination_notes(seen, found.items),
        *_cut_notes(cut, len(data.items), task.max_length, spec),
        *data.notes,
    ]
    file = None
    if task.metric != "perplexity":
        file = _wrong_file(asked)
        write_aside(file, wrong_items(data, task, mine, theirs, places))
    document = {
        "model": subject.name, "data": asked.data, "metric": found.metric, **_plain(found),
        "untouched": _plain(other) if other is not None else None, "why_no_untouched": why or None,
        "difference": None if difference is None else {
            "value": difference.value, "low": difference.interval.low, "high": difference.interval.high,
            "only_this": difference.only_this, "only_untouched": difference.only_other,
        },
        "wrong": len(places), "wrong_items": str(file) if file is not None else None,
        "left_out": [left.model_dump() for left in data.left_out], "seen": seen, "notes": notes,
    }  # fmt: skip
    return _text(document, found, other, difference, data), Exit.OK, document


def _outcomes(
    subject: Subject, built: Built, data: Scored, code: Code | None, shop: Workshop, who: str
) -> tuple[dict[str, Any], int]:
    """Return the outcomes of a built model, and how many prompts or texts were cut. Raises StageError."""
    name = digest([item.id for item in data.items])
    file = shop.cache.root / "items" / f"{name}.json"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_aside(file, json.dumps([item.model_dump(mode="json") for item in data.items], ensure_ascii=False))
    job = score_job(subject.task, built.key, built.folder, (name, file, len(data.items)), subject.options, code)
    if shop.stages.find(job) is None:
        say(f"scoring {who} on {_items(len(data.items))} ...")
    stored = shop.stages(job)
    outcomes: dict[str, Any] = json.loads((stored.path / "outcomes.json").read_text(encoding="utf-8"))
    return outcomes, int(stored.result.get("cut") or 0)


def _cut_notes(cut: int, items: int, max_length: int, spec: DataSpec) -> list[str]:
    """Return a note if prompts or texts did not fit into the sweep's length."""
    if not cut:
        return []
    what, part = ("prompts", "beginning") if spec.text is None else ("texts", "end")
    return [
        f"{cut} of {items} {what} do not fit into the {max_length} tokens of the sweep's train.max_length, and were "
        f"scored without their {part}"
    ]


def _plain(score: Score) -> dict[str, Any]:
    low, high = score.interval if score.interval is not None else (None, None)
    return {"value": score.value, "low": low, "high": high, "items": score.items}


def wrong_items(
    data: Scored, task: Task, mine: Mapping[str, Any], theirs: Mapping[str, Any] | None, places: Sequence[int]
) -> str:
    """Return the items that a model gets wrong, as CSV. A text that a spreadsheet would run is quoted, as in results.csv."""
    items = {item.id: item for item in data.items}
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(_HEADINGS)
    for place in places:
        item = items[mine["ids"][place]]
        value = mine["values"][place] if "values" in mine else None
        cells = [
            data.places.get(item.id, ""), item.id, _prompt(item), item.completion.strip(),
            _answer(task, mine, place), value, _answer(task, theirs, place) if theirs is not None else None,
        ]  # fmt: skip
        writer.writerow([text_of(cell) for cell in cells])
    return buffer.getvalue()


def _prompt(item: Item) -> str:
    if isinstance(item.prompt, str):
        return item.prompt
    return " ".join(f"{message.role}: {message.content}" for message in item.prompt)


def _answer(task: Task, outcomes: Mapping[str, Any], place: int) -> str:
    found = outcomes["predicted"][place]
    return task.labels[found].strip() if task.metric in LABELLED else str(found)


def _text(
    document: Mapping[str, Any], found: Score, other: Score | None, difference: Difference | None, data: Scored
) -> str:
    better = "higher" if METRICS[found.metric].direction == "maximize" else "lower"
    lines = [
        f"{document['model']} on {document['data']}: {_shown(found)} of {_items(found.items)} ({better} is better)"
    ]
    if other is not None:
        lines.append(f"untouched model: {_shown(other)}")
    if difference is not None:
        what = "in nats a token, " if found.metric == "perplexity" else ""
        low, high = difference.interval
        text = f"difference on the same items: {what}{difference.value:+.3f} [{low:+.3f}, {high:+.3f}]"
        if difference.only_this is not None:
            text += (
                f"; {difference.only_this} only this model gets right, {difference.only_other} only the untouched one"
            )
        lines.append(text + ("" if difference.sure else ": no clear difference"))
    elif document["why_no_untouched"]:
        lines.append(f"not compared with the untouched model: {document['why_no_untouched']}")
    if document["wrong_items"] is not None:
        lines.append(
            f"{_items(document['wrong'])} {'is' if document['wrong'] == 1 else 'are'} not right: {document['wrong_items']}"
        )
    lines += [
        f"left out: {left.rows} row{'s' * (left.rows != 1)}: {left.reason}{left.places}" for left in data.left_out
    ]
    lines += [f"note: {note}" for note in document["notes"]]
    return "\n".join(lines)


def _items(count: int) -> str:
    return f"{count:,} item{'s' * (count != 1)}"


def _shown(score: Score) -> str:
    ends = f" [{number(score.interval.low)}, {number(score.interval.high)}]" if score.interval is not None else ""
    return f"{score.metric} {number(score.value)}{ends}"
