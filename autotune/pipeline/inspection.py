"""Judge the inspection of model, tokenizer and data, before anything is trained: what is refused, left out, or noted.

The inspection itself is a stage in a worker process (`stages/inspection.py`), for `run` and for `plan` alike. The libraries
that will load the model, render the chat template and encode the text answer there whether a tensor is missing, the template
accepts a conversation, or two labels have the same tokens. It takes seconds, and the cache keeps its result.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from autotune.data.control import without_end
from autotune.data.items import make_item
from autotune.data.schema import SPLITS, Dataset, DataSpec, Item, LeftOut, Split, chat_templates
from autotune.data.sources import some_of
from autotune.durable import write_aside
from autotune.errors import Problem, UsageError, shown
from autotune.metrics import LABELLED, generates
from autotune.models import digest_outline, tensors_of
from autotune.pipeline.unanswerable import unanswerable_notes, unanswerable_problems
from autotune.pipeline.wording import SHOWN, counted, exact, listed, named, place_of
from autotune.stages.inspection_findings import Control, Inspection
from autotune.stages.preparation_jobs import InspectJob

_AGAIN = "fetch or save the model again"
_SHIPPED = "ONNX Runtime GenAI, which is all that users of best/ need,"


@dataclass(frozen=True)
class Inspected:
    """The data of a sweep after the inspection, with what the user should know."""

    dataset: Dataset
    """Without conversations that the chat template refuses."""
    notes: tuple[str, ...]
    """Lines for the user."""
    encoding: str | None = None
    longest: int = 0
    pad: int | None = None
    linear: tuple[str, ...] = ()
    tied_head: bool = False
    """All as in `Inspection`."""


def has_weights(folder: Path) -> bool:
    """Whether a model's files hold any weight: those of an example may hold none, and then there is nothing to compare."""
    try:
        return any(all(shape) for shape in tensors_of(folder).values())
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return True  # damaged: the inspection says how


def items_file(cache: Path, dataset: Dataset, split: str) -> tuple[str, Path]:
    """Write the items of a split for stages, and return their digest and the file."""
    digest = dataset.digest(split)
    file = cache / "items" / f"{digest}.json"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        members = getattr(dataset, split)
        write_aside(file, json.dumps([item.model_dump(mode="json") for item in members], ensure_ascii=False))
    return digest, file


def inspect_job(
    data: DataSpec, max_length: int, ships: bool, dataset: Dataset, folder: Path, cache: Path
) -> InspectJob:
    """Return the job that inspects the model in `folder` and all items. Raises OSError.

    `max_length`: the tokens that training and scoring take of a text; `ships`: whether models are built.
    """
    files = {split: items_file(cache, dataset, split) for split in SPLITS if getattr(dataset, split)}
    try:
        outline = digest_outline(folder)
    except (ValueError, LookupError):  # damaged: the inspection says how
        outline = ""
    return InspectJob(
        model=outline, data=tuple((split, digest) for split, (digest, _) in files.items()),
        labels=dataset.labels if data.metric in LABELLED else (), metric=data.metric,
        max_length=max_length, max_new_tokens=data.max_new_tokens,
        stop=data.stop if generates(data.metric) else None, ships=ships,
        model_dir=folder, files=tuple(file for _, file in files.values()),
    )  # fmt: skip


def judge_inspection(
    model: str, sweep_file: str, data: DataSpec, max_length: int, dataset: Dataset, look: Inspection
) -> Inspected:
    """Return the data that the sweep goes on with. Raises UsageError with every problem of model and data.

    `model`: its name, and `max_length`: tokens of a text, as in `sweep_file`.
    """
    problems = list(_model_problems(model, sweep_file, look))
    if not problems:
        problems += _data_problems(sweep_file, data, max_length, dataset, look)
        problems += unanswerable_problems(sweep_file, data, max_length, dataset, look)
        kept = _kept(data, dataset, look)
        problems += _emptied(data.metric, sweep_file, dataset, kept)
    if problems:
        raise UsageError(problems)
    return Inspected(
        kept, tuple(_notes(data, max_length, dataset, kept, look)), look.encoding, look.longest, look.pad, look.linear,
        look.tied_head,
    )  # fmt: skip


# --- Refused -------------------------------------------------------------------------------------------------------


