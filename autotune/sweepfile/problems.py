"""Turn pydantic's findings about a sweep file into problems with key, rule, value and remedy."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import BaseModel, ValidationError

from autotune.data.schema import SPLITS
from autotune.errors import Problem, did_you_mean, number_remedy, shown
from autotune.secrets import HIDDEN
from autotune.sweepfile.key_remedies import file_in_mapping, of_form, of_key
from autotune.sweepfile.schema import Document, Workload


def _model_at(path: Sequence[str | int]) -> type[BaseModel] | None:
    """Return the pydantic model with the key at the end of `path`."""
    current: Any = Document
    for step in path[:-1]:
        fields = getattr(current, "model_fields", {})
        if current is Workload and step not in fields:  # a workload's name
            continue
        annotation = fields[step].annotation if step in fields else None
        options = [annotation, *getattr(annotation, "__args__", ())]
        options += [inner for option in options for inner in getattr(option, "__args__", ())]
        current = next((o for o in options if isinstance(o, type) and issubclass(o, BaseModel)), None)
    return current if isinstance(current, type) else None


_NUMBERS = ("int_type", "int_from_float", "int_parsing", "float_type", "float_parsing")


def _remedy(kind: str, path: Sequence[str | int], key: str, value: Any) -> str:
    """Return the remedy for an error of pydantic, by its kind, the path of keys, and the value."""
    if not path or kind in ("value_error", "invalid_key"):
        return ""
    model = _model_at(path)
    fields = model.model_fields if model is not None else {}
    field = fields.get(str(path[-1]))
    if kind == "extra_forbidden":
        return of_key(path, value, list(fields))
    if meant := of_form(kind, path, value):
        return meant
    if path[-1] in SPLITS and isinstance(value, list):
        return "name one file: put the rows of several into one"
    if kind == "missing" or (field is not None and field.is_required()):
        return "add it; see search_spaces/ for examples" if kind == "missing" else "see search_spaces/ for examples"
    if value is None:
        return "give one, or remove the key"
    if kind in _NUMBERS and isinstance(value, str):
        meant = number_remedy(value, str(path[-1]))
        if meant and not (kind.startswith("int") and re.search(r"[0-9]\.[0-9]|e-", meant)):  # no whole number either
            return meant
    if kind in _NUMBERS and isinstance(value, float) and value.is_integer():
        return f"write {value:.0f}"
    if kind == "bool_type" and str(value).lower() in ("yes", "no", "on", "off", "true", "false", "1", "0"):
        return f"write {'true' if str(value).lower() in ('yes', 'on', 'true', '1') else 'false'}"
    if path[-1] in ("holdout", "test_holdout") and isinstance(value, int | float) and 1 <= value < 100:
        return f"it is a share: write {value / 100:g} for {value:g} %"
    if kind in ("model_type", "dict_type"):
        return f"write {key}: {{ ... }}"
    if kind in ("list_type", "tuple_type"):
        return f"write {key}: [{shown(value)}]" if isinstance(value, str) and len(value) < 60 else f"write {key}: [...]"
    if kind == "string_type" and path[0] == "limits" and isinstance(value, Mapping):
        return 'write each limit as a text, such as "size_mb <= 100"'
    if kind == "string_type" and isinstance(value, bool | int | float):
        return f"write it in quotes: {json.dumps(json.dumps(value))}"
    default = field.default if field is not None else None
    return f"the default is {default}" if isinstance(default, int | float | str) and default != "" else ""


# The rule of a sweep file for each kind of pydantic's errors.
_RULES = {
    "missing": "is missing",
    "extra_forbidden": "unknown key",
    "model_type": "must be a mapping",
    "dict_type": "must be a mapping",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "string_type": "must be a text",
    "string_unicode": "must be a text without halves of characters",
    "bool_type": "must be true or false",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "string_too_short": "must not be empty",
    "greater_than_equal": "must be at least {ge:g}",
    "greater_than": "must be more than {gt:g}",
    "less_than_equal": "must be at most {le:g}",
    "less_than": "must be less than {lt:g}",
    "literal_error": "must be {expected}",
}
_PATTERNS = {
    "name": "must be letters, digits, '.', '-' and '_', 64 at most, since it names the results folder",
    "dataset": "must be owner/name",
}


def _path(loc: Sequence[int | str], data: Any, missing: bool) -> list[int | str]:
    """Return the keys of a pydantic location, without the names of union members that it holds too.

    `missing`: the last of them is not in the data.
    """
    path: list[int | str] = []
    for place, step in enumerate(loc, start=1):
        last = missing and place == len(loc)
        if isinstance(data, Mapping) and isinstance(step, str) and (step in data or last):
            path.append(step)
            data = data.get(step)
        elif isinstance(data, list) and isinstance(step, int) and step < len(data):
            path.append(step)
            data = data[step]
    return path


def problems_of(error: ValidationError, data: Mapping[str, Any]) -> list[Problem]:
    """Turn pydantic's findings in `data` into problems, one for each key."""
    found: dict[str, Problem] = {}
    for item in error.errors(include_url=False):
        kind, value, loc = item["type"], item["input"], item["loc"]
        path = _path(loc, data, kind == "missing")
        steps = [f"[{step}]" if isinstance(step, int) else f".{step or repr(step)}" for step in path]
        key = "".join(steps).removeprefix(".")
        rule = item["msg"].removeprefix("Value error, ")
        if kind in _RULES:
            rule = _RULES[kind].format(**item.get("ctx", {}))
        elif kind == "string_pattern_mismatch":
            rule = _PATTERNS.get(str(path[-1]), rule)
        if kind == "invalid_key" or (loc[-1:] == ("[key]",) and path[-1:] != ["[key]"]):
            rule, kind = "its keys must be texts", "invalid_key"
        elif value is None and kind not in ("extra_forbidden", "value_error"):
            rule = f"has no value, and {rule}"
        remedy = _remedy(kind, path, key, value)
        if kind == "literal_error" and isinstance(value, str):
            options = re.findall(r"'([^']*)'", str(item.get("ctx", {}).get("expected", "")))
            begun = [option for option in options if len(value) > 2 and option.startswith(value.lower())]
            close = did_you_mean(begun[0] if len(begun) == 1 else value, options)
            remedy = close if close.startswith("did") else remedy
        if kind == "value_error" and isinstance(value, str):
            rule, _, remedy = rule.partition("; ")
        elif kind in ("missing", "extra_forbidden", "value_error"):
            value = None
        source = data["data"].get(path[1]) if path[:1] == ["data"] and len(path) > 1 else None
        if source is not None and (file := file_in_mapping(str(path[1]), source)):
            key, kind, value, remedy = f"data.{path[1]}", "", source, file
            rule = "must be a file, or a mapping with the dataset and split of one on the hub"
        before = found.get(key)
        if before is not None and value == "":  # a text is what was meant, and is empty
            continue
        if before is not None and before.rule != rule and kind.endswith("_type"):  # members of a union
            rule = f"{before.rule} or {rule.removeprefix('must be ')}"
        found[key] = Problem(rule, key, value=value, remedy=remedy)
    # A member of a union that looks inside knows more than the one that wants a text.
    return [p for k, p in found.items() if not any(other.startswith((f"{k}.", f"{k}[")) for other in found)]


