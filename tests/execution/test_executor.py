"""Stages as the search calls them: what stays in the cache, what ends early, and what is void."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from autotune.artifacts import makers
from autotune.artifacts.room import Room
from autotune.artifacts.store import Cache
from autotune.candidate import Recipe
from autotune.costs.model import CostModel
from autotune.errors import Interrupted, MachineError, StageError, UsageError
from autotune.execution import executor
from autotune.execution.executor import Stages
from autotune.execution.local import LocalEngine
from autotune.execution.stop import Stop
from autotune.execution.timeouts import FIRST_S, LEAST_S, Timeouts
from autotune.space.adapters import resolve_lora
from autotune.stages.jobs import BuildJob, CheckJob, FinetuneJob, MergeJob
from autotune.stages.preparation_jobs import TinyJob
from autotune.stages.protocol import Job, Result

HERE = Path(__file__).parent
BUILD = BuildJob(source="s", recipe=Recipe(precision="int8"), provider="cpu", source_dir=HERE)
MERGE = MergeJob(adapter="a", base="b", base_dir=HERE, adapter_dir=HERE)
TRAIN = FinetuneJob(base="b", data="d", lora=resolve_lora({"steps": 4, "batch_size": 2, "max_length": 64}), seed=0, device="cpu",
                    base_dir=HERE, data_file=HERE)  # fmt: skip


class InProcess(LocalEngine):
    """An engine that calls a function."""

    def __init__(self, act: Callable[[Job, Path], None] = lambda job, out: None) -> None:
        super().__init__()
        self.act = act
        self.timeouts: list[float | None] = []
        self.jobs: list[Job] = []

    def run(self, job: Job, out: Path, log: Path, timeout: float | None = None) -> tuple[Result, float]:
        self.timeouts.append(timeout)
        self.jobs.append(job)
        (out / "file").write_bytes(bytes(100_000))
        self.act(job, out)
        return {"step": 4}, 30.0


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def stages_of(cache: Cache, engine: InProcess, **more: object) -> Stages:
    return Stages(cache, engine, lambda: cache.root / "log", "model", **more)  # type: ignore[arg-type]


def kept_for(cache: Cache) -> dict[str, bool]:
    return {entry.stage: bool(entry.kept_for) for entry in cache.entries()}


def test_what_a_candidate_uses_stays_until_the_next(cache: Cache) -> None:
    stages = stages_of(cache, InProcess())
    stages(TinyJob())
    stages.settle([], 0.0)  # the base model
    for job in (MERGE, BUILD):
        stages(job)
    assert kept_for(cache) == {"tiny": True, "merge": True, "build": True}
    stages.let_go(MERGE)
    assert kept_for(cache) == {"tiny": True, "merge": True, "build": False}
    stages.find(BUILD)  # it is used again
    assert kept_for(cache)["build"]
    stages.discard(MERGE)
    assert set(kept_for(cache)) == {"tiny", "build"}
    stages.close()
    assert kept_for(cache) == {"tiny": False, "build": False}


def test_a_result_that_is_its_report_alone_needs_no_mark(cache: Cache) -> None:
    stages = stages_of(cache, InProcess())
    check = CheckJob(
        source="s", original="o", provider="cpu", recipe=BUILD.recipe, data="d", max_length=8, model_dir=HERE, source_dir=HERE,
        data_file=HERE,
    )  # fmt: skip
    assert stages(check).result == {"step": 4}
    stages(BUILD)
    assert kept_for(cache) == {"check": False, "build": True}
    assert stages(check).cached


def test_the_front_and_the_base_stay_after_the_sweep(cache: Cache, tmp_path: Path) -> None:
    out = tmp_path / "results"
    out.mkdir()
    (out / "results.csv").touch()
    stages = stages_of(cache, InProcess())
    stages(TinyJob())
    stages.settle([], 0.0)
    for job in (BUILD, TRAIN):
        stages(job)
    stages.pin(out, [TRAIN])
    stages.close()
    assert kept_for(cache) == {"tiny": True, "build": False, "finetune": True}


def test_a_sweep_that_is_asked_to_end_begins_no_stage_and_still_finds_results(cache: Cache, tmp_path: Path) -> None:
    engine, stop = InProcess(), Stop(tmp_path / "stop")
    stages = stages_of(cache, engine, stop=stop)
    stages(BUILD)
    stop.file.touch()
    assert stages(BUILD).cached
    with pytest.raises(Interrupted):
        stages(MERGE)
    assert engine.jobs == [BUILD]


def test_a_training_may_go_on_and_may_be_asked_to_end(cache: Cache, tmp_path: Path) -> None:
    engine, stop = InProcess(), Stop(tmp_path / "stop")
    stages_of(cache, engine, stop=stop)(TRAIN)
    (job,) = engine.jobs
    assert isinstance(job, FinetuneJob)
    assert (job.keep_dir, job.stop_file) == (cache.checkpoint(TRAIN), stop.file)
    assert job.key == TRAIN.key


@pytest.mark.parametrize(
    ("status", "stays"), [("lost", True), ("timeout", True), ("diverged", False), ("out_of_memory", False)]
)
def test_a_checkpoint_stays_where_it_is_of_use(cache: Cache, status: str, stays: bool) -> None:
    def fail(job: Job, out: Path) -> None:
        del out
        assert isinstance(job, FinetuneJob)
        assert job.keep_dir is not None
        (job.keep_dir / "step-3").mkdir(parents=True)
        raise StageError(status, "no")

    with pytest.raises(StageError):
        stages_of(cache, InProcess(fail))(TRAIN)
    assert cache.checkpoint(TRAIN).exists() == stays
    stages_of(cache, InProcess())(TRAIN)
    assert not cache.checkpoint(TRAIN).exists()


def test_time_outs_are_learned_here_and_from_earlier_sweeps(cache: Cache) -> None:
    engine = InProcess()
    stages = stages_of(cache, engine)
    other = BUILD.model_copy(update={"source": "another"})
    stages(BUILD)
    stages(other, timeout=100.0)
    assert engine.timeouts == [FIRST_S, 100.0]
    later = InProcess()
    stages_of(cache, later)(BUILD.model_copy(update={"source": "a third"}))
    assert LEAST_S < 20 * 30.0 < (later.timeouts[0] or 0) < 2 * 20 * 30.0
    told = InProcess()
    stages_of(cache, told, timeouts=Timeouts(CostModel(), {"build": 9.0}))(
        BUILD.model_copy(update={"source": "a fourth"})
    )
    assert told.timeouts == [9.0]


def test_what_was_made_while_an_input_changed_is_void(cache: Cache, tmp_path: Path) -> None:
    model = tmp_path / "model.safetensors"
    model.write_bytes(b"weights")

    def change(job: Job, out: Path) -> None:
        del job, out
        model.write_bytes(b"other weights")

    stages = stages_of(cache, InProcess(change))
    stages.settle([model], 0.0)
    with pytest.raises(UsageError, match="was changed while the sweep was running"):
        stages(BUILD)
    assert cache.find(BUILD) is None


def test_trouble_is_not_the_candidates_where_an_input_is_gone(cache: Cache, tmp_path: Path) -> None:
    model = tmp_path / "model.safetensors"
    model.write_bytes(b"weights")

    def vanish(job: Job, out: Path) -> None:
        del job, out
        model.unlink()
        raise StageError("failed", "build: FileNotFoundError")

    stages = stages_of(cache, InProcess(vanish))
    stages.settle([model], 0.0)
    with pytest.raises(MachineError, match="is gone or cannot be read"):
        stages(BUILD)


def test_room_is_made_before_a_large_stage(cache: Cache) -> None:
    stages = stages_of(cache, InProcess(), room=Room(cache, budget=0.25))
    stages(TinyJob())
    stages.settle([], 0.1)
    builds = [BUILD.model_copy(update={"source": str(n)}) for n in range(4)]
    for build in builds:
        stages(build)
        stages.let_go()
    there = [cache.find(build) is not None for build in builds]
    assert there == [False, False, False, True]  # the base stays, and with it there is room for one
    assert kept_for(cache)["tiny"]


# --- two sweeps on one cache -----------------------------------------------------------------------------------------

MAKING = """
import sys, time
from pathlib import Path
from autotune.artifacts.store import Cache
from autotune.stages.preparation_jobs import TinyJob
def run(out):
    (out / "file").write_text("made by the other", encoding="utf-8")
    print("making", flush=True)
    sys.stdin.readline()
    return {"step": 4}, 30.0
