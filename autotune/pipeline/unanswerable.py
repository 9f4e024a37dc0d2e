"""What no candidate could answer: refused where it is a whole split, told where it is single items."""

from __future__ import annotations

from collections.abc import Iterator

from autotune.data.schema import Dataset, DataSpec
from autotune.errors import Problem, shown
from autotune.pipeline.wording import exact, named, place_of
from autotune.stages.inspection_findings import Inspection, Unwritten


def unanswerable_problems(
    sweep_file: str, data: DataSpec, max_length: int, dataset: Dataset, look: Inspection
) -> Iterator[Problem]:
    """Say where no candidate could answer anything of a split."""
    if data.metric == "exact_match":
        for split, groups in look.unwritten.items():
            lost = sum(len(one.items) for one in groups)
            if groups and lost == look.counts.get(split):
                most = max(groups, key=lambda one: len(one.items))
                rule = f"no {split} completion could ever be matched: {_why_unwritten(dataset, data, most)}"
                where, remedy = _unwritten_remedy(data, look, most.reason)
                yield Problem(rule, where, sweep_file, remedy=remedy)
                break
    for split, items in look.same.items():
        if len(items) == look.counts.get(split):
            rule = f"all prompts of {split} have the same tokens, although their texts differ ({place_of(dataset, split, items[0])}, ...)"
            key, remedy = (
                "data.prompt",
                "write the texts in letters that the model's tokenizer knows, or name another model",
            )
            if data.messages is not None and look.hidden_roles:
                key, remedy = (
                    "data.messages",
                    f"the chat template leaves out the text of {named(look.hidden_roles)}: correct it",
                )
            elif look.cut.get(split):
                key, remedy = "train.max_length", f"raise it: {max_length} tokens leave nothing of what differs"
            yield Problem(rule, key, sweep_file, remedy=remedy)
            break


def _why_unwritten(dataset: Dataset, data: DataSpec, one: Unwritten) -> str:
    """Return why completions are never what is generated, with the first of them."""
    place = dataset.places.get(one.items[0], f"item {one.items[0]}")
    if one.reason == "text":
        return f"this model's tokenizer makes {exact(one.written)} of {exact(one.completion)} ({place})"
    if one.reason == "end":
        return f"generation ends at {shown(one.written)}, which eos_token_id of the model's settings names, within {shown(one.completion)} ({place})"
    if one.reason == "stop":
        return f"{shown(one.completion)} ({place}) holds a text of data.stop"
    return f"{shown(one.completion)} ({place}) has more than the {data.max_new_tokens} tokens of data.max_new_tokens"


def _unwritten_remedy(data: DataSpec, look: Inspection, reason: str) -> tuple[str, str]:
    """Return the key to change, and to what."""
    key = "data.messages" if data.messages is not None else "data.completion"
    if reason == "text":
        return (
            key,
            "write the completions as the tokenizer gives them back, or choose another metric: choice for labels, rouge_l for texts",
        )
    if reason == "end":
        return "model", "correct eos_token_id in its generation_config.json and config.json"
    if reason == "stop":
        return "data.stop", "take that text out of it, or out of the completions"
    return "data.max_new_tokens", f"raise it: the longest completion has {look.longest_answer} tokens"


def unanswerable_notes(data: DataSpec, dataset: Dataset, look: Inspection) -> Iterator[str]:
    """Tell of single items that no candidate could answer."""
    for split, groups in look.unwritten.items():
        for one in groups:
            if data.metric == "exact_match" or one.reason in ("text", "end"):
                yield (
                    f"data: {len(one.items)} of {look.counts.get(split)} {split} completions can never be what the model writes: "
                    f"{_why_unwritten(dataset, data, one)}; {_unwritten_remedy(data, look, one.reason)[1]}"
                )
    for split, items in look.same.items():
        if items:
            yield (
                f"data: {len(items)} of {look.counts.get(split)} {split} prompts have the tokens of another one with another answer "
                f"({place_of(dataset, split, items[0])}, ...), so that no model can tell them apart"
            )
    token, unknown = look.unknown
    if unknown:
        split, item = unknown[0]
        yield (
            f"data: {len(unknown)} prompts hold what the model's tokenizer does not know and replaces by {shown(token)} "
            f"({place_of(dataset, split, item)}, ...)"
        )
    if look.hidden_roles:
        yield f"model: its chat template does not show the text of messages of {named(look.hidden_roles)} as they are"
    if look.dated:
        yield (
            f"model: its chat template writes what changes with time ({shown(look.dated)}), so that a later prompt of best/ is another one than was "
            "trained and scored; write a fixed text for it into the template"
        )
