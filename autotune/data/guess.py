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

from autotune.data.columns import (
    ANSWERS,
    LABELS,
    always_the_same,
    are_numbers,
    asking,
    could_be_labels,
    first_named,
    is_id,
    label_of,
    reply_of,
    same_labels,
)
from autotune.data.content import lifted
from autotune.data.conversations import MEDIA, conversation_in, conversation_of, holds_messages
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
_EACH_ANSWER = 15
"""The last turns of conversations are labels where each occurs in at least so many rows, so that every split has it."""
_SHORT_ANSWER = 5
"""An answer of at most so many words (median) is right or wrong as a whole."""
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
    columns = read_rows(path, data, (), encoding).columns
    found = read_rows(path, data, set(columns), encoding)
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
    others = [name for name in found.columns if not IDS.search(name.strip()) and not _NAME.fullmatch(name)]
    remedy = f"rename {_list(others[:3])}: a template names columns without . [ ] ! : {{ }} and ?" if others else ""
    if holder := _holder(named, rows):
        rows = [lifted(row, holder) for row in rows]
        inner = dict.fromkeys(name for row in rows for name in row if name not in named)
        named = [name for name in inner if _NAME.fullmatch(name) and name.strip() == name]
    try:
        made = _guess(path, named, rows, len(found.records))
    except UsageError as error:
        if not others:
            raise
        raise UsageError([replace(problem, remedy=remedy) for problem in error.problems]) from None
    return replace(made, why=(*made.why, f"not used: {remedy}")) if others else made


def with_rows_of(found: Guess, source: str, encoding: str | None = None) -> Guess:
    """Return a guess with lengths that hold for the rows of another split, too. A file that cannot be read changes nothing."""
    columns = (*found.asks, found.answer)
    try:
        path = locate(source, Path(), None)
        names = {name.removesuffix("?") for name in columns} if found.way == "messages" else set(columns)
        rows = [record.cells for record in read_rows(path, path.read_bytes(), names, encoding).records]
    except (UsageError, OSError):
        return found
    other = found
    if found.way == "messages":
        if turns := [conversation_in(row, columns) for row in rows if follows(row, columns)]:
            other = _conversations(columns, turns, len(rows), ())
    elif rows:
        texts = {name: [_text(row.get(name)) for row in rows] for name in columns}
        lengths = [about_tokens(cell) for cell in texts[found.answer]]
        other = replace(found, answer_tokens=_long(lengths), longest_answer=_longest(texts[found.answer]))
        other = _with_prompts(found.asks, texts, other) if found.asks else replace(found, long_tokens=_long(lengths))
    return replace(
        found,
        long_tokens=max(found.long_tokens, other.long_tokens),
        longest_prompt=max(found.longest_prompt, other.longest_prompt),
        answer_tokens=max(found.answer_tokens, other.answer_tokens),
        longest_answer=max(found.longest_answer, other.longest_answer),
    )


def _here(remedy: str) -> str:
    """Return a remedy for a sweep file as one for this command, which writes it."""
    return remedy.replace("write data.encoding: ", "give --encoding ")


