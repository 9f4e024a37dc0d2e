"""The labels that a metric chooses among: whether the splits fit them, and which of them look like a typing error."""

from __future__ import annotations

import html
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from difflib import SequenceMatcher

from autotune.data.items import Splits
from autotune.data.schema import SPLITS, DataSpec
from autotune.data.sources import some_of
from autotune.errors import Problem, nearest, shown

_SHOWN_LABELS = 5
_SHOWN_NOTES = 10
_SHOWN_LINES = 20
_RARE = 0.02
"""A label with at most this share of another label's rows may be a misspelling of it."""
_COMPARED = 300
"""The most labels that are compared in pairs."""
_ALIKE = 0.85
"""Two labels look alike from this ratio of `difflib.SequenceMatcher` on."""
_ENOUGH_ROWS = 20
"""The least rows of train in which completions that hardly repeat are not taken for labels."""
_MISSING = {
    "nan", "none", "null", "na", "n/a", "n.a.", "<na>", "#n/a", "nil", "nat", "undefined", "missing", "#value!", "#ref!",
    "[]", "{}", "inf", "-inf", "infinity", "-infinity", "#div/0!", "#name?",
}  # fmt: skip
_YES, _NO = ("true", "1", "yes", "y", "t"), ("false", "0", "no", "n", "f")
_SEPARATORS = re.compile(r"\s*[|;,/]\s*")
_LOOKALIKES = str.maketrans("асеһіјкмнорѕтухԁвοανρτυικ", "acehijkmhopstyxdboavptuik")
"""Small letters of Cyrillic and Greek, and the Latin letters that look the same."""


def wrong_labels(spec: DataSpec, labels: tuple[str, ...], splits: Splits) -> Iterator[Problem]:
    """Yield the problems of a sweep's labels, and of completions that are not among them."""
    if len(labels) < 2:
        remedy = "add rows with another completion to train, or use metric: exact_match"
        yield Problem(f"metric {spec.metric} needs two labels or more", "data.labels", value=labels, remedy=remedy)
    for split in SPLITS:
        places: dict[str, str] = {}
        for row in splits[split]:
            places.setdefault(row.item.completion, row.place)
        unknown = sorted(places.keys() - set(labels))
        if not unknown:
            continue
        where = f" (first in {places[unknown[0]]})"
        near = nearest(unknown[0], labels)
        meant = _alike(unknown[0], labels) or (None if re.search(r"[0-9]", unknown[0]) else near)
        if spec.labels is None:
            rule = f"every label of {split} must occur in train, which lacks {some_of(unknown, _SHOWN_LABELS)}{where}"
            remedy = "add such rows to train, list all labels in data.labels, or use metric: exact_match"
            many = len(labels) > 0.5 * len(splits["train"]) and len(splits["train"]) >= _ENOUGH_ROWS
            if many and len(unknown) > 1 and not _alike(unknown[0], labels):
                rule += (
                    f"; {len(labels)} different completions in {len(splits['train'])} rows of train are hardly labels"
                )
                remedy = "use metric: exact_match, rouge_l or perplexity, or name a column of labels in data.completion"
            elif meant:
                remedy = f"write {meant!r} for {unknown[0]!r} if that is meant; else {remedy}"
            yield Problem(rule, f"data.{split if getattr(spec, split) else 'train'}", remedy=remedy)
        else:
            rule = f"labels must hold every completion exactly; {split} has {some_of(unknown, _SHOWN_LABELS)}{where}"
            remedy = f"write {unknown[0]!r} for {meant!r}" if meant else "add what is missing"
            yield Problem(rule, "data.labels", value=labels, remedy=remedy)


def _alike(label: str, labels: Collection[str]) -> str | None:
    return next((other for other in labels if folded(other) == folded(label)), None)


def label_rows(labels: Collection[str], splits: Splits) -> dict[str, dict[str, int]]:
    """Return, by label and split, the number of rows."""
    counts = {split: Counter(row.item.completion for row in splits[split]) for split in SPLITS if splits[split]}
    return {label: {split: counts[split][label] for split in counts} for label in labels}