def hidden_secrets(value: Any, key: str = "") -> list[Problem]:
    """Return a problem for each text whose secret was removed when the sweep was recorded: it would run another sweep."""
    if isinstance(value, Mapping):
        return [p for name, part in value.items() for p in hidden_secrets(part, f"{key}.{name}" if key else str(name))]
    if isinstance(value, list):
        return [p for index, part in enumerate(value) for p in hidden_secrets(part, f"{key}[{index}]")]
    if not isinstance(value, str) or HIDDEN not in value:
        return []
    rule = f"a secret stood where it says {HIDDEN}, and was left out of the record"
    return [Problem(rule, key, remedy="write it again, or run the sweep file that the record was made from")]


FROM_SET = 0
"""The line of a key that `--set` gave."""


def located(problem: Problem, shown: str, lines: Mapping[str, int]) -> Problem:
    """Return a problem with its file, and with the line of its key or of the nearest parent in the file."""
    if problem.file and (problem.file != shown or problem.line is not None):  # in a data file, or located already
        return problem
    key = problem.key
    while key and key not in lines:
        key = key[: max(key.rfind("."), key.rfind("["), 0)]
    line = lines.get(key)
    return replace(problem, file="--set", line=None) if line == FROM_SET else replace(problem, file=shown, line=line)
