"""Judge whether the provider runs a build itself: ONNX Runtime runs operators that it lacks on the CPU, without an error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autotune.sweepfile.schema import Target


def left_to_cpu(checked: Mapping[str, Any], target: Target) -> str | None:
    """Return why a build does not count as run by the target's provider; None where it does, or where the share is unknown.

    `checked`: the result of a check.
    """
    share, left = checked.get("provider_share"), checked.get("left_to_cpu") or {}
    if share is None or share >= target.share:
        return None
    operators = ", ".join(f"{name} ({count})" for name, count in sorted(left.items(), key=lambda item: -item[1]))
    return (
        f"{target.provider} takes {share:.0%} of the nodes with weights and of attention, and the CPU runs {operators}; "
        f"target.min_share allows it"
    )
