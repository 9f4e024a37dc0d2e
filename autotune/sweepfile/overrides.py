"""`--set KEY=VALUE`: changes to a sweep file from the command line."""

from __future__ import annotations

from typing import Any

from autotune.errors import Problem, UsageError
from autotune.sweepfile.syntax import SYNTAX_ERRORS, parse_value


def apply_set(data: dict[str, Any], assignment: str) -> str:
    """Apply one `--set a.b=value`; return its key. Raises UsageError."""
    key, equals, text = assignment.partition("=")
    key = key.strip()
    if not equals or not key:
        raise UsageError(Problem("--set takes KEY=VALUE", value=assignment, remedy="e.g. --set budget.trials=4"))
    *parents, last = key.split(".")
    here: Any = data
    for name in parents:
        here = here.setdefault(name, {})
        if not isinstance(here, dict):
            rule = f"--set {key}: '{name}' is not a mapping, and has no keys to set"
            raise UsageError(Problem(rule, value=assignment, remedy=f"set {name} as a whole"))
    try:
        here[last] = parse_value(text)
    except SYNTAX_ERRORS:
        raise UsageError(Problem(f"--set {key}: not a YAML value", value=text, remedy="quote it")) from None
    return key
