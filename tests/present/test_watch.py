"""`status --watch`: a steady view in a terminal, lines elsewhere, until the sweep has stopped."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from autotune.present import watch as watch_module
from autotune.present.watch import watch


def status_of(done: int, state: str = "running", stage: str = "finetune") -> dict[str, Any]:
    running = {"pid": 1, "host": "here", "stage": stage, "since": 0.0}
    return {
        "sweep": "s", "state": state, "trials_done": done, "trials_budget": 9, "hours_budget": None, "status_counts": {},
        "objectives": ["accuracy"], "best": None, **({"running": running} if state == "running" else {}),
    }  # fmt: skip


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


SEEN = [status_of(1), status_of(1), status_of(2), status_of(2, stage="build"), status_of(3, "stopped")]


@pytest.fixture(autouse=True)
def looks(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    left = list(SEEN)
    monkeypatch.setattr(watch_module, "read_status", lambda folder: left.pop(0))
    return left


def test_elsewhere_a_line_stands_at_each_change(looks: list[dict[str, Any]]) -> None:
    stream, slept = io.StringIO(), []
    watch(Path(), False, stream, 2.0, slept.append)
    heads = [line for line in stream.getvalue().splitlines() if line.startswith("s: ")]
    assert heads == [
        "s: running, 1 of 9 trials (none ended yet)", "s: running, 2 of 9 trials (none ended yet)",
        "s: running, 2 of 9 trials (none ended yet)", "s: stopped, 3 of 9 trials (none ended yet)",
    ]  # fmt: skip
    assert (slept, looks) == ([2.0] * 4, [])
    assert "\x1b" not in stream.getvalue()


def test_in_a_terminal_it_is_written_over_itself() -> None:
    stream = Terminal()
    watch(Path(), False, stream, 0, lambda _: None)
    assert stream.getvalue().count("\x1b[2J") == 1, "cleared once: after that nothing flickers"
    assert stream.getvalue().count("\x1b[H") == len(SEEN)
    assert stream.getvalue().endswith("\x1b[J")


def test_json_is_one_document_a_line() -> None:
    stream = Terminal()
    watch(Path(), True, stream, 0, lambda _: None)
    assert [json.loads(line)["trials_done"] for line in stream.getvalue().splitlines()] == [1, 1, 2, 2, 3]
