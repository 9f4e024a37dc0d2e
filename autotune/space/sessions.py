"""Sessions, the settings that serve a build: parsed from a sweep file and multiplied out."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping
from typing import Any

from autotune.candidate import Session
from autotune.errors import Problem
from autotune.providers import Provider
from autotune.space.domains import MOST_COMBINATIONS, Choice, is_number, mappings, parse_domain
from autotune.space.parameter_tables import SESSION, Value

_OPTION = re.compile(r"[A-Za-z0-9_.-]{1,128}")


def spell_options(raw: Mapping[Any, Any]) -> tuple[str, str]:
    """Return (the canonical spelling of a provider's options, "") or ("", the rule that they break).

    ONNX Runtime takes texts: a truth value becomes 1 or 0. The spelling is name=value, sorted, separated by spaces.
    """
    words: list[str] = []
    for name, value in raw.items():
        if not isinstance(name, str) or not _OPTION.fullmatch(name):
            return "", f"has the option {name!r}, and a name is letters, digits, '.', '-' and '_'"
        if not isinstance(value, bool | str) and not is_number(value):
            return "", f"has the option {name} at {value!r}, and a value is a text, a number, true or false"
        whole = isinstance(value, bool | float) and value == int(value)  # 4e9 is a number of bytes
        text = str(int(value) if whole else value)
        if not text or not text.isprintable() or any(map(str.isspace, text)):
            return "", f"has the option {name} at {value!r}, and a value is a text without spaces"
        words.append(f"{name}={text}")
    return " ".join(sorted(words)), ""


def _option_choices(raw: Any, key: str, problems: list[Problem]) -> tuple[str, ...]:
    """Return the choices of `provider_options`: mappings, whose lists multiply."""
    choices: dict[str, None] = {}
    for item in raw if isinstance(raw, list) else [raw]:
        if not isinstance(item, dict) or not item:
            remedy = "write provider_options: { name: value }"
            problems.append(Problem("must be a mapping of options", key, value=item, remedy=remedy))
            continue
        axes = [value if isinstance(value, list) and value else [value] for value in item.values()]
        if math.prod(map(len, axes)) > MOST_COMBINATIONS:
            problems.append(
                Problem(f"its lists multiply to more than {MOST_COMBINATIONS:,} sessions", key, remedy="shorten them")
            )
            continue
        for combination in itertools.product(*axes):
            text, rule = spell_options(dict(zip(item, combination, strict=True)))
            if rule:
                problems.append(Problem(rule, key, remedy="see the provider's options in ONNX Runtime's documentation"))
                break
            choices[text] = None
    return tuple(choices)


def check_served(name: str, provider: Provider, key: str, problems: list[Problem]) -> bool:
    """Return whether a setting of sessions has an effect on a provider; if not, add a problem."""
    parameter = SESSION[name]
    takes = (
        provider.takes_options
        if name == "provider_options"
        else not parameter.providers or provider.name in parameter.providers
    )
    if not takes:
        rule = f"{name} means something on {', '.join(parameter.providers)} only: {provider.name} has no options"
        problems.append(Problem(rule, key, remedy=f"remove it for {provider.name}"))
        return False
    return True


def parse_sessions(
    raw: Any, target: Session, provider: Provider, problems: list[Problem], key: str = "space.session"
) -> tuple[Session | None, ...]:
    """Return the sessions of a sweep file, multiplied out; None stands for the target's own session.

    Of sessions that are equal on this `target`, the first is kept. Mistakes go to `problems`.
    """
    sessions: dict[Session, Session | None] = {}
    for here, item in mappings(raw, SESSION, key, "session", "write - { threads: [1, 2] }", problems):
        before = len(problems)
        axes: dict[str, tuple[Value, ...]] = {}
        for name, value in item.items():
            if name not in SESSION or not check_served(name, provider, f"{here}.{name}", problems):
                continue
            if name == "provider_options":
                axes[name] = _option_choices(value, f"{here}.{name}", problems)
                continue
            domain = parse_domain(SESSION[name], value, f"{here}.{name}", problems, ranges=False, what="session")
            if isinstance(domain, Choice):
                axes[name] = domain.values
        if len(problems) > before:
            continue
        if (many := math.prod(map(len, axes.values()))) > MOST_COMBINATIONS:
            rule = f"its lists multiply to {many:,} sessions, and {MOST_COMBINATIONS:,} are the most"
            problems.append(Problem(rule, here, remedy="shorten the lists"))
            continue
        for combination in itertools.product(*axes.values()):
            session = Session.model_validate(dict(zip(axes, combination, strict=True)))
            sessions.setdefault(session.over(target), session if session != Session() else None)
    return tuple(sessions.values())
