"""A winner that is no better than the untouched model is said to be none."""

from __future__ import annotations

from typing import Any

import pytest

from autotune.metrics import Direction
from autotune.present.untouched import beside_untouched
from autotune.results.rows import Trial

BASE: dict[str, Any] = {"candidate": "b", "trial": 0, "status": "ok", "build_precision": "fp32", "accuracy": 0.46,
                        "accuracy_low": 0.37, "accuracy_high": 0.56, "accuracy_n": 100, "perplexity": 9.0}  # fmt: skip
WINNER = BASE | {"candidate": "w", "trial": 1, "build_precision": "int4", "lora_r": 8, "lora_learning_rate": 1e-3}


@pytest.mark.parametrize(
    ("cells", "name", "direction", "head", "holds"),
    [
        ({"accuracy": 0.33, "accuracy_low": 0.25, "accuracy_high": 0.43}, "accuracy", "maximize", "WORSE THAN", "0.330, and 0.460 untouched at fp32"),
        ({"accuracy": 0.41, "accuracy_low": 0.32, "accuracy_high": 0.51}, "accuracy", "maximize", "NO BETTER THAN", "within the noise"),
        ({"accuracy": 0.46}, "accuracy", "maximize", "NO BETTER THAN", "accuracy >= base"),
        ({"accuracy": 0.47}, "accuracy", "maximize", "", ""),
        ({"accuracy": None}, "accuracy", "maximize", "", ""),
        ({"perplexity": 9.5, "perplexity_low": 9.2, "perplexity_high": 9.8}, "perplexity", "minimize", "WORSE THAN", "perplexity <= base"),
        ({"perplexity": 8.5}, "perplexity", "minimize", "", ""),
        ({"accuracy": 0.41, "accuracy_low": 0.32, "accuracy_high": 0.51, "lora_r": None}, "accuracy", "maximize", "", ""),
        ({"accuracy": 0.2, "accuracy_low": 0.1, "accuracy_high": 0.3, "lora_r": None}, "accuracy", "maximize", "WORSE THAN", "higher precision"),
        ({"candidate": "b", "accuracy": 0.46}, "accuracy", "maximize", "", ""),
        ({"size_mb": 90.0}, "size_mb", "minimize", "", ""),
    ],
)  # fmt: skip
def test_what_is_said(cells: dict[str, Any], name: str, direction: Direction, head: str, holds: str) -> None:
    said = "\n".join(beside_untouched(Trial(WINNER | cells), Trial(BASE), name, direction))
    assert said.startswith(head)
    assert bool(said) == bool(head)
    assert holds in said


def test_nothing_is_said_where_the_untouched_model_was_not_measured() -> None:
    worse = Trial(WINNER | {"accuracy": 0.1})
    assert beside_untouched(worse, None, "accuracy", "maximize") == []
    assert beside_untouched(worse, Trial(BASE | {"status": "failed", "accuracy": None}), "accuracy", "maximize") == []
