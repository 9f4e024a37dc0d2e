"""A user's own stages in a recipe: a function and its options, parsed from a sweep file and multiplied out.

A recipe holds each as a text in one spelling, `module:function name=value name=value`: so two ways to write the same stage
are one candidate, and a row of results names it.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from autotune.errors import Problem
from autotune.metrics import FUNCTION
from autotune.space.domains import MOST_COMBINATIONS, is_number

OWN_STAGES = ("model_stage", "graph_stage")
"""The parameters of recipes for own stages: on the merged model before it is built, and on the built ONNX folder."""
_NAME = re.compile(r"[^\W\d]\w*")
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")


class OwnStage(NamedTuple):
    """A function of the user's own, and its arguments beside the two folders."""

    function: str
    """module:function"""
    options: dict[str, int | float | str]


def spell_stage(function: Any, options: Mapping[Any, Any]) -> tuple[str, str]:
    """Return (the canonical spelling of a stage, "") or ("", the rule that it breaks). A truth value becomes 1 or 0."""
    if not isinstance(function, str) or not FUNCTION.fullmatch(function):
        return "", "must be module:function"
    words = [function]
    for name in sorted(options, key=str):
        value = options[name]
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            return "", f"has the option {name!r}, and a name is that of an argument"
        if not isinstance(value, bool | str) and not is_number(value):
            return "", f"has the option {name} at {value!r}, and a value is a text, a number, true or false"
        text = str(int(value)) if isinstance(value, bool) else str(value)
        if not text or not text.isprintable() or any(map(str.isspace, text)):
            return "", f"has the option {name} at {value!r}, and a value is a text without spaces"
        words.append(f"{name}={text}")
    return " ".join(words), ""


def read_stage(text: str) -> OwnStage:
    """Return the stage of a spelling: numbers become numbers, everything else is text."""
    function, *words = text.split(" ")
    options: dict[str, int | float | str] = {}
    for word in words:
        name, _, value = word.partition("=")
        options[name] = _value(value)
    return OwnStage(function, options)


def _value(text: str) -> int | float | str:
    if _INTEGER.fullmatch(text):
        return int(text)
    try:
        number = float(text)
    except ValueError:
        return text
    return number if math.isfinite(number) else text


def stage_choices(raw: Any, key: str, problems: list[Problem]) -> tuple[str, ...]:
    """Return the choices of a stage: a text, a mapping of `function` and `options`, or a list of these; lists multiply."""
    choices: dict[str, None] = {}
    for item in raw if isinstance(raw, list) else [raw]:
        if isinstance(item, str):
            found = read_stage(" ".join(item.split()))
            function: Any = found.function
            options: Any = found.options
            if any("=" not in word for word in item.split()[1:]):
                remedy = "write module:function name=value, or { function: ..., options: { name: value } }"
                problems.append(Problem("has options without values", key, value=item, remedy=remedy))
                continue
        elif isinstance(item, Mapping) and set(item) <= {"function", "options"} and "function" in item:
            function, options = item["function"], item.get("options") or {}
        else:
            remedy = "write module:function, or { function: module:function, options: { name: value } }"
            problems.append(Problem("must name a function", key, value=item, remedy=remedy))
            continue
        if not isinstance(options, Mapping):
            problems.append(
                Problem("must be a mapping", f"{key}.options", value=options, remedy="write { name: value }")
            )
            continue
        axes = [value if isinstance(value, list) and value else [value] for value in options.values()]
        if math.prod(map(len, axes)) > MOST_COMBINATIONS:
            rule = f"its lists multiply to more than {MOST_COMBINATIONS:,} stages"
            problems.append(Problem(rule, key, remedy="shorten them"))
            continue
        for combination in itertools.product(*axes):
            text, rule = spell_stage(function, dict(zip(options, combination, strict=True)))
            if rule:
                problems.append(
                    Problem(
                        rule, key, value=item, remedy="write e.g. { function: mine:prune, options: { share: 0.1 } }"
                    )
                )
                break
            choices[text] = None
    return tuple(choices)
