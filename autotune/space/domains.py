"""The domain of one parameter: a choice or a range, parsed from a sweep file and checked."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autotune.errors import Problem, did_you_mean, number_remedy, shown
from autotune.space.parameter_tables import PRESETS, Parameter, Value


def _same(value: Value, other: Value) -> bool:
    """Whether two values are the same number, except for the last digits."""
    return isinstance(value, int | float) and isinstance(other, int | float) and math.isclose(value, other)


@dataclass(frozen=True)
class Choice:
    """A finite set of values, in the order written; one value: fixed."""

    values: tuple[Value, ...]

    @property
    def some(self) -> Value:
        """One of its values."""
        return self.values[0]

    def has(self, value: Value) -> bool:
        """Whether a value is one of them; numbers may differ in the last digits."""
        return value in self.values or any(_same(value, one) for one in self.values)


@dataclass(frozen=True)
class Range:
    """A closed interval of numbers, uniform in the value or in its logarithm."""

    low: float
    high: float
    log: bool = False
    integer: bool = False

    @property
    def some(self) -> Value:
        """One of its values."""
        return self.value(self.low)

    def has(self, value: Value) -> bool:
        """Whether a value lies inside."""
        inside = isinstance(value, int | float) and self.low <= value <= self.high
        return inside or _same(value, self.low) or _same(value, self.high)

    def value(self, number: float) -> int | float:
        """Return the parameter's value at a number inside, rounded to four digits, which people can read."""
        return int(number) if self.integer else min(max(float(f"{number:.4g}"), self.low), self.high)


Domain = Choice | Range


MOST_COMBINATIONS = 10_000
"""The most combinations that are multiplied out, or counted one by one."""


def is_number(value: Any) -> bool:
    """Whether a value is a finite number that a float can hold, and no truth value."""
    # Comparing keeps away nan and inf, and integers that no float can hold.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


_GROUPS = ("last_matmul", "mixed_layers", "linear_attn")
"""The groups that `mixed_precision` may name, in the order in which recipes are spelled out."""
_GROUP_TYPES = ("int4", "int8")


def _mixed_precision(text: str) -> tuple[Value | None, str]:
    """Return groups and their precisions in one spelling, or the rule that `text` breaks."""
    found: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        group, _, kind = (word.strip() for word in part.partition(":"))
        if group not in _GROUPS or kind not in _GROUP_TYPES or group in found:
            groups, kinds = ", ".join(_GROUPS), " or ".join(_GROUP_TYPES)
            return None, f"must be group:precision, separated by commas, with each group of {groups} once at {kinds}"
        found[group] = kind
    return ",".join(f"{group}:{found[group]}" for group in _GROUPS if group in found), ""


def _check_value(parameter: Parameter, value: Any) -> tuple[Value | None, str]:
    """Return (the value in its type and its one spelling, "") or (None, the rule that it breaks)."""
    if value is None:
        return None, "has no value"
    if parameter.name == "target_modules" and isinstance(value, list):
        if value and all(isinstance(module, str) and re.fullmatch(r"[\w.-]+", module) for module in value):
            modules = sorted(set(value))
            return (tuple(modules) if len(modules) > 1 else modules[0]), ""
        return None, "a list of target modules must hold names"
    if parameter.type is bool:
        return (value, "") if isinstance(value, bool) else (None, "must be true or false")
    if parameter.type is str:
        if not isinstance(value, str) or not value.isprintable():
            return None, "must be a text"
        if parameter.name == "mixed_precision":
            return _mixed_precision(value)
        if parameter.name == "nodes_to_exclude":
            names = {name.strip() for name in value.split(",")} - {""}
            if all(re.fullmatch(r"[\w/]\S*", name) for name in names):
                return ",".join(sorted(names)), ""
            return None, "must be node names, separated by commas"
    elif parameter.type is int:
        if not is_number(value) or value != int(value):
            return None, "must be a whole number"
        value = int(value)
    elif not is_number(value):
        return None, "must be a number"
    else:
        value = float(value)
    if (reason := dict(parameter.refused).get(str(value))) is not None:
        return None, f"{value} {reason}"
    if parameter.choices and value not in parameter.choices:
        return None, "must be one of " + ", ".join(str(choice) or "''" for choice in parameter.choices)
    if parameter.name == "target_modules" and value not in PRESETS:
        return None, "must be one of " + ", ".join(PRESETS) + ", or a list of module names"
    if parameter.type in (int, float) and not parameter.low <= value <= parameter.high:
        return None, f"must be between {parameter.low:g} and {parameter.high:g}"
    return value, ""


