"""Templates of an Olive corpus: a prompt and its answer, or plain text."""

from __future__ import annotations

import re
from typing import NamedTuple

from autotune.data.templates import template_columns

_MARK = re.compile(r"\s*(?:<\|[^<>|]{1,40}\|>|</s>|<eos>|<end_of_turn>|<｜[^<>｜]{1,40}｜>|\[/?EOT\])\s*\Z")
"""What ends a text or a turn, at the end of a template."""
_FIELD = re.compile(r"\{\{|\}\}|\{([^{}]*)\}")


class Corpus(NamedTuple):
    """A template as a sweep has it: `prompt` and `completion`, or `text` alone."""

    prompt: str = ""
    completion: str = ""
    text: str = ""
    ended: str = ""
    """What ends the text behind the answer: the tokenizer's own end takes its place."""


def join_columns(columns: list[str]) -> str:
    """Return the template of columns that Olive joins with a space."""
    return " ".join("{" + column.replace("{", "{{").replace("}", "}}") + "}" for column in columns)


def read_template(template: str) -> Corpus:
    """Return what a template is: with several columns, the last of which ends the text, a prompt and its answer.

    Marks that end a text or a turn, and white space, may stand behind the last column. Raises ValueError where a template
    cannot be read.
    """
    columns = template_columns(template)
    if not columns:
        raise ValueError("a template must name at least one column; write it in braces, like {text}")
    *_, last = (found for found in _FIELD.finditer(template) if found[1] is not None)
    behind = rest = template[last.end() :]
    while found := _MARK.search(rest):
        rest = rest[: found.start()]
    before = template[: last.start()]
    if rest.strip() or len(columns) < 2 or not template_columns(before) or last[1].strip() in template_columns(before):
        return Corpus(text=template)
    prompt = before.rstrip(" \t")
    return Corpus(prompt=prompt, completion=before[len(prompt) :] + last[0], ended=behind.strip())
