"""What a running sweep says on stderr in plain lines; `test_live_view` has the view in a terminal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from autotune.candidate import Candidate, Recipe
from autotune.present.progress import Progress
from autotune.present.so_far import SoFar
from autotune.present.tables import duration
from autotune.results.rows import Trial
from autotune.scheduler.events import RowWritten, StageBegan
from autotune.space.domains import Choice
from autotune.space.space import Space
from autotune.strategies.baselines import drawn
from autotune.sweepfile.resolve import parse_sweep

SPACE = Space({"r": Choice((8,))}, (), (), {"batch_size": 8, "max_length": 128, "steps": 10})
PAIR = SPACE.candidate({}, Recipe(precision="int4", algorithm="default", block_size=32))
ROW = Trial({
    "candidate": PAIR.id, "trial": 3, "status": "ok", "error": None, "accuracy": 0.9, "accuracy_low": 0.85,
    "accuracy_high": 0.93, "itl_ms_p50": 8.04, "size_mb": 90.25, **PAIR.columns(),
})  # fmt: skip


def progress_of(rows: Iterable[Trial] = (), **budget: Any) -> Progress:
    document = {
        "model": "smollm2-135m-instruct",
        "data": {"train": "t.jsonl", "validation": "v.jsonl", "prompt": "{a}", "completion": " {b}"},
        "space": {"lora": {"r": {"choice": [4, 8]}}, "build": [{"precision": "int4"}]},
        "budget": budget or {"trials": 40},
    }
    sweep = parse_sweep(document)
    return Progress(SoFar("s", sweep.budget, list(sweep.objectives), rows))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (0.4, "0 s"), (59.6, "60 s"), (99.4, "99 s"), (100, "2 min"), (3600, "60 min"), (5939, "99 min"),
     (6000, "1 h 40 min"), (7199, "2 h 00 min"), (100_000, "27 h 47 min")],
)  # fmt: skip
def test_durations_as_people_say_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_plain_lines_where_stderr_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_of() as progress:
        progress.note("data: [bold]as it is[/bold]")
        progress(StageBegan(0, Candidate(), "score"))
        progress(StageBegan(3, PAIR, "finetune"))
        progress(RowWritten(ROW, ROW))
        progress(RowWritten(ROW | {"status": "failed", "error": "build: no such [operator]", "trial": 4}, ROW))
        progress(StageBegan(0, PAIR, "score on test, winner"))
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "data: [bold]as it is[/bold]",
        "[-] scoring the untouched model",
        "[3/40] fine-tuning r8 a16 lr 0.001 all-linear | int4 b32",
        "[3/40] r8 a16 lr 0.001 all-linear | int4 b32: accuracy 0.900 [0.850, 0.930], itl_ms_p50 8.04 ms/token, "
        "size_mb 90.2 MB",
        "[4/40] r8 a16 lr 0.001 all-linear | int4 b32: failed: build: no such [operator]",
        "[-] scoring on test, winner r8 a16 lr 0.001 all-linear | int4 b32",
    ]
    assert "\x1b" not in err


def test_any_candidate_and_status_has_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    import random

    with progress_of() as progress:
        for recipe in (None, Recipe(precision="fp32")):
            candidate = drawn(Space(SPACE.lora, (recipe,) if recipe else (), (), SPACE.defaults), random.Random(0))
            for status in ("ok", "over_limit", "lost"):
                cells = {
                    "candidate": candidate.id,
                    "trial": 1,
                    "status": status,
                    "error": "why",
                    **candidate.columns(),
                }
                progress(RowWritten(Trial(cells), None))
    assert len(capsys.readouterr().err.splitlines()) == 6


def test_each_of_several_targets_counts_its_own_trials_and_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    pair = Candidate(lora=PAIR.lora, recipe=PAIR.recipe, target="gpu")
    with progress_of() as progress:
        progress(StageBegan(0, Candidate(target="gpu"), "score"))
        progress(StageBegan(3, pair, "finetune"))
        progress(RowWritten(ROW | {"target": "gpu"}, ROW))
    begun, trained, row = capsys.readouterr().err.splitlines()
    assert begun == "[gpu -] scoring the untouched model"
    assert trained.startswith("[gpu 3] fine-tuning r8 ")
    assert row.startswith("[gpu 3] r8 ")
    assert [doing.settings[:8] for doing in progress.so_far.picture().workers if doing is not None][-1] == "gpu: r8 "