def _model_problems(model: str, sweep_file: str, look: Inspection) -> Iterator[Problem]:
    def problem(rule: str, remedy: str) -> Problem:
        return Problem(rule, "model", sweep_file, value=model, remedy=remedy)

    if look.trouble:
        yield problem(look.trouble, look.remedy)
    if look.missing:
        rule = f"its files lack {counted(look.missing, 'tensor')} that config.json asks for, which would be random: "
        tied = ", or, where the head is the embedding, set tie_word_embeddings to true in config.json"
        other = _other_form(look)
        yield problem(
            rule + named(look.missing),
            other or _AGAIN + (tied if any("lm_head" in name for name in look.missing) else ""),
        )
    if look.mismatched:
        yield problem(
            f"{counted(look.mismatched, 'tensor')} of its files do not fit config.json: {listed(look.mismatched)}",
            _other_form(look) or _AGAIN,
        )
    if look.foreign:
        rule = f"its files hold {counted(look.foreign, 'tensor')} that config.json leaves out, so that another model would be loaded: "
        yield problem(rule + named(look.foreign), _other_form(look) or "correct config.json, or save the model again")
    if look.beyond:
        rule = f"the tokenizer has {look.tokens} tokens and the embedding {look.rows} rows: the data uses {named(look.beyond)}, which {'has' if len(look.beyond) == 1 else 'have'} none"
        remedy = "call model.resize_token_embeddings(len(tokenizer)) and save the model, or write the texts without"
        yield problem(rule, f"{remedy} {'it' if len(look.beyond) == 1 else 'them'}")
    if look.ends_beyond:
        rule = f"eos_token_id of its settings names {', '.join(map(str, look.ends_beyond[:SHOWN]))}, and the embedding has {look.rows} rows"
        yield problem(rule, "correct eos_token_id in its generation_config.json and config.json")
    if look.unread:
        remedy = "name a model with another tokenizer, or leave out space.build to tune adapters for PyTorch alone"
        yield problem(f"{look.unread}, so that a built model could not be given text", remedy)


_ADAPTED = (".lora_", ".base_layer.", ".modules_to_save.")
_QUANTISED = ("qweight", "qzeros", "weight_scale", "weight_scale_inv", "weight_packed", "absmax", "SCB", "scales")


def _other_form(look: Inspection) -> str:
    """Return what to do about files of weights that are a model in another form; empty where they do not look so."""
    held = [*look.foreign, *look.unused]
    if any(part in name for name in held for part in _ADAPTED):
        return "it was saved with an adapter in it: merge that (merge_and_unload()) and save the model again"
    numbers = any("is whole numbers" in said for said in look.mismatched)
    if numbers or any(name.rpartition(".")[2] in _QUANTISED for name in held):
        return "its weights are quantised: name the model in its original precision"
    inside = next((name for name in held if any(name.endswith(f".{lost}") for lost in look.missing)), None)
    if inside is not None:
        return (
            f"they are there under other names ({inside}), as a wrapper saves them: save the model inside of it again"
        )
    return ""


def _data_problems(
    sweep_file: str, data: DataSpec, max_length: int, dataset: Dataset, look: Inspection
) -> Iterator[Problem]:
    key = "data.messages" if data.messages is not None else "data.completion"

    def problem(rule: str, where: str, remedy: str, value: object = None) -> Problem:
        return Problem(rule, where, sweep_file, value=value, remedy=remedy)

    if look.conversations and len(look.refused) == look.conversations:
        reasons = list(dict.fromkeys(reason for _, _, reason in look.refused))
        rule = f"the model's chat template refuses every conversation ({'; '.join(reasons[:SHOWN])})"
        yield problem(rule, "data.messages", _template_remedy(reasons))
    for group in look.alike:
        rule = f"the labels {' and '.join(map(exact, group))} have the same tokens in this model's tokenizer, so that one of them could never be chosen"
        yield problem(rule, "data.labels", "write one of them for all of these in the data")
    if look.blank:
        rule = f"the label {exact(look.blank[0])} has no tokens in this model's tokenizer"
        yield problem(rule, "data.labels", "write another text for it in the data")
    if look.too_long:
        split, item, tokens = max(look.too_long, key=lambda one: one[2])
        count = len(look.too_long)
        rule = (
            f"every completion must fit into it, and {count} {'does' if count == 1 else 'do'} not: that of "
            f"{place_of(dataset, split, item)} has {tokens} tokens"
        )
        remedy = f"raise it to {tokens + 2} at least, or shorten the completions"
        yield problem(rule, "train.max_length", remedy, max_length)
    if look.too_far is not None:
        prompt, limit, context = look.too_far
        rule = f"a prompt of {prompt} tokens and {limit} new ones do not fit into the model's {context}"
        yield problem(rule, "data.max_new_tokens", "lower data.max_new_tokens or train.max_length")
    if generates(data.metric):
        inside = [one for one in look.controls if one.where == "completion" and _inside(dataset, one, look.ends)]
        for token in dict.fromkeys(one.token for one in inside):
            places = [place_of(dataset, one.split, item) for one in inside if one.token == token
                      for item in _inside(dataset, one, look.ends)]  # fmt: skip
            rule = f"completions hold {shown(token)}, which no generated text shows, so that they could never be matched ({listed(places)})"
            yield problem(rule, key, "take it out of the completions")


