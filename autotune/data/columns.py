"""What each column of texts is likely to hold: labels, answers, texts that a prompt is made of, or numbers that name rows."""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping, Sequence

from autotune.data.recognised import IDS, plain_name

_MOST_LABELS, _EACH = 300, 3
"""The most different values in a column of labels, and the least rows of each, on average (one fewer where its name says so)."""
_LONGEST_LABEL = 60
"""The most characters of a label (median)."""
_FEW_WORDS = 4
"""The most words of a label (median), unless the name of its column says that it holds labels."""
LABELS = (
    "label", "labels", "class", "category", "intent", "target", "tone", "sentiment", "topic", "team", "emotion", "rating",
    "stars", "spam", "type", "tag", "department", "priority", "language", "polarity", "gold_label", "label_text", "verdict",
)  # fmt: skip
ANSWERS = (
    "answer", "completion", "response", "output", "summary", "highlights", "target", "reference", "reply", "translation",
    "title", "assistant", "answers", "chosen", "solution",
)  # fmt: skip
_TEXTS = (
    "text", "sentence", "phrase", "question", "prompt", "instruction", "input", "context", "document", "article", "premise",
    "hypothesis", "content", "body", "message", "query", "utterance", "review", "dialogue", "source", "passage", "subject",
)  # fmt: skip


def could_be_labels(texts: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the columns of few different, short values. One whose name says that it holds labels may be empty in many rows."""
    fitting = []
    for name, cells in texts.items():
        filled = [cell for cell in cells if cell]
        kinds = set(filled)
        wordy = statistics.median(len(kind.split()) for kind in kinds) > _FEW_WORDS if kinds else True
        known = plain_name(name) in LABELS
        if (wordy and not known) or _counts_rows(name):
            continue
        repeated = 2 <= len(kinds) <= _MOST_LABELS and len(filled) >= (_EACH - known) * len(kinds)
        enough = known or len(filled) >= 0.8 * len(cells)
        if repeated and enough and statistics.median(map(len, kinds)) <= _LONGEST_LABEL:
            fitting.append(name)
    return fitting


def _counts_rows(name: str) -> bool:
    """Whether a name is that of an id or an index of rows, and not of classes: class_id, Class Index."""
    return bool(IDS.search(name)) and not set(plain_name(name).split("_")) & set(LABELS)


def reply_of(texts: Mapping[str, Sequence[str]]) -> str | None:
    """Return the column that answers another one, whatever labels stand beside it: the category of a question, the source of a
    document. Columns that are surely labels come first, but not before the answers to instructions.
    """
    reply = first_named([*texts], _REPLIES)
    if reply is None or first_named([*texts], _REQUESTS) is not None:
        return reply
    labels = first_named([name for name in could_be_labels(texts) if name != reply], _SURE)
    asked = first_named([name for name in texts if name != reply], _TEXTS)
    return reply if labels is None and asked is not None else None


_REQUESTS = ("instruction", "instructions", "prompt")
_REPLIES = ("output", "response", "completion", "answer", "summary", "highlights", "reply", "solution")
_SURE = (
    "label", "labels", "class", "target", "intent", "tone", "sentiment", "emotion", "rating", "stars", "score", "spam", "polarity",
    "gold_label", "label_text", "verdict", "team", "department", "priority",
)  # fmt: skip


def label_of(texts: Mapping[str, Sequence[str]]) -> str | None:
    """Return the column of labels. Of several, one with a usual name, else the last."""
    fitting = could_be_labels(texts)
    if len(fitting) == len(texts) > 1:  # all repeat: the one with the longest texts holds the prompts
        longest = max(fitting, key=lambda name: statistics.fmean(map(len, texts[name])))
        fitting.remove(longest)
    if (reply := reply_of(texts)) is not None:
        return reply if reply in fitting else None
    words = [name for name in fitting if not are_numbers(texts[name])]
    found = first_named(words, LABELS) or first_named(fitting, LABELS) or next(iter(reversed(words or fitting)), None)
    if found is not None and found not in words:  # the names of classes are better labels than their numbers
        return next((name for name in words if same_labels(texts[name], texts[found])), found)
    return found


def always_the_same(cells: Sequence[str]) -> bool:
    """Whether all of more than five cells hold one text."""
    return len(cells) > 5 and all(cells) and len(set(cells)) == 1


def same_labels(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether a column repeats another one in other words, such as the number of a label beside its name."""
    pairs = {(a, b) for a, b in zip(one, other, strict=True) if a}
    return (
        len(pairs) == len({a for a, _ in pairs})
        and len({a for a, _ in pairs}) <= _MOST_LABELS
        and len(pairs) * _EACH <= len(one)
    )


def asking(names: Sequence[str], texts: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Return the columns of the prompt: those with usual names, else those with longer texts."""
    worded = [name for name in names if are_numbers(texts[name]) is False] or list(names)
    known = [name for name in worded if plain_name(name) in _TEXTS or plain_name(name).rstrip("12ab_") in _TEXTS]
    sources = [name for name in could_be_labels(texts) if plain_name(name) == "source"]  # where a text is from
    known = [name for name in known if name not in sources] or known
    if known:
        return tuple(known)
    long = [name for name in worded if statistics.fmean(map(len, texts[name])) >= 15]
    return tuple(long or worded[:1])


def first_named(names: Sequence[str], known: Sequence[str]) -> str | None:
    """Return the column that has the first of the known names; None where none has one."""
    plain = {plain_name(name): name for name in reversed(names)}
    return next((plain[word] for word in known if word in plain), None)


def is_id(name: str, cells: Sequence[str]) -> bool:
    """Whether a column numbers its rows: by its name, by numbers that are mostly different, or by cells of one character."""
    return (
        bool(IDS.search(name))
        or (are_numbers(cells) and len(set(cells)) > 0.5 * len(cells))
        or max(map(len, cells)) <= 1
    )


def are_numbers(cells: Sequence[str]) -> bool:
    """Whether all filled cells are numbers, with a decimal point or comma."""
    filled = [cell for cell in cells if cell]
    return bool(filled) and all(re.fullmatch(r"[+-]?[0-9]+([.,][0-9]+)?(e[+-]?[0-9]+)?", cell) for cell in filled[:500])