def _meant(parameter: Parameter, raw: Mapping[Any, Any]) -> str:
    """Return the remedy for a search in the notation of another tuner: values, or low and high, min and max."""
    values = next((raw[name] for name in ("values", "choices", "options", "categorical", "grid") if name in raw), None)
    if isinstance(values, list) and values:
        return f"write {parameter.name}: {{ choice: {shown(values)} }}"
    kinds = {str(name): re.sub(r"[_\s-]", "", str(name).lower()) for name in raw}
    ranges = [(name, kind) for name, kind in kinds.items() if kind in _RANGES and isinstance(raw.get(name), list)]
    if len(ranges) == 1:
        return _one_range(parameter, raw, *ranges[0])
    if len(raw) == 1 and {*kinds.values()} & {"range", "between", "interval"} and parameter.type in (int, float):
        (bounds,) = raw.values()
        if isinstance(bounds, list) and len(bounds) == 2 and all(map(is_number, bounds)):
            return f"write {parameter.name}: {{ {'int' if parameter.type is int else 'uniform'}: {bounds} }}"
    low, high = (next((raw[name] for name in names if name in raw), None) for names in (_LOW, _HIGH))
    if is_number(low) and is_number(high) and parameter.type in (int, float):
        kind = " ".join(str(raw.get(name)) for name in ("type", "distribution", "scale", "kind")).lower()
        log = "log" in kind or raw.get("log") is True
        word = ("logint" if log else "int") if parameter.type is int else ("loguniform" if log else "uniform")
        return f"write {parameter.name}: {{ {word}: [{low}, {high}] }}"
    return f"write e.g. {parameter.name}: {{ choice: [...] }}"


def _one_range(parameter: Parameter, raw: Mapping[Any, Any], name: str, kind: str) -> str:
    """Return the remedy for a range with another key beside it, or with another spelling of its name."""
    bounds, step = raw[name], raw.get("step")
    if raw.get("log") is True:
        kind = {"uniform": "loguniform", "int": "logint"}.get(kind, kind)
    elif kind == "int" and isinstance(step, int) and step > 0 and all(type(bound) is int for bound in bounds[:2]):
        values = list(range(bounds[0], bounds[-1] + 1, step))
        if 1 < len(values) <= _SHOWN_VALUES:
            return f"write {parameter.name}: {{ choice: {values} }}"
    return f"write {parameter.name}: {{ {kind}: {shown(bounds)} }}"


_SHOWN_VALUES = 20
_LOW, _HIGH = ("low", "min", "lower", "start", "lo", "from"), ("high", "max", "upper", "stop", "end", "hi", "to")

_RANGES = {
    "uniform": (False, False),
    "loguniform": (True, False),
    "int": (False, True),
    "logint": (True, True),
}


def parse_domain(
    parameter: Parameter, raw: Any, key: str, problems: list[Problem], *, ranges: bool, what: str = "recipe"
) -> Domain | None:
    """Return the domain that `raw` states for a parameter; None where it is wrong, and mistakes go to `problems`.

    `ranges`: whether it may be a range; else a list means a choice, and `what` names the thing that has the parameter.
    """
    if isinstance(raw, dict):
        return _parse_search(parameter, raw, key, problems, what if not ranges else None)
    if isinstance(raw, list) and parameter.name != "target_modules":
        if ranges:
            remedy = f"write {parameter.name}: {{ choice: {raw} }}"
            problems.append(Problem("a list is not searched by itself", key, value=raw, remedy=remedy))
            return None
        return _choice(parameter, raw, key, problems)
    return _choice(parameter, [raw], key, problems)


def _parse_search(
    parameter: Parameter, raw: Mapping[str, Any], key: str, problems: list[Problem], what: str | None
) -> Domain | None:
    """Return the domain of a mapping such as `{ choice: [...] }`; `what`: what has the parameter, where ranges are no use."""
    kinds = ["choice", *(_RANGES if what is None else ())]
    if len(raw) != 1 or next(iter(raw)) not in kinds:
        rule = "a searched parameter has exactly one of " + ", ".join(kinds)
        remedy = _meant(parameter, raw)
        if what is not None:
            rule = f"a {what} takes values and lists of them, not ranges"
            remedy = f"write e.g. {parameter.name}: [..., ...]"
        problems.append(Problem(rule, key, value=raw, remedy=remedy))
        return None
    kind, body = next(iter(raw.items()))
    if kind != "choice":
        return _parse_range(parameter, kind, body, key, problems)
    if not isinstance(body, list) or not body:
        remedy = "write choice: [..., ...]"
        parts = re.split(r"[,;\s]+", body.strip()) if isinstance(body, str) and len(body) < 200 else []
        if len(parts) > 1 and all(parts):
            remedy = f"write choice: [{', '.join(parts)}]"
        elif isinstance(body, int | float | str) and len(str(body)) < 60:
            remedy = f"write {parameter.name}: {body}, or choice: [..., ...]"
        problems.append(
            Problem("choice needs a list with at least one value", f"{key}.choice", value=body, remedy=remedy)
        )
        return None
    return _choice(parameter, body, f"{key}.choice", problems)