def label_lines(rows: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Return lines for the user: the first labels with their rows, a line each, and the number of the others."""
    lines = [
        f"  label {shown(label)}: {', '.join(f'{count} {split}' for split, count in counts.items())}"
        for label, counts in list(rows.items())[:_SHOWN_LINES]
    ]
    if (more := len(rows) - _SHOWN_LINES) > 0:
        lines.append(f"  and {more} more labels (plan --json lists all)")
    return lines


def folded(label: str) -> str:
    """Return a normal form of a label: labels with the same form are probably meant to be one.

    It ignores case, white space, invisible characters, Unicode forms, letters of another alphabet that look the same, HTML's
    `&amp;`, quotes around a label, a full stop at its end, - or _ for a space, and the spelling of a number: 1, 01, 1.0.
    """
    text = unicodedata.normalize("NFKC", html.unescape(label)).casefold().translate(_LOOKALIKES)
    text = text.replace("i\u0307", "i")  # the small letter of the Turkish capital with a dot
    text = "".join(c for c in text if unicodedata.category(c) not in ("Cf", "Cc") or c.isspace())
    text = re.sub(r"(?<=\w)[\s_-]+(?=\w)", " ", text.translate(_QUOTES)).strip(" \t\n\r\u00a0'.,;:!")
    plain = re.sub(r"(?<=[0-9]),(?![0-9]{3}\b)(?=[0-9]+$)", ".", text)  # a decimal comma, and none between thousands
    number = re.fullmatch(r"[+-]?[0-9]{1,15}(?:\.[0-9]{1,15})?", plain)
    return f"{float(plain):g}" if number and abs(float(plain)) < 1e6 else text or label


_QUOTES = {ord(c): "'" for c in "\"'`´‘’‚‛“”„‟«»‹›"} | {ord(c): "-" for c in "‐‑‒–—−"}


def label_notes(rows: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Return warnings about labels that are probably meant to be one, or to be none, with their rows and the remedy."""
    total = {label: sum(counts.values()) for label, counts in rows.items()}
    notes = []
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for label in rows:
        groups[folded(label)].append(label)
    for members in groups.values():
        if len(members) > 1:
            told = some_of([*members], _SHOWN_LABELS)
            counts = ", ".join(f"{total[label]}" for label in members[:_SHOWN_LABELS])
            most = max(members, key=lambda label: total[label])
            how = _difference(members)
            notes.append(
                f"labels {told} ({counts} rows) differ only in {how}, and count as {len(members)} labels; "
                f"if they are one, write {most!r} for all of them in the data"
            )
    notes += [
        f"label {label!r} ({total[label]} rows) looks like a missing value, and counts as a label; "
        "to leave these rows out, empty their cells in the data"
        for label in rows
        if label.strip().casefold() in _MISSING and len(rows) > 1
    ]
    notes += _placeholders(rows, total)
    notes += _quoted(rows)
    notes += _padded(rows)
    notes += _whole_numbers(rows)
    notes += _same_meaning(groups)
    notes += _several_in_one(rows)
    notes += _misspelt(rows, total, groups)
    if (more := len(notes) - _SHOWN_NOTES) > 0:
        notes = [*notes[:_SHOWN_NOTES], f"and {more} more labels like these"]
    return notes


def _placeholders(rows: Mapping[str, object], total: Mapping[str, int]) -> Iterator[str]:
    """Yield a note for each sign that stands for a missing value beside labels that are words, and one for formulas."""
    words = [label for label in rows if any(map(str.isalnum, label))]
    for label in rows:
        if label.strip() in ("?", "-", "--", "---", "–", "—", ".", "*") and len(words) == len(rows) - 1 > 1:
            yield (
                f"label {label!r} ({total[label]} rows) looks like a missing value, and counts as a label; "
                "to leave these rows out, empty their cells in the data"
            )
    for label in rows:
        rare = total[label] <= max(1, _RARE * sum(total.values())) and len(rows) > 2
        if not rare or not re.fullmatch(r"\s*[+-]?[0-9.,]+\s*", label):
            continue
        if all(any(map(str.isalpha, other)) for other in rows if other != label):
            yield (
                f"label {label!r} ({total[label]} rows) is a number beside labels that are words, and counts as a label; "
                "take its rows out if they are none, such as a line of totals"
            )
    formulas = [label for label in rows if re.fullmatch(r'\s*="[^"]*"\s*', label)]
    if formulas:
        yield (
            f"labels {some_of(formulas, _SHOWN_LABELS)} are formulas of a spreadsheet that keep a text as it is; "
            "write the text alone in the data to have the model answer so"
        )


def _quoted(rows: Mapping[str, object]) -> Iterator[str]:
    """Yield a note for labels that all stand in quotes: the data was quoted twice, or in a way that is not read."""
    if len(rows) > 1 and all(re.fullmatch(r"""\s*(["'])[^"']*\1\s*""", label) for label in rows):
        yield (
            f"all labels stand in quotes ({some_of([*rows], 2)}): the model has to write them, too; "
            "take the quotes out of the cells"
        )


def _padded(rows: Mapping[str, object]) -> Iterator[str]:
    """Yield a note for white space around labels, which template and data may both add, where no similar label shows it."""
    for pattern, where in ((r"\A\s{2,}", "begin with two white space characters"), (r"\s\Z", "end in white space")):
        padded = [label for label in rows if re.search(pattern, label)]
        alone = [label for label in padded if sum(folded(other) == folded(label) for other in rows) == 1]
        if alone:
            yield (
                f"{len(padded)} labels {where} ({some_of(alone, 2)}): the model has to write it, too; "
                "take the white space out of the cells, or out of data.completion"
            )


def _whole_numbers(rows: Mapping[str, object]) -> Iterator[str]:
    """Yield a note for whole numbers with a fraction: data frames write a column with empty cells so."""
    one = next((label for label in rows if re.fullmatch(r"\s*[+-]?[0-9]+\.0\s*", label)), None)
    whole = all(re.fullmatch(r"\s*[+-]?[0-9]+(?:\.0)?\s*", label) for label in rows)
    if one is not None and whole and len({folded(label) for label in rows}) == len(rows) > 1:  # else a pair is told
        some = "" if all("." in label for label in rows) else ", some"
        yield (
            f"labels {some_of([*rows], _SHOWN_LABELS)} are whole numbers{some} with a fraction, as data frames write a column with "
            f"empty cells; write them as such in the data ({one.replace('.0', '')!r}) to have the model answer so"
        )


def _same_meaning(groups: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Yield a note for yes and no that are written in two ways: true beside 1, y beside yes."""
    yes, no = ([word for word in words if word in groups] for words in (_YES, _NO))
    if len(yes) > 1 and len(no) > 1:
        told = some_of([groups[word][0] for word in (*yes, *no)], _SHOWN_LABELS)
        yield f"labels {told} say yes and no in two ways, and count as {len(yes) + len(no)} labels; write them one way in the data"


def _several_in_one(rows: Mapping[str, object]) -> Iterator[str]:
    """Yield a note for cells that hold several labels: each combination would count as a label of its own."""
    if all(re.fullmatch(r"\s*[+-]?[0-9]+,[0-9]+\s*", label) for label in rows):  # decimal commas
        return
    parts = {label: tuple(filter(None, _SEPARATORS.split(label.strip()))) for label in rows}
    holders = Counter(part for found in parts.values() for part in set(found))
    several = [
        label
        for label, found in parts.items()
        if (label.strip().startswith("[") and label.strip().endswith("]") and len(label.strip()) > 2)
        or (len(found) > 1 and all(holders[part] > 1 for part in found))
    ]  # fmt: skip
    if several:
        yield (
            f"{len(several)} of {len(rows)} labels look like several in one cell ({some_of(several, 2)}), and each such cell "
            "counts as a label of its own; keep one label in a row, or let the model write the list: metric: exact_match"
        )


def _difference(members: list[str]) -> str:
    """Return the difference between labels with the same `folded` form, in words."""

    def same(change: Callable[[str], str]) -> bool:
        return len({" ".join(change(label).split()) for label in members}) == 1

    if same(str):
        return "white space"
    if same(lambda label: label.casefold().replace("i\u0307", "i")):
        return "upper and lower case"
    if same(lambda label: unicodedata.normalize("NFKC", label)):
        return "the Unicode form of their characters"
    if all(re.search(r"[0-9]", label) for label in members) and all(
        re.fullmatch(r"\W*[0-9.,]+\W*", label) for label in members
    ):
        return "how a number is written"
    if same(lambda label: label.casefold().translate(_LOOKALIKES)):
        return "letters of another alphabet that look the same"
    if same(html.unescape):
        return "how HTML writes a character"
    if any(unicodedata.category(c) == "Cf" for label in members for c in label):
        return "invisible characters"
    return "case, spaces or punctuation"


def _misspelt(rows: Mapping[str, object], total: Mapping[str, int], groups: Mapping[str, list[str]]) -> Iterator[str]:
    """Yield a note for each rare label that is nearly a frequent one; words only, because 1 and 11 are two labels."""
    if len(rows) > _COMPARED:
        return
    for name, members in groups.items():
        few = sum(total[label] for label in members)
        for other, others in groups.items():
            many = sum(total[label] for label in others)
            if few > max(1, _RARE * many) or few >= many or min(len(name), len(other)) < 5:
                continue
            if re.search(r"[0-9]", name + other) or abs(len(name) - len(other)) > 2:
                continue
            if SequenceMatcher(None, name, other, autojunk=False).ratio() >= _ALIKE:
                yield (
                    f"label {members[0]!r} ({few} rows) is nearly {others[0]!r} ({many} rows); "
                    "correct it in the data if it is misspelt"
                )
                break