def _template_remedy(reasons: Sequence[str]) -> str:
    if any("no default specified" in reason for reason in reasons):
        return "call one of them default in its tokenizer_config.json, or write it into chat_template.jinja"
    if "chat_template.json" in reasons[0]:
        return "save the template that it holds as chat_template.jinja"
    if "has none" in reasons[0]:
        return "name a model with a chat template, or write data.prompt and data.completion"
    if any("system" in reason.lower() for reason in reasons):
        return "take the system message out, or write its text into the first message of the user"
    return "write the messages as the template wants them, or use data.prompt"


def _emptied(metric: str, sweep_file: str, dataset: Dataset, kept: Dataset) -> Iterator[Problem]:
    """Say where a split, or a label of train, was lost with the conversations that the template refuses."""
    for split in SPLITS:
        if getattr(dataset, split) and not getattr(kept, split):
            if any(getattr(kept, other) for other in SPLITS):  # else it was said of all
                rule = f"{split} must have rows, and the model's chat template refuses all of them"
                yield Problem(rule, "data.messages", sweep_file, remedy=_template_remedy([""]))
            return
    if metric in LABELLED:
        for split in SPLITS:
            unknown = sorted({item.completion for item in getattr(kept, split)} - set(kept.labels))
            if unknown:
                rule = f"every label of {split} must occur in train, which lacks {some_of(unknown, SHOWN)} without the rows that are left out"
                yield Problem(rule, "data.train", sweep_file, remedy="list all labels in data.labels, or add rows")


# --- Left out, changed ---------------------------------------------------------------------------------------------


def _kept(data: DataSpec, dataset: Dataset, look: Inspection) -> Dataset:
    """Return the data without the conversations that the template refuses, and completions without the tokens that end them."""
    refused = {(split, item): reason for split, item, reason in look.refused}
    if not refused and not any(one.where == "completion" and one.token in look.ends for one in look.controls):
        return dataset
    places = dict(dataset.places)
    gone: defaultdict[tuple[Split, str], list[str]] = defaultdict(list)
    splits: dict[str, tuple[Item, ...]] = {}
    for split in SPLITS:
        items = []
        for item in getattr(dataset, split):
            reason = refused.get((split, item.id))
            completion = without_end(item.completion, look.ends)
            place = dataset.places.get(item.id, f"item {item.id}")
            if reason is not None:
                gone[split, f"refused by the chat template ({reason})"].append(place)
            elif not completion.strip():
                gone[split, "empty completion"].append(place)
            else:
                changed = item if completion == item.completion else make_item(item.prompt, completion)
                places[changed.id] = place
                items.append(changed)
        splits[split] = tuple(items)
    labels: Iterable[str] = dict.fromkeys(without_end(label, look.ends) for label in dataset.labels)
    if data.metric in LABELLED and data.labels is None and refused:
        labels = {item.completion for item in splits["train"]}
    more = tuple(
        LeftOut(split=split, reason=reason, rows=len(rows), examples=tuple(rows[:3]))
        for (split, reason), rows in gone.items()
    )
    rows: dict[str, dict[str, int]] = {}
    for label, counts in dataset.label_rows.items():
        mine = rows.setdefault(without_end(label, look.ends), {})
        for part, count in counts.items():
            mine[part] = mine.get(part, 0) + count
    return dataset.model_copy(
        update={
            **splits,
            "labels": tuple(sorted(labels)),
            "left_out": (*dataset.left_out, *more),
            "places": places,
            "label_rows": rows,
        }
    )


