"""Guess the task of labelled rows: which column is the answer, which columns are the prompt, and which metric scores an answer.

`autotune init` writes the guess into a sweep file and explains it; the user changes the lines that are wrong.
"""

from __future__ import annotations

import math
import re
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path

from autotune.data.conversations import MEDIA, conversation_in, conversation_of
from autotune.data.readers import read_rows
from autotune.data.recognised import (
    IDS,
    columns_of_turns,
    converses,
    follows,
    holds,
    plain_name,
    refuse_foreign,
    row_for_header,
)
from autotune.data.schema import Message
from autotune.data.sources import SYSTEMS, TOOLS, locate
from autotune.data.templates import RowError, cell_text, is_empty
from autotune.errors import Problem, UsageError, shown

_LOOKED_AT = 50_000
"""About the number of rows that are examined, spread over the file, which may be sorted."""
_MOST_LABELS, _EACH = 300, 3
"""The most different values in a column of labels, and the least rows of each, on average."""
_EACH_ANSWER = 15
"""The last turns of conversations are labels where each occurs in at least so many rows, so that every split has it."""
_LONGEST_LABEL = 60
"""The most characters of a label (median)."""
_FEW_WORDS = 4
"""The most words of a label (median), unless the name of its column says that it holds labels."""
_SHORT_ANSWER = 5
"""An answer of at most so many words (median) is right or wrong as a whole."""
_LABELS = (
    "label", "labels", "class", "category", "intent", "target", "tone", "sentiment", "topic", "team", "emotion", "rating",
    "stars", "spam", "type", "tag", "department", "priority", "language", "polarity", "gold_label", "label_text", "verdict",
)  # fmt: skip
_ANSWERS = (
    "answer", "completion", "response", "output", "summary", "highlights", "target", "reference", "reply", "translation",
    "title", "assistant", "answers", "chosen", "solution",
)  # fmt: skip
_TEXTS = (
    "text", "sentence", "phrase", "question", "prompt", "instruction", "input", "context", "document", "article", "premise",
    "hypothesis", "content", "body", "message", "query", "utterance", "review", "dialogue", "source", "passage", "subject",
)  # fmt: skip
_CHARACTERS, _BYTES = 3.0, 2.0
"""Characters of a token of English, which has about four; bytes of a token of letters that are not ASCII."""
_DIGIT, _ASCII = re.compile(r"[0-9]"), re.compile(r"[\x00-\x7f]+")
_NAME = re.compile(r"[^.\[\]!:{}?]+")
"""A column that a template can name."""


@dataclass(frozen=True)
class Guess:
    """The guessed task of a file: the columns of prompts and answers, and the metric."""

    rows: int
    way: str
    """The kind of data: messages, label, answer or text."""
    answer: str
    """The column of answers, of conversations (the last one, if several), or of plain text."""
    asks: tuple[str, ...] = ()
    """The columns of the prompt; for conversations in several columns, those before the last."""
    may_be_empty: frozenset[str] = frozenset()
    """The columns of `asks` that are empty in some rows."""
    metric: str = "choice"
    labels: tuple[str, ...] = ()
    """The values of a column of labels, as texts."""
    rarest: int = 0
    """The number of rows of the rarest label."""
    prompt_tokens: int = 0
    """Tokens of a prompt, as `about_tokens` has them: the median."""
    long_tokens: int = 0
    """Tokens of a prompt: the 99th percentile."""
    longest_prompt: int = 0
    """Tokens of the longest prompt."""
    answer_tokens: int = 0
    """Tokens of an answer: the 99th percentile."""
    longest_answer: int = 0
    """Tokens of the longest answer: none is ever cut."""
    why: tuple[str, ...] = ()
    """The reasons for the guess, a line each."""
    columns: tuple[str, ...] = field(default=())