def _holder(columns: Sequence[str], rows: Sequence[Mapping[str, object]]) -> str | None:
    """Return the only column of objects, where no other column has texts: its fields are the columns, as `with_fields` reads them."""
    outer = [name for name in columns if holds(rows, name, lambda cell: isinstance(cell, Mapping))]
    if len(outer) != 1 or holds(rows, outer[0], converses) or holds(rows, outer[0], holds_messages):
        return None
    for name in columns:
        cells = [_text(row.get(name)) for row in rows]
        if name != outer[0] and any(cells) and not is_id(name, cells) and not always_the_same(cells):
            return None
        if any(isinstance(cell := row.get(name), list) and cell for row in rows):
            return None
    return outer[0]


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
    for name in columns:
        if holds(records, name, _in_python):
            rule = f"'{name}' holds messages in Python's notation, which is not read"
            raise UsageError(Problem(rule, "--data", str(path), remedy="write each row by json.dumps, or as parquet"))
    texts = {name: [_text(row.get(name)) for row in records] for name in columns}
    texts = {name: cells for name, cells in texts.items() if sum(map(bool, cells)) >= max(1, len(records) // 20)}
    if not texts:
        raise UsageError(_no_texts(path, columns, records))
    label = label_of(texts)
    lists = [name for name in columns if name not in texts and name.lower() not in MEDIA]
    if label is not None:
        made = _labelled(label, texts, columns, total, [*_unused(lists, records)])
        return replace(made, why=(*made.why, *_unused(lists, records)))
    odd = [name for name in lists if plain_name(name) in (*ANSWERS, *LABELS)]
    if told := [*_unused(odd, records)]:
        rule = f"no answer can be read: {told[0]}"
        raise UsageError(Problem(rule, "--data", str(path), remedy="write the answer as one text in each row"))
    kinds = [name for name in texts if not is_id(name, texts[name]) and not always_the_same(texts[name])]
    if not kinds:
        raise UsageError(_no_texts(path, columns, records))
    if len(kinds) < 2:
        only = kinds[0]
        unused = _unused([name for name in columns if name != only], records)
        return _plain_texts(only, texts[only], tuple(unused), total, columns)
    return _answered(kinds, texts, total, columns)


def _no_texts(path: Path, columns: Sequence[str], records: Sequence[Mapping[str, object]]) -> Problem:
    told = [line.replace("is not used: it ", "") for line in _unused(columns, records)]
    rule = "; ".join(("no column holds texts that a prompt or an answer could be made of", *told))
    remedy = "write their fields into columns of their own" if told else "name a file with labelled text"
    return Problem(rule, "--data", str(path), value=list(columns)[:20], remedy=remedy)


def _in_python(cell: object) -> bool:
    """Whether a text is a list of messages as Python prints it."""
    return isinstance(cell, str) and bool(re.match(r"\s*\[\s*\{'(?:role|from|content|value)': ", cell))


def _plain_texts(only: str, cells: Sequence[str], unused: tuple[str, ...], total: int, columns: Sequence[str]) -> Guess:
    """Return the guess for texts without answers. `unused`: why the other columns are not used."""
    lengths = [about_tokens(cell) for cell in cells if cell]
    why = f"'{only}' is the only column of texts, and no other says what they are: they are modelled as they stand"
    return Guess(total, "text", only, metric="perplexity", prompt_tokens=_median(lengths), long_tokens=_long(lengths),
                 why=(why, *unused), columns=tuple(columns))  # fmt: skip


def _answered(kinds: Sequence[str], texts: Mapping[str, Sequence[str]], total: int, columns: Sequence[str]) -> Guess:
    """Return the guess for prompts with answers in free text; `kinds`: the columns that may be either."""
    answer = reply_of(texts) or first_named(kinds, ANSWERS) or kinds[-1]
    asks = asking([name for name in kinds if name != answer], texts)
    metric, reason = _written([cell for cell in texts[answer] if cell])
    lengths = [about_tokens(cell) for cell in texts[answer]]
    different, filled = len(set(filter(None, texts[answer]))), sum(map(bool, texts[answer]))
    why = f"'{answer}' answers {_list(asks)}: it has {different} different texts in {filled} rows, and holds no labels"
    if 2 * different > filled:
        why = f"'{answer}' answers {_list(asks)}: its texts are nearly all different, so that it holds no labels"
    found = Guess(total, "answer", answer, asks, metric=metric, answer_tokens=_long(lengths), longest_answer=_longest(texts[answer]),
                  why=(why, reason, *_left(answer, asks, texts)), columns=tuple(columns))  # fmt: skip
    return _with_prompts(asks, texts, found)


def _left(answer: str, asks: Sequence[str], texts: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Yield which columns could be labels, too, or belong to the prompt, and are not used."""
    names = [name for name in texts if name not in (answer, *asks) and not is_id(name, texts[name])]
    names += [name for name in could_be_labels(texts) if name not in (answer, *asks, *names)]
    names = [name for name in names if not always_the_same(texts[name]) and not same_labels(texts[name], texts[answer])]
    labels = [name for name in names if name in could_be_labels(texts)]
    others = [name for name in names if name not in labels]
    if labels:
        yield f"{_list(labels)} could be labels, too, and {'are' if len(labels) > 1 else 'is'} not used"
    if others:
        yield (
            f"{_list(others)} {'are' if len(others) > 1 else 'is'} not used; what the model is to read must be in data.prompt: "
            f"{{{others[0]}}}"
        )


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
        elif not any(texts):
            yield f"'{name}' is not used: it holds no text that a prompt could take ({_why_not(cells[0])})"
        elif len(texts) == 1:
            yield f"'{name}' is not used: every row has the same, {shown(texts.pop())}"
        elif are_numbers([*texts]):
            yield f"'{name}' is not used: it holds numbers that are hardly labels, and no metric compares numbers"


def _labelled(
    label: str, texts: Mapping[str, Sequence[str]], columns: Sequence[str], total: int, unused: Sequence[str]
) -> Guess:
    """Return the guess for texts with a column of labels. Raises UsageError where no column holds the texts."""
    counts = Counter(cell for cell in texts[label] if cell)
    others = [name for name in texts if name != label and not is_id(name, texts[name])]
    others = [name for name in others if not same_labels(texts[name], texts[label])] or [
        name for name in texts if name != label
    ]
    if not others:
        rule = f"'{label}' looks like labels, and no other column holds the texts that have them"
        told = [line.replace("is not used: it ", "") for line in unused]
        remedy = "write these as texts into columns of their own" if told else _ONE_OF_TEXTS
        raise UsageError(Problem("; ".join((rule, *told)), "--data", remedy=remedy))
    asks = asking(others, texts)
    judged = [name for name in others if plain_name(name) in _JUDGED and name not in could_be_labels(texts)]
    asks = tuple(name for name in others if name in (*asks, *judged))
    options = [name for name in texts if name in counts]
    if 1 < len(options) == len(counts):  # the answer names one of these columns, as in exams: A, B, C, D
        asks = tuple(dict.fromkeys((*asks, *options)))
    why = (
        f"'{label}' has {len(counts)} different values in {sum(counts.values())} rows: it holds labels, and {_list(asks)} what they are of",
        *_left(label, asks, texts),
    )
    found = Guess(total, "label", label, asks, metric="choice", labels=tuple(sorted(counts)), rarest=min(counts.values()),
                  answer_tokens=max(map(about_tokens, counts)), why=why, columns=tuple(columns))  # fmt: skip
    return _with_prompts(asks, texts, found)


_JUDGED = ("answer", "response", "title", "headline", "summary")
"""Columns that belong to what labels are of, beside a question or a text."""
_ONE_OF_TEXTS = "name a file with a column of texts and one of labels; a column without a name is never used"


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


def _why_not(value: object) -> str:
    """Return why a cell is no text; empty where it is one."""
    try:
        cell_text(value)
    except RowError as error:
        return str(error)
    return ""


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