def _parse_range(parameter: Parameter, kind: str, body: Any, key: str, problems: list[Problem]) -> Range | None:
    """Return the range of `{ kind: body }`, where `kind` is one of `_RANGES`."""
    log, integer = _RANGES[kind]
    here = f"{key}.{kind}"
    if parameter.type not in (int, float):
        problems.append(Problem(f"{kind} is for numbers; {parameter.name} is not one", key, remedy="use choice: [...]"))
        return None
    if not (isinstance(body, list) and len(body) == 2 and all(is_number(v) for v in body)):
        texts = [value for value in body if isinstance(value, str)] if isinstance(body, list) else []
        meant = [number_remedy(value, parameter.name) for value in texts]
        remedy = f"write [low, high]; for {texts[0]!r} {meant[0]}" if meant and meant[0] else "write [low, high]"
        if isinstance(body, list) and len(body) == 4:
            remedy = "write [low, high], with points for commas within numbers"
        problems.append(Problem(f"{kind} needs two numbers", here, value=body, remedy=remedy))
        return None
    low, high = body
    for bound in (low, high):
        _, rule = _check_value(parameter, bound)
        if integer and bound != int(bound):
            rule = f"{kind} needs whole numbers"
        if rule:
            problems.append(Problem(rule, here, value=bound, remedy=f"{parameter.name} is: {parameter.meaning}"))
            return None
    if low >= high:
        remedy = f"write [{high}, {low}]" if low > high else f"write {parameter.name}: {low}"
        problems.append(Problem("`low < high` must hold", here, value=body, remedy=remedy))
        return None
    if log and low <= 0:
        problems.append(Problem(f"{kind} needs low > 0", here, value=low, remedy="use uniform"))
        return None
    return Range(float(low), float(high), log, integer or parameter.type is int)


def _choice(parameter: Parameter, values: Sequence[Any], key: str, problems: list[Problem]) -> Choice | None:
    """Return the choice of these values, each once; None where one is wrong."""
    good: list[Value] = []
    failed = False
    for raw in values:
        value, rule = _check_value(parameter, raw)
        if rule or value is None:
            remedy = f"{parameter.name} is: {parameter.meaning}"
            if isinstance(raw, str) and raw in dict(parameter.refused):
                remedy = "write " + " or ".join(map(str, parameter.choices))
            elif isinstance(raw, str) and raw.lower() in parameter.choices:
                remedy = f"write {raw.lower()}"
            elif parameter.type is bool and str(raw).lower() in ("yes", "no", "on", "off", "true", "false", "1", "0"):
                remedy = f"write {'true' if str(raw).lower() in ('yes', 'on', 'true', '1') else 'false'}"
            elif parameter.type in (int, float) and isinstance(raw, str):
                remedy = number_remedy(raw, parameter.name) or remedy
            problems.append(Problem(rule, key, value=raw, remedy=remedy))
            failed = True
        elif value not in good:
            good.append(value)
    if not good and not failed:
        remedy = "add one, or remove the key"
        problems.append(Problem("needs at least one value", key, value=list(values), remedy=remedy))
    return Choice(tuple(good)) if good and not failed else None


def unknown_keys(raw: Mapping[Any, Any], table: Mapping[str, Parameter], key: str) -> list[Problem]:
    """Return a problem for each key of a mapping that is no parameter of the table."""
    return [
        Problem("unknown key", f"{key}.{name}", remedy=did_you_mean(str(name), list(table)))
        for name in raw
        if name not in table
    ]


def mappings(
    raw: Any, known: Mapping[str, Parameter], key: str, what: str, remedy: str, problems: list[Problem]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the mappings of a list, or a single mapping, each with its key. Mistakes go to `problems`."""
    items = raw if isinstance(raw, list) else [raw]
    if not items:
        problems.append(Problem(f"needs at least one {what}", key, value=raw, remedy=remedy))
    for index, item in enumerate(items):
        here = f"{key}[{index}]"
        if isinstance(item, dict):
            problems.extend(unknown_keys(item, known, here))
            yield here, item
        else:
            problems.append(Problem(f"a {what} is a mapping", here, value=item, remedy=remedy))
