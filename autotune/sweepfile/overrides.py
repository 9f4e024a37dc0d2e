"""`--set KEY=VALUE`: changes to a sweep file from the command line."""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Sequence
from typing import Any

from autotune.errors import Problem, UsageError
from autotune.secrets import HIDDEN, names_secret
from autotune.sweepfile.syntax import SYNTAX_ERRORS, parse_value
from autotune.sweepfile.syntax_remedies import TEXTS


def apply_set(data: dict[str, Any], assignment: str) -> str:
    """Apply one `--set a.b=value`; return its key. Raises UsageError."""
    key, equals, text = assignment.partition("=")
    key = key.strip()
    if names_secret(key):
        assignment = f"{key}={HIDDEN}"
    if not equals or not key:
        meant = re.fullmatch(r"\s*([A-Za-z_]\w*(?:\.\w+)*)\s*(?::|\s)\s*(\S.*)", assignment, re.DOTALL)
        remedy = (
            "e.g. --set budget.trials=4" if meant is None else f"write --set {shlex.quote(f'{meant[1]}={meant[2]}')}"
        )
        raise UsageError(Problem("--set takes KEY=VALUE", value=assignment, remedy=remedy))
    *parents, last = key.split(".")
    if not all(name.strip() for name in (*parents, last)):
        rule = "--set takes KEY=VALUE, and KEY has an empty part"
        raise UsageError(Problem(rule, value=assignment, remedy="e.g. --set budget.trials=4"))
    if found := re.search(r"\[[^\]]*\]", key):
        whole = key[: found.start()]
        rule = f"--set {key}: a list is set as a whole, and not by its entries"
        raise UsageError(Problem(rule, value=assignment, remedy=f"write --set '{whole}=[...]'"))
    here: Any = data
    for name in parents:
        here = here.setdefault(name, {})
        if not isinstance(here, dict):
            rule = f"--set {key}: '{name}' is not a mapping, and has no keys to set"
            raise UsageError(Problem(rule, value=assignment, remedy=f"set {name} as a whole"))
    try:
        value = parse_value(text)
        # YAML reads {text} and `Text: {text}` as mappings, but they are templates.
        here[last] = text if last in TEXTS and value is not None and not isinstance(value, str) else value
    except SYNTAX_ERRORS:
        if last in TEXTS:
            here[last] = text
            return key
        given = assignment.partition("=")[2]
        raise UsageError(Problem(f"--set {key}: not a YAML value", value=given, remedy="quote it")) from None
    return key


def providers_set(assignments: Sequence[str]) -> list[str]:
    """Return the execution providers that `--set` names, of one target or of several; empty where it names none."""
    data: dict[str, Any] = {}
    for assignment in assignments:
        if assignment.strip().startswith("target"):
            with contextlib.suppress(UsageError):  # told where it is applied
                apply_set(data, assignment)
    several = data.get("targets")
    targets = list(several.values()) if isinstance(several, dict) and several else [data.get("target")]
    found = [target.get("provider") for target in targets if isinstance(target, dict)]
    return list(dict.fromkeys(provider for provider in found if isinstance(provider, str)))