Cache(Path(sys.argv[1])).make(TinyJob(), run, what="abc in /results/theirs")
"""


@pytest.fixture
def maker(cache: Cache) -> Iterator[subprocess.Popen[str]]:
    """Another sweep that is making a result."""
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, "-c", MAKING, str(cache.root)], stdin=pipe, stdout=pipe, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "making"
    yield process
    process.kill()
    process.communicate()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "PATIENCE_S", 0.0)
    monkeypatch.setattr(makers, "_POLL_S", 0.05)


def waiting(cache: Cache, engine: InProcess, then: Callable[[], None], **more: object) -> tuple[Stages, list[str]]:
    """Return stages that call `then` when they have said that they wait, and what they say."""
    stages, said = stages_of(cache, engine, **more), list[str]()

    def say(text: str) -> None:
        said.append(text)
        then()

    stages.say = say
    return stages, said


def test_who_waits_for_another_sweep_says_for_whom_and_takes_its_result(
    cache: Cache, maker: subprocess.Popen[str], impatient: None
) -> None:
    def end() -> None:
        assert maker.stdin is not None
        maker.stdin.write("\n")
        maker.stdin.flush()

    engine = InProcess()
    stages, said = waiting(cache, engine, end)
    stored = stages(TinyJob())
    assert (stored.path / "file").read_text(encoding="utf-8") == "made by the other"
    assert (stored.cached, engine.jobs, stages.spent_s) == (True, [], 0.0)
    (line,) = said
    pattern = r"waiting for the result of tiny: process {} makes it since \d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\dZ for abc in /results/theirs; Ctrl-C ends the wait"
    assert re.fullmatch(pattern.format(maker.pid), line)
    (wait,) = engine.host.waits  # it is no cost of the tuner
    assert wait.ended > wait.began
    assert not list(cache.root.glob("*/*.maker"))


def test_where_the_maker_dies_who_waits_makes_it(cache: Cache, maker: subprocess.Popen[str], impatient: None) -> None:
    engine = InProcess()
    stages, said = waiting(cache, engine, maker.kill)
    assert not stages(TinyJob()).cached
    assert len(said) == len(engine.jobs) == 1
    assert [path.name for path in cache.folder(TinyJob()).iterdir() if path.name != "manifest.json"] == ["file"]


def test_the_first_ctrl_c_ends_a_wait(
    cache: Cache, maker: subprocess.Popen[str], impatient: None, tmp_path: Path
) -> None:
    stop = Stop(tmp_path / "stop")
    stages, said = waiting(cache, InProcess(), stop.file.touch, stop=stop)
    with pytest.raises(Interrupted):
        stages(TinyJob())
    assert len(said) == 1
    assert maker.poll() is None  # the other is not disturbed


@pytest.mark.parametrize("limit", ["the stage's", "the call's", "the sweep's"])
def test_a_wait_has_the_limits_of_the_stage_and_of_the_sweep(
    cache: Cache, maker: subprocess.Popen[str], impatient: None, limit: str
) -> None:
    timeouts = Timeouts(CostModel(), {"tiny": 0.3 if limit == "the stage's" else 900.0})
    stages, _ = waiting(cache, InProcess(), lambda: None, timeouts=timeouts)
    if limit == "the sweep's":
        left = iter([1.0, 0.5, 0.0])
        stages.left_s = lambda: next(left)
    words = "the end of budget.hours" if limit == "the sweep's" else "its time limit"
    with pytest.raises(
        StageError, match=rf"tiny: waited for \d+ s, until {words}: process {maker.pid} makes it"
    ) as raised:
        stages(TinyJob(), 0.3 if limit == "the call's" else None)
    assert raised.value.status == "lost"  # it is not the candidate's doing: it is tried again


def test_threads_of_one_sweep_wait_for_one_another(cache: Cache, impatient: None) -> None:
    together, found = threading.Barrier(4), list[bool]()
    engine = InProcess(lambda job, out: time.sleep(0.2))
    stages = stages_of(cache, engine)

    def ask() -> None:
        together.wait()
        found.append(stages(TinyJob()).cached)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (sorted(found), len(engine.jobs)) == ([False, True, True, True], 1)


def test_whoever_makes_it_may_say_nothing_of_himself(
    cache: Cache, maker: subprocess.Popen[str], impatient: None
) -> None:
    """An earlier version, or a disk that is full."""
    for text in (None, "", "[]", '{"pid": "x"}'):
        (file,) = cache.root.glob("tiny/*.maker")
        file.unlink() if text is None else file.write_text(text, encoding="utf-8")
        stages, said = waiting(cache, InProcess(), lambda: None)
        with pytest.raises(StageError):
            stages(TinyJob(), 0.1)
        assert said == ["waiting for the result of tiny: another process makes it; Ctrl-C ends the wait"]
        file.touch()