# --- Notes ---------------------------------------------------------------------------------------------------------


def _notes(data: DataSpec, max_length: int, dataset: Dataset, kept: Dataset, look: Inspection) -> Iterator[str]:
    if look.unused:
        yield f"model: {counted(look.unused, 'tensor')} of its files are of no use to it, and are left out: {named(look.unused)}"
    if look.tokens > look.rows:
        yield f"model: the tokenizer has {look.tokens} tokens and the embedding {look.rows} rows; the data uses none of those without a row"
    if look.named_class:
        yield (
            f"model: the class {look.named_class} that it names for its tokenizer splits texts otherwise than its tokenizer.json says: "
            "texts are split as the file says, in training, in scoring and in best/"
        )
    before, behind = look.around
    if before or behind:
        where = " and ".join(
            f"{way} a text with {shown(token)}" for way, token in (("begins", before), ("ends", behind)) if token
        )
        line = f"model: its tokenizer {where}, and {_SHIPPED} does not: so neither training nor scoring does"
        if before:
            line += f"; to have it, write {shown(before)} at the beginning of data.prompt, and of each prompt that best/ is given"
        yield line
    if look.differing:
        yield (
            f"model: {_SHIPPED} makes other tokens of {look.differing} of {look.texts} texts than transformers "
            f"({look.example}): training and scoring take its tokens"
        )
    if look.template:
        used = "text is rendered by transformers, and best/ must be given such text"
        if not look.template.startswith("it gives an error"):
            used = "training and scoring take its text"
        yield f"model: {_SHIPPED} renders the chat template otherwise ({look.template}): {used}"
    yield from _control_notes(data, dataset, look)
    yield from unanswerable_notes(data, dataset, look)
    for split, item, reason in look.refused[:SHOWN]:
        yield f"data: {place_of(dataset, split, item)} is left out: the chat template refuses it ({reason})"
    if len(look.refused) > SHOWN:
        yield f"data: {len(look.refused) - SHOWN} more conversations are left out, which the chat template refuses"
    for split, count in look.cut.items():
        if count:
            total = len(getattr(kept, split))
            what, part = ("prompts", "beginning") if data.text is None else ("texts", "end")
            yield (
                f"data: {count} of {total} {split} {what} do not fit into train.max_length {max_length} and "
                f"lose their {part}; raise it to keep them whole"
            )


def _control_notes(data: DataSpec, dataset: Dataset, look: Inspection) -> Iterator[str]:
    """Yield a note for each special token that is written out in texts."""
    by_token: defaultdict[tuple[str, str], list[Control]] = defaultdict(list)
    for one in look.controls:
        by_token[one.token, one.where].append(one)
    for (token, where), ones in by_token.items():
        counts = " and ".join(f"{len(one.items)} {one.split}" for one in ones)
        place = place_of(dataset, ones[0].split, ones[0].items[0])
        held = f"data: {counts} {where}s hold {shown(token)} ({place}, ...)"
        if where == "completion" and token in look.ends:
            yield f"{held}, which ends a text: it is taken off their end, because training and scoring add it themselves"
        elif where == "completion":
            yield f"{held}, which this tokenizer takes for a token of its own, and no generated text shows"
        elif look.around[0] != token:  # else it was told
            written = any(token in text for text in _templates(data))
            source = "as the sweep file writes it" if written else "from the data, not from the sweep file"
            yield f"{held}, {source}, which this tokenizer takes for a token of its own"


def _templates(data: DataSpec) -> list[str]:
    if data.messages is not None:
        return [message.content for message in chat_templates(data.messages)]
    return [data.prompt or data.text or ""]


def _inside(dataset: Dataset, one: Control, ends: Sequence[str]) -> list[str]:
    """Return the items of `one` whose completion still holds its token after the tokens at its end are cut off."""
    there = {item.id: item.completion for item in getattr(dataset, one.split)}
    return [item for item in one.items if one.token in without_end(there.get(item, ""), ends)]
