"""On a cluster, progress says on which host a candidate's stage is at work."""

from __future__ import annotations

import pytest

from autotune.candidate import Candidate, Recipe
from autotune.present.live import _worker
from autotune.present.progress import Progress
from autotune.present.so_far import SoFar
from autotune.scheduler.events import StageAt, StageBegan, WorkersEmployed
from autotune.sweepfile.schema import Budget

FIRST, SECOND = (Candidate(recipe=Recipe(precision=precision)) for precision in ("int8", "fp32"))


def begun() -> SoFar:
    so_far = SoFar("sweep", Budget(trials=4), ["accuracy"])
    for event in (WorkersEmployed(2, False), StageBegan(1, FIRST, "build"), StageBegan(2, SECOND, "score")):
        so_far.hear(event)
    return so_far


def test_the_live_view_names_the_host_of_a_stage() -> None:
    so_far = begun()
    so_far.hear(StageAt(SECOND.id, "host-b"))
    so_far.hear(StageAt("another", "host-c"))  # of one that has ended meanwhile
    one, two = so_far.picture().workers
    assert one is not None
    assert two is not None
    assert (one.host, two.host) == ("", "host-b")
    assert "on host-b" in _worker(so_far.picture(), two).plain
    assert "host" not in _worker(so_far.picture(), one).plain
    so_far.hear(StageBegan(2, SECOND, "time"))  # the next stage may be elsewhere
    assert so_far.doing(SECOND.id) is not None
    assert so_far.doing(SECOND.id).host == ""  # type: ignore[union-attr]


def test_plain_lines_name_the_host_of_a_stage(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(begun(), plain=True)
    for event in (StageAt(FIRST.id, "host-a"), StageAt("another", "host-c")):
        progress(event)
    assert capsys.readouterr().err == "[1/4] building is at work on host-a\n"
