"""Limits such as "accuracy >= base + 0.2": parsed once, judged on every row, and free to change after the sweep.

One idea: a threshold is `constant + factor * base`, where `base` is the same metric of the untouched model
built at fp32 (or the most exact precision of the provider).
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from autotune.analysis.statistics import Interval
from autotune.errors import Problem, did_you_mean, number_remedy
from autotune.metrics import METRICS, SHARES, Direction

Operator = Literal["<=", ">="]

_FORMS = "a finite number, base, base + number, base - number, base * number or number * base"
_EXAMPLES = "write for example 'size_mb <= 100' or 'accuracy >= base + 0.2'"
_MEANT = {"<": "<=", "=<": "<=", "≤": "<=", ">": ">=", "=>": ">=", "≥": ">="}

_SIGNS = "<>=!~≤≥"
_LIMIT = re.compile(rf"\s*(?P<metric>[^\s{_SIGNS}]+)\s*(?P<op>[{_SIGNS}]+)(?P<bound>.*)", re.DOTALL)
_NUMBER = r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
_BOUND = re.compile(
    rf"\s*(?:(?P<number>{_NUMBER})|base(?:\s*(?P<sign>[+*-])\s*(?P<operand>{_NUMBER}))?"
    rf"|(?P<factor>{_NUMBER})\s*\*\s*base)\s*"
)


@dataclass(frozen=True)
class Limit:
    """One limit: `metric op constant + factor * base`, and the text that it was read from."""

    text: str
    metric: str
    op: Operator
    constant: float
    factor: float = 0.0

    def __str__(self) -> str:
        return self.text

    @property
    def needs_base(self) -> bool:
        """Whether the threshold depends on the untouched model."""
        return self.factor != 0

    def threshold(self, base: float | None) -> float | None:
        """Return the number to compare with, in the metric's unit; None where `base` is needed but missing."""
        if not self.needs_base:
            return self.constant
        if base is None:
            return None
        value = self.constant + self.factor * base
        return value if math.isfinite(value) else None

    def gap(self, value: float | None, base: float | None) -> float | None:
        """Return how far `value` is beyond the limit, in the metric's unit: broken above 0; None if unknown.

        A rounding error (up to 1e-12 of the largest number in the sums) counts as 0.
        """
        threshold = self.threshold(base)
        if threshold is None or value is None or not math.isfinite(value):
            return None
        difference = value - threshold if self.op == "<=" else threshold - value
        terms = (value, threshold, self.constant, self.factor * base if self.needs_base and base else 0.0)
        return 0.0 if abs(difference) <= 1e-12 * max(map(abs, terms)) else difference

    def uncertain(self, interval: Interval, base: float | None) -> bool:
        """Return whether the limit holds at one end of the interval and is broken at the other."""
        low, high = self.gap(interval.low, base), self.gap(interval.high, base)
        return low is not None and high is not None and (low > 0) != (high > 0)


@dataclass(frozen=True)
class Aims:
    """The aims of a sweep, by which a winner is chosen among its rows: the objectives, and the limits that all must be kept."""

    objectives: Mapping[str, Direction]
    """Metric to direction, the most important first."""
    limits: tuple[Limit, ...] = ()

    @property
    def need_base(self) -> bool:
        """Whether a limit refers to the untouched model."""
        return any(limit.needs_base for limit in self.limits)


def excludes(limit: Limit, other: Limit) -> bool:
    """Return whether no value keeps both: `limit` is an upper limit below the lower limit `other` on the same metric."""
    if limit.metric != other.metric or (limit.op, other.op) != ("<=", ">=") or limit.factor != other.factor:
        return False
    return limit.constant < other.constant


def senseless(limit: Limit) -> list[tuple[str, str]]:
    """Return what is wrong with a limit by the meaning of its metric, each rule with its remedy."""
    found = []
    metric, bound = METRICS[limit.metric], limit.constant
    if limit.metric in SHARES and not limit.needs_base and not 0 <= bound <= 1:
        remedy = f"write {bound / 100:g}" if 2 <= bound <= 100 else "give a bound from 0 to 1"
        found.append((f"{limit.metric} is a share from 0 to 1", remedy))
    elif metric.kind != "score" and not limit.needs_base and limit.op == "<=" and bound <= 0:
        found.append((f"{limit.metric} is above 0, so that no candidate could keep the limit", "give a bound above 0"))
    better = ">=" if metric.direction == "maximize" else "<="
    if metric.kind == "score" and not metric.turns and limit.op != better:
        rule = f"{limit.metric} is {metric.direction}d, by its meaning, and this limit would keep what is worse"
        found.append((rule, f"write {better}"))
    return found


def parse_limit(text: str, known: Collection[str]) -> Limit:
    """Return the limit that `text` states about one of the `known` metrics.

    Raises ValueError with the rule, the text and the remedy.
    """
    found = _LIMIT.fullmatch(text)
    if found is None:
        raise _refused("a limit must be a metric, <= or >=, and a bound", text, _EXAMPLES)
    metric, op, bound = found["metric"], found["op"], found["bound"]
    if metric not in known:
        if bound.strip() in known:
            raise _refused("a limit must start with its metric", text, _EXAMPLES)
        if re.fullmatch(_NUMBER, metric):
            raise _refused("a limit must start with its metric", text, f"write one limit for each bound; {_EXAMPLES}")
        raise _refused(f"unknown metric '{metric}' in a limit", text, did_you_mean(metric, sorted(known)))
    if op != "<=" and op != ">=":
        raise _refused("a limit must compare with <= or >=", text, f"write {_MEANT.get(op, '<= or >=')}")
    parts = _BOUND.fullmatch(bound)
    if parts is None:
        raise _refused(f"the bound of a limit must be {_FORMS}", text, _bound_remedy(bound, metric))
    number = float(parts["number"] or parts["operand"] or parts["factor"] or 0)
    if not math.isfinite(number):
        raise _refused("the number in a limit must be finite", text, _EXAMPLES)
    constant, factor = 0.0, 1.0
    if parts["number"]:
        constant, factor = number, 0.0
    elif parts["factor"] or parts["sign"] == "*":
        factor = number
    elif parts["sign"]:
        constant = number if parts["sign"] == "+" else -number
    return Limit(text, metric, "<=" if op == "<=" else ">=", constant, factor)


def _bound_remedy(bound: str, metric: str) -> str:
    """Return how to write a bound that is almost right."""
    if re.search(r"\b(and|or)\b|,\s*[a-z]", bound):
        return "write each limit as an entry of its own"
    if found := re.fullmatch(r"\s*(.+?)\s+of\s+base\s*", bound):
        meant = number_remedy(found[1], metric)
        return f"{meant} * base" if meant.startswith("write ") else _EXAMPLES
    if found := re.fullmatch(r"\s*base\s*([+*-])\s*(.+?)\s*", bound):
        meant = number_remedy(found[2], metric, quoted=False)
        return meant.replace("write ", f"write base {found[1]} ") if meant else _EXAMPLES
    if found := re.fullmatch(rf"\s*base\s*/\s*({_NUMBER})\s*", bound):
        return f"write base * {1 / float(found[1]):.6g}" if float(found[1]) else _EXAMPLES
    meant = number_remedy(bound, metric, quoted=False)
    return meant.replace("remove the key for none", "leave the limit out for none") or _EXAMPLES


def _refused(rule: str, text: str, remedy: str) -> ValueError:
    return ValueError(str(Problem(rule, value=text, remedy=remedy)))