def guess(source: str, root: Path = Path(), encoding: str | None = None) -> Guess:
    """Return the probable task of a file's rows. Raises UsageError where the file cannot be read, or holds no such rows."""
    path = locate(source, root, None)
    data = path.read_bytes()
    columns = _columns(path, data, encoding)
    found = read_rows(path, data, columns, encoding)
    if found.problems or not found.records:
        raise UsageError(
            [Problem(p.rule, p.key or "--data", str(path), p.line, p.value, _here(p.remedy)) for p in found.problems]
        )
    rows = [record.cells for record in found.records[:: 1 + len(found.records) // _LOOKED_AT]]
    if path.suffix.lower() != ".parquet" and (first := row_for_header(found.columns, rows)):
        remedy = "write a first line that names the columns, such as text,label"
        raise UsageError(
            Problem(f"the first line must name the columns, and {first}", "--data", str(path), 1, remedy=remedy)
        )
    named = [name for name in found.columns if _NAME.fullmatch(name) and name.strip() == name and name not in TOOLS]
    others = [name for name in found.columns if name.strip() and name not in TOOLS and not _NAME.fullmatch(name)]
    remedy = f"rename {_list(others[:3])}: a template names columns without . [ ] ! : {{ }} and ?" if others else ""
    try:
        made = _guess(path, named, rows, len(found.records))
    except UsageError as error:
        if not others:
            raise
        raise UsageError([replace(problem, remedy=remedy) for problem in error.problems]) from None
    return replace(made, why=(*made.why, f"not used: {remedy}")) if others else made


def _here(remedy: str) -> str:
    """Return a remedy for a sweep file as one for this command, which writes it."""
    return remedy.replace("write data.encoding: ", "give --encoding ")


def _columns(path: Path, data: bytes, encoding: str | None) -> set[str]:
    """Return a file's columns. The reader finds the delimiter by the wanted names, which are unknown here: so each is tried."""
    columns = read_rows(path, data, (), encoding).columns
    for separator in ";\t|":
        if len(columns) == 1 and separator in columns[0]:
            named = {name.strip().strip('"') for name in columns[0].split(separator)}
            if len(found := read_rows(path, data, named, encoding).columns) > 1:
                columns = found
    return set(columns)


def _guess(path: Path, columns: Sequence[str], records: Sequence[Mapping[str, object]], total: int) -> Guess:
    refuse_foreign(path, columns, records)
    if pair := columns_of_turns(columns, records):
        turns = [conversation_in(row, pair) for row in records if follows(row, pair)]
        return _conversations(pair, turns, total, columns)
    for name in columns:
        if sum(converses(row.get(name)) for row in records[:200]) >= 0.5 * len(records[:200]):
            turns = [conversation_of(row[name]) for row in records if converses(row.get(name))]
            system = [one for one in SYSTEMS if one in columns and holds(records, one, lambda v: isinstance(v, str))]
            everywhere = bool(system) and not any(is_empty(row.get(system[0])) for row in records)
            before = [one if everywhere else f"{one}?" for one in system[:1]]
            return _conversations((*before, name), turns, total, columns)
    texts = {name: [_text(row.get(name)) for row in records] for name in columns}
    texts = {name: cells for name, cells in texts.items() if sum(map(bool, cells)) >= max(1, len(records) // 20)}
    if not texts:
        rule = "no column holds texts that a prompt or an answer could be made of"
        raise UsageError(
            Problem(rule, "--data", str(path), value=list(columns)[:20], remedy="name a file with labelled text")
        )
    label = _label_of(texts)
    lists = [name for name in columns if name not in texts and name.lower() not in MEDIA]
    if label is not None:
        made = _labelled(label, texts, columns, total)
        return replace(made, why=(*made.why, *_unused(lists, records)))
    odd = [name for name in lists if plain_name(name) in (*_ANSWERS, *_LABELS)]
    if told := [*_unused(odd, records)]:
        rule = f"no answer can be read: {told[0]}"
        raise UsageError(Problem(rule, "--data", str(path), remedy="write the answer as one text in each row"))
    kinds = [name for name in texts if not _is_id(name, texts[name]) and not _always_the_same(texts[name])]
    if len(kinds) < 2:
        only = (kinds or list(texts))[0]
        unused = _unused([name for name in columns if name != only], records)
        return _plain_texts(only, texts[only], tuple(unused), total, columns)
    return _answered(kinds, texts, total, columns)


def _plain_texts(only: str, cells: Sequence[str], unused: tuple[str, ...], total: int, columns: Sequence[str]) -> Guess:
    """Return the guess for texts without answers. `unused`: why the other columns are not used."""
    lengths = [about_tokens(cell) for cell in cells if cell]
    why = f"'{only}' is the only column of texts, and no other says what they are: they are modelled as they stand"
    return Guess(total, "text", only, metric="perplexity", prompt_tokens=_median(lengths), long_tokens=_long(lengths),
                 why=(why, *unused), columns=tuple(columns))  # fmt: skip


def _answered(kinds: Sequence[str], texts: Mapping[str, Sequence[str]], total: int, columns: Sequence[str]) -> Guess:
    """Return the guess for prompts with answers in free text; `kinds`: the columns that may be either."""
    answer = _named(kinds, _ANSWERS) or kinds[-1]
    asks = _asking([name for name in kinds if name != answer], texts)
    metric, reason = _written([cell for cell in texts[answer] if cell])
    lengths = [about_tokens(cell) for cell in texts[answer]]
    why = f"'{answer}' answers {_list(asks)}: its texts are nearly all different, so that it holds no labels"
    found = Guess(total, "answer", answer, asks, metric=metric, answer_tokens=_long(lengths), longest_answer=_longest(texts[answer]),
                  why=(why, reason), columns=tuple(columns))  # fmt: skip
    return _with_prompts(asks, texts, found)


def _conversations(
    named: tuple[str, ...], turns: Sequence[Sequence[Message]], total: int, columns: Sequence[str]
) -> Guess:
    """Return the guess for conversations in the columns `named`."""
    prompts = [sum(about_tokens(turn.content) + 3 for turn in one[:-1]) for one in turns]
    answers = [one[-1].content for one in turns]
    lengths = [about_tokens(answer) for answer in answers]
    why = f"{_list(named)} {'hold' if len(named) > 1 else 'holds'} conversations of a user and an assistant; the last turn is what is learned"
    metric, reason = _written(answers)
    counts = Counter(answers)
    if len(counts) > 1 and min(counts.values()) >= _EACH_ANSWER and metric == "exact_match":
        metric, reason = "choice", f"the last turns have {len(counts)} different texts: they are labels"
    return Guess(total, "messages", named[-1], named[:-1], metric=metric, prompt_tokens=_median(prompts), long_tokens=_long(prompts),
                 longest_prompt=max(prompts, default=0), answer_tokens=_long(lengths), longest_answer=_longest(answers), why=(why, reason), columns=tuple(columns))  # fmt: skip


def _unused(names: Sequence[str], records: Sequence[Mapping[str, object]]) -> Iterator[str]:
    """Yield the reason why a column is not used, where its name does not show it."""
    for name in names:
        cells = [row.get(name) for row in records if not is_empty(row.get(name))]
        if not cells or IDS.search(name):
            continue
        texts = {_text(cell) for cell in cells}
        if all(isinstance(cell, list | Mapping) for cell in cells):
            yield f"'{name}' is not used: it holds {'lists' if isinstance(cells[0], list) else 'objects'}, and no texts"
        elif len(texts) == 1:
            yield f"'{name}' is not used: every row has the same, {shown(texts.pop())}"
        elif _numeric([*texts]):
            yield f"'{name}' is not used: it holds numbers that are hardly labels, and no metric compares numbers"


def _labelled(label: str, texts: Mapping[str, Sequence[str]], columns: Sequence[str], total: int) -> Guess:
    """Return the guess for texts with a column of labels. Raises UsageError where no column holds the texts."""
    counts = Counter(cell for cell in texts[label] if cell)
    others = [name for name in texts if name != label and not _is_id(name, texts[name])]
    others = [name for name in others if not _same_labels(texts[name], texts[label])] or [
        name for name in texts if name != label
    ]
    if not others:
        rule = f"'{label}' looks like labels, and no other column holds the texts that have them"
        raise UsageError(Problem(rule, "--data", remedy="name a file with a column of texts and one of labels"))
    asks = _asking(others, texts)
    why = (
        f"'{label}' has {len(counts)} different values in {sum(counts.values())} rows: it holds labels, and {_list(asks)} what they are of",
    )
    found = Guess(total, "label", label, asks, metric="choice", labels=tuple(sorted(counts)), rarest=min(counts.values()),
                  answer_tokens=max(map(about_tokens, counts)), why=why, columns=tuple(columns))  # fmt: skip
    return _with_prompts(asks, texts, found)


def _with_prompts(asks: Sequence[str], texts: Mapping[str, Sequence[str]], found: Guess) -> Guess:
    lengths = [
        sum(about_tokens(texts[name][place]) + about_tokens(name) + 1 for name in asks)
        for place in range(len(texts[asks[0]]))
    ]
    empty = frozenset(name for name in asks if not all(texts[name]))
    if len(empty) == len(asks):  # one must be there: else there is no prompt
        empty -= {max(asks, key=lambda name: sum(map(bool, texts[name])))}
    longest = max(lengths, default=0)
    return replace(
        found, may_be_empty=empty, prompt_tokens=_median(lengths), long_tokens=_long(lengths), longest_prompt=longest
    )


def _label_of(texts: Mapping[str, Sequence[str]]) -> str | None:
    """Return the column of labels: it has few different, short values. Of several, one with a usual name, else the last."""
    fitting = []
    for name, cells in texts.items():
        filled = [cell for cell in cells if cell]
        kinds = set(filled)
        wordy = statistics.median(len(kind.split()) for kind in kinds) > _FEW_WORDS if kinds else True
        if wordy and plain_name(name) not in _LABELS:
            continue
        repeated = 2 <= len(kinds) <= _MOST_LABELS and len(filled) >= _EACH * len(kinds)
        if repeated and statistics.median(map(len, kinds)) <= _LONGEST_LABEL and len(filled) >= 0.8 * len(cells):
            fitting.append(name)
    if len(fitting) == len(texts) > 1:  # all repeat: the one with the longest texts holds the prompts
        longest = max(fitting, key=lambda name: statistics.fmean(map(len, texts[name])))
        fitting.remove(longest)
    fitting = [name for name in fitting if not IDS.search(name)] or []
    words = [name for name in fitting if not _numeric(texts[name])]
    found = _named(words, _LABELS) or _named(fitting, _LABELS) or next(iter(reversed(words or fitting)), None)
    if found is not None and found not in words:  # the names of classes are better labels than their numbers
        return next((name for name in words if _same_labels(texts[name], texts[found])), found)
    return found


def _always_the_same(cells: Sequence[str]) -> bool:
    return len(cells) > 5 and all(cells) and len(set(cells)) == 1


def _same_labels(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether a column repeats another one in other words, such as the number of a label beside its name."""
    pairs = {(a, b) for a, b in zip(one, other, strict=True) if a}
    return (
        len(pairs) == len({a for a, _ in pairs})
        and len({a for a, _ in pairs}) <= _MOST_LABELS
        and len(pairs) * _EACH <= len(one)
    )


def _asking(names: Sequence[str], texts: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Return the columns of the prompt: those with usual names, else those with longer texts."""
    worded = [name for name in names if _numeric(texts[name]) is False] or list(names)
    known = [name for name in worded if plain_name(name) in _TEXTS or plain_name(name).rstrip("12ab_") in _TEXTS]
    if known:
        return tuple(known)
    long = [name for name in worded if statistics.fmean(map(len, texts[name])) >= 15]
    return tuple(long or worded[:1])


def _named(names: Sequence[str], known: Sequence[str]) -> str | None:
    plain = {plain_name(name): name for name in reversed(names)}
    return next((plain[word] for word in known if word in plain), None)


def _is_id(name: str, cells: Sequence[str]) -> bool:
    return (
        bool(IDS.search(name)) or (_numeric(cells) and len(set(cells)) > 0.5 * len(cells)) or max(map(len, cells)) <= 1
    )


def _numeric(cells: Sequence[str]) -> bool:
    filled = [cell for cell in cells if cell]
    return bool(filled) and all(re.fullmatch(r"[+-]?[0-9]+([.,][0-9]+)?(e[+-]?[0-9]+)?", cell) for cell in filled[:500])


def _written(answers: Sequence[str]) -> tuple[str, str]:
    """Return the metric for answers in free text, and the reason."""
    words = statistics.median(len(answer.split()) for answer in answers)
    if words <= _SHORT_ANSWER:
        return "exact_match", f"answers have {words:.0f} words in the median: they are right or wrong as a whole"
    if find_spec("rouge_score") is not None:  # it is not imported
        return (
            "rouge_l",
            f"answers have {words:.0f} words in the median: they are compared by the words that they share",
        )
    return "perplexity", (
        f"answers have {words:.0f} words in the median: they are scored by how likely the model finds them; rouge_l, which "
        "compares words, needs the extra `rouge`"
    )


def _text(value: object) -> str:
    try:
        return cell_text(value).strip()
    except RowError:
        return ""


def about_tokens(text: str, letters: float = _BYTES) -> int:
    """Return about how many tokens a text has: an upper estimate, because no tokenizer is at hand.

    English has about four characters a token, and many tokenizers make a token of each digit. `letters`: bytes of a token of
    letters that are not ASCII, which have two or three bytes each; 1 where the tokenizer knows none of them.
    """
    digits, others = len(_DIGIT.findall(text)), "" if text.isascii() else _ASCII.sub("", text)
    plain = len(text) - digits - len(others)
    return math.ceil(plain / _CHARACTERS + digits + len(others.encode("utf-8", "replace")) / letters)


def _longest(answers: Sequence[str]) -> int:
    """Return the tokens of the longest answer, at most."""
    return max((about_tokens(answer, 1.0) for answer in answers), default=0)


def _median(values: Sequence[int]) -> int:
    return int(statistics.median(values)) if values else 0


def _long(values: Sequence[int]) -> int:
    return sorted(values)[int(0.99 * (len(values) - 1))] if values else 0


def _list(names: Sequence[str]) -> str:
    return " and ".join(f"'{name}'" for name in names)
