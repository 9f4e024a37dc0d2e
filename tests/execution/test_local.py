"""Real worker processes: what comes back from them, what they die of, and that none is left."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from stages_for_tests import QuickTimeJob, TroubleJob
from waiting import HANG_S, until

from autotune import control_groups
from autotune.artifacts.store import Cache
from autotune.candidate import Lora, Recipe
from autotune.errors import MachineError, StageError
from autotune.execution import local
from autotune.execution.executor import Stages
from autotune.execution.fresh_process import died
from autotune.execution.local import LocalEngine
from autotune.execution.worker import OFFLINE, QUIET, from_plain, to_plain
from autotune.stages.jobs import BuildJob, FinetuneJob, TimeJob, TurnsJob
from autotune.stages.preparation_jobs import TinyJob
from autotune.stages.protocol import Job, Result

HERE = Path(__file__).parent
posix = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")

Run = Callable[..., tuple[Result, float]]


@pytest.fixture(autouse=True)
def whole_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A round has all its turns, however slow the machine is."""
    monkeypatch.setattr(local, "MOST_S", math.inf)


@pytest.fixture(scope="module", autouse=True)
def environment() -> Iterator[None]:
    """Fresh processes find the stages of this folder; afterwards all is as it was."""
    before = dict(os.environ)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(HERE), before.get("PYTHONPATH")]))
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="module")
def engine() -> Iterator[LocalEngine]:
    with LocalEngine() as engine:
        yield engine


@pytest.fixture(params=["warm", "fresh"])
def run(request: pytest.FixtureRequest, engine: LocalEngine, tmp_path: Path) -> Run:
    """Do a job in the warm worker, or in a fresh process: what comes of it must be the same."""

    def warm(job: Job, timeout: float | None = None) -> tuple[Result, float]:
        return engine.run(job, tmp_path, tmp_path / "logs" / "a.log", timeout)

    def fresh(job: Job, timeout: float | None = None) -> tuple[Result, float]:
        return engine.run_fresh(job, tmp_path / "logs" / "a.log", timeout)

    return warm if request.param == "warm" else fresh


def log_of(tmp_path: Path) -> str:
    return (tmp_path / "logs" / "a.log").read_text(encoding="utf-8")


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def gone(pids: list[int]) -> bool:
    until(lambda: not any(map(alive, pids)), f"the end of {pids}")
    return True


def wait_for(file: Path) -> int:
    """Wait for a pid that a stage writes."""
    until(lambda: file.exists() and file.read_text(encoding="utf-8"), f"a pid in {file}")
    return int(file.read_text(encoding="utf-8"))


def timed_out(run: Run, what: str, file: Path) -> float:
    """Let a stage that has begun run past its time; where starting takes longer than that, it gets more. Returns its limit."""
    for limit in (1.5, 15.0, 150.0):
        with pytest.raises(StageError, match=rf"trouble ran past {limit:g} s and was stopped") as error:
            run(TroubleJob(what=what, pid_file=str(file)), limit)
        assert error.value.status == "timeout"
        if file.exists() and file.read_text(encoding="utf-8"):
            return limit
    raise AssertionError(f"no process began within {limit} s")


def children() -> list[int]:
    """Return the processes below this one, but for the one by which Python keeps count of semaphores."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if process.status() != psutil.STATUS_ZOMBIE and "resource_tracker" not in " ".join(process.cmdline()):
                found.append(process.pid)
        except psutil.NoSuchProcess:
            continue
    return found


# --- what comes back -------------------------------------------------------------------------------------------------


def test_result_and_seconds_come_back(run: Run) -> None:
    result, seconds = run(TroubleJob())
    assert result["pid"] != os.getpid()
    assert 0 <= seconds < HANG_S


def test_workers_are_quiet_and_offline(run: Run) -> None:
    environment = run(TroubleJob())[0]["environment"]
    for name, value in (QUIET | OFFLINE).items():
        assert environment[name] == value


def test_the_warm_worker_stays_and_fresh_ones_hold_no_torch(engine: LocalEngine, tmp_path: Path) -> None:
    stages = Stages(Cache(tmp_path / "cache"), engine, lambda: tmp_path / "a.log")
    made = stages(TinyJob())
    assert (made.cached, (made.path / "model.safetensors").exists()) == (False, True)
    assert made.result["parameters"] > 10_000
    assert stages(TinyJob()).cached
    warm = [engine.run(TroubleJob(), tmp_path, tmp_path / "a.log")[0] for _ in range(2)]
    assert warm[0]["pid"] == warm[1]["pid"]
    assert warm[0]["torch"]  # the tiny model needed it, and the worker keeps it
    fresh = [engine.run_fresh(TroubleJob(), tmp_path / "a.log")[0] for _ in range(2)]
    assert len({warm[0]["pid"], fresh[0]["pid"], fresh[1]["pid"]}) == 3
    assert not any(result["torch"] for result in fresh)


def test_a_timing_is_several_fresh_processes_and_is_cached(engine: LocalEngine, tmp_path: Path) -> None:
    stages = Stages(Cache(tmp_path / "cache"), engine, lambda: tmp_path / "a.log", "model")
    job = QuickTimeJob(
        graph="g", provider="cpu", prompt_tokens=8, new_tokens=4, machine="m", processes=3, model_dir=tmp_path
    )
    stored = stages(job)
    samples = stored.result["processes"]
    assert len({sample["pid"] for sample in samples}) == 3
    assert not any(sample["torch"] for sample in samples)
    assert stored.seconds > 0
    again = stages(job)
    assert (again.cached, again.result) == (True, stored.result)


@pytest.mark.parametrize(
    ("medians", "runs"),
    [
        ([10.0, 10.05, 9.95, 10.0, 10.1], 3),  # narrow at once
        ([10.0, 12.0, 10.0, 10.0, 10.0, 10.0, 10.0, 10.0, 10.0], 9),  # disturbed once: more, as many as may be
        ([10.0, 10.6, 10.0, 10.3, 10.3, 10.3, 10.3, 10.3, 10.3], 6),  # until it is narrow
        ([0.1, 0.15, 0.12, 0.1], 3),  # so fast that nobody minds
    ],
)
def test_a_timing_goes_on_until_its_interval_is_narrow(medians: list[float], runs: int, tmp_path: Path) -> None:
    class Timed(LocalEngine):
        def run_fresh(self, job: Job, log: Path, timeout: float | None = None) -> tuple[Result, float]:
            taken.append(medians[len(taken)])
            return {"itl_ms": [taken[-1]] * 3}, 1.0

    taken: list[float] = []
    job = QuickTimeJob(
        graph="g", provider="cpu", prompt_tokens=8, new_tokens=4, machine="m", processes=3, most=9, model_dir=tmp_path
    )
    processes, seconds = Timed().time(job, tmp_path / "log")
    assert (len(processes), seconds) == (runs, float(runs))


@pytest.mark.parametrize(
    ("foreign", "runs"),
    [
        ([0.1] * 9, 3),
        ([0.1, 1.0, 0.1, 0.1, 0.1], 4),  # one was disturbed: one more
        ([1.0] * 9, 9),  # all were: as many as may be
    ],
)
def test_a_timing_goes_on_until_enough_processes_were_undisturbed(
    foreign: list[float], runs: int, tmp_path: Path
) -> None:
    class Timed(LocalEngine):
        def run_fresh(self, job: Job, log: Path, timeout: float | None = None) -> tuple[Result, float]:
            taken.append(foreign[len(taken)])
            return {"itl_ms": [10.0 + taken[-1]] * 3, "conditions": {"foreign_cpu": taken[-1]}}, 1.0

    taken: list[float] = []
    job = QuickTimeJob(
        graph="g", provider="cpu", prompt_tokens=8, new_tokens=4, machine="m", processes=3, most=9, model_dir=tmp_path
    )
    assert len(Timed().time(job, tmp_path / "log")[0]) == runs


def test_one_that_is_clearly_slower_takes_no_more_turns(engine: LocalEngine, tmp_path: Path) -> None:
    """The machine slows down all the while, and the third is not told apart from the first in so few rounds."""
    job = turned(tmp_path)
    a, b, _ = job.graphs
    job = job.model_copy(update={"graphs": (a, b, b, a), "may_leave": (1,), "processes": 4, "most": 4})
    found, _ = engine.time_in_turns(job, tmp_path / "a.log")
    assert [[result is not None for result in results] for results in found] == (
        [[True] * 4] * 3 + [[True, False, True, True]]
    )


def test_a_timing_goes_on_from_what_was_measured_before(engine: LocalEngine, tmp_path: Path) -> None:
    first = QuickTimeJob(
        graph="g", provider="cpu", prompt_tokens=8, new_tokens=4, machine="m", processes=2, most=2, model_dir=tmp_path
    )
    begun, _ = engine.time(first, tmp_path / "log")
    more = first.model_copy(update={"processes": 3, "most": 3, "begun": tuple(begun)})
    processes, seconds = engine.time(more, tmp_path / "log")
    assert processes[:2] == begun
    assert len({process["pid"] for process in processes}) == 3
    assert seconds > 0
    assert engine.time(more.model_copy(update={"begun": tuple(processes)}), tmp_path / "log") == (processes, 0.0)
    stages = Stages(Cache(tmp_path / "cache"), engine, lambda: tmp_path / "a.log", "model")
    assert stages(more).result["begun"] == 2
    assert "begun" not in stages(first).result


def turned(folder: Path, wobble: float = 0.0, trouble: str = "", processes: int = 3) -> TurnsJob:
    """Turns of a and b, which is twice as slow, and a once more; the machine slows down all the while."""
    a, b = (
        QuickTimeJob(
            graph=graph, provider="cpu", prompt_tokens=8, new_tokens=4, machine="m", model_dir=folder, since=trouble
        )
        for graph in ("a", f"b {wobble}")
    )
    return TurnsJob(graphs=(a, b, a), processes=processes, most=5)


@pytest.mark.parametrize(("wobble", "rounds"), [(0.0, 3), (0.3, 5)])
def test_models_live_side_by_side_until_their_ratios_are_narrow(
    wobble: float, rounds: int, engine: LocalEngine, tmp_path: Path
) -> None:
    found, seconds = engine.time_in_turns(turned(tmp_path, wobble), tmp_path / "a.log")
    assert len(found) == rounds
    assert seconds > 0
    assert len({place["pid"] for results in found for place in results}) == 3 * rounds
    for number, results in enumerate(found):
        turns = sorted((when, place) for place, result in enumerate(results) for when in result["when"])
        order = [place for _, place in turns]
        laps = [tuple(order[first : first + 3]) for first in range(0, len(order), 3)]
        assert len(laps) == 2 * 22  # a first token and 3 gaps make two turns, and 22 times 3 gaps are enough
        assert all(sorted(lap) == [0, 1, 2] for lap in laps)
        assert len(set(laps)) > 2
        assert all(one != other for one, other in itertools.pairwise(order))
        began = [result["began"] for result in results]
        assert began == sorted(began, reverse=number % 2 == 1)
        # All three were there before the first turn.
        assert max(result["began"] for result in results) < turns[0][0]
        assert results[0]["itl_ms"] == results[2]["itl_ms"]
    assert not children_of(found)


def children_of(found: list[list[Result]]) -> list[int]:
    return [result["pid"] for results in found for result in results if alive(result["pid"])]


@pytest.mark.parametrize("what", ["machine", "container"])
def test_where_memory_is_small_a_process_takes_all_its_turns_at_once(
    engine: LocalEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    class Little:
        available = 0

    (tmp_path / "model.onnx").write_bytes(b"x" * 1000)
    if what == "machine":
        monkeypatch.setattr(psutil, "virtual_memory", Little)
    else:
        monkeypatch.setattr(control_groups, "memory_left", lambda: 0.0)
    found, _ = engine.time_in_turns(turned(tmp_path), tmp_path / "a.log")
    monkeypatch.undo()
    assert not any("laps" in result for results in found for result in results)
    for number, results in enumerate(found):
        began = [result["began"] for result in results]
        assert began == sorted(began, reverse=number % 2 == 1)


def test_where_memory_ends_side_by_side_they_go_on_one_by_one(engine: LocalEngine, tmp_path: Path) -> None:
    found, _ = engine.time_in_turns(turned(tmp_path, trouble="out of memory in turns"), tmp_path / "a.log")
    assert len(found) == 3
    assert not any("laps" in result for results in found for result in results)


@pytest.mark.parametrize(
    ("trouble", "status", "said"),
    [
        ("refused", "unsupported", "the build does not load"),
        ("refused at a turn", "unsupported", "the build does not run"),
        ("exit at a turn", "lost", "time: the process ended with exit code 3"),
    ],
)
def test_trouble_of_one_that_takes_turns_ends_all(
    trouble: str, status: str, said: str, engine: LocalEngine, tmp_path: Path
) -> None:
    before = set(children())
    with pytest.raises(StageError, match=said) as caught:
        engine.time_in_turns(turned(tmp_path, trouble=trouble), tmp_path / "a.log")
    assert caught.value.status == status
    assert set(children()) <= before


def test_one_that_hangs_at_its_turn_is_stopped(engine: LocalEngine, tmp_path: Path) -> None:
    before = set(children())
    with pytest.raises(StageError, match="time ran past 6 s and was stopped") as caught:
        engine.time_in_turns(turned(tmp_path, trouble="hang at a turn"), tmp_path / "a.log", 2)
    assert caught.value.status == "timeout"
    assert set(children()) <= before


def test_turns_are_kept_by_what_was_timed(tmp_path: Path) -> None:
    one = TimeJob(graph="a", provider="cpu", prompt_tokens=8, new_tokens=4, machine="m", model_dir=tmp_path / "x")
    moved = one.model_copy(update={"model_dir": tmp_path / "y"})
    other = one.model_copy(update={"since": "2026-01-01T00:00:00Z"})
    assert TurnsJob(graphs=(one, one)).key == TurnsJob(graphs=(one, moved)).key
    assert len({TurnsJob(graphs=graphs).key for graphs in ((one, one), (one, other), (one, one, one))}) == 3


def test_what_a_stage_writes_is_in_its_folder(engine: LocalEngine, tmp_path: Path) -> None:
    stages = Stages(Cache(tmp_path / "cache"), engine, lambda: tmp_path / "a.log")
    stored = stages(TroubleJob(what="file"))
    assert (stored.path / "file.txt").read_text(encoding="utf-8") == "content"
    assert stages.find(TroubleJob(what="file")) is not None
    assert stages.find(TroubleJob(what="sleep")) is None


def test_all_that_is_printed_goes_to_the_log(run: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run(TroubleJob(what="print"))
    run(TroubleJob())
    log = log_of(tmp_path)
    for text in ("printed by Python", "written to fd 1", "written to fd 2", "printed by a child"):
        assert log.count(text) == 1
    assert log.count("--- trouble {") == 2  # each job says what it is
    assert '"what": "print"' in log
    out, err = capfd.readouterr()
    assert "printed" not in out + err
    assert "written" not in out + err


@pytest.mark.parametrize(
    "job",
    [
        TinyJob(seed=3),
        TroubleJob(what="print", signal=9),
        BuildJob(source="s", recipe=Recipe(precision="int8"), provider="cpu", source_dir=Path("a") / "b"),
        FinetuneJob(
            base="b", data="d", seed=1, device="cpu", base_dir=Path("a"), data_file=Path("c"), time_limit_s=3.5,
            lora=Lora(
                r=8, alpha=16.0, dropout=0.0, target_modules=("k", "q"), learning_rate=1e-3, schedule="linear",
                warmup=0.1, batch_size=8, accumulation=1, gradient_checkpointing=False, max_grad_norm=1.0,
                adam_beta1=0.9, adam_beta2=0.999, weight_decay=0.0, dtype="auto", max_length=256, steps=30,
            ),
        ),
    ],
)  # fmt: skip
def test_a_job_travels_whole(job: Job) -> None:
    again = from_plain(to_plain(job))
    assert again == job
    assert type(again) is type(job)
    assert again.key == job.key


# --- trouble ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "status", "says"),
    [
        ("stage error", "diverged", "the loss became nan"),
        ("error", "failed", r"trouble: KeyError: 'a line\nand another'"),
        ("error without words", "failed", "trouble: ValueError"),
        ("memory", "out_of_memory", "trouble ran out of memory: MemoryError"),
        ("gpu memory", "out_of_memory", "trouble ran out of memory: CUDA out of memory. Tried to allocate 2 GiB"),
        ("exit", "failed", "trouble: SystemExit: 2"),
        ("exit at once", "lost", "trouble: the process ended with exit code 3"),
    ],
)
def test_what_goes_wrong_in_a_stage_is_its_status(run: Run, tmp_path: Path, what: str, status: str, says: str) -> None:
    with pytest.raises(StageError) as error:
        run(TroubleJob(what=what))
    assert (error.value.status, str(error.value)) == (status, says)
    if what != "exit at once":
        assert "Traceback (most recent call last)" in log_of(tmp_path)
        assert "stages_for_tests.py" in log_of(tmp_path)
    assert run(TroubleJob())[0]["pid"]


@pytest.mark.parametrize("what", ["disk", "disk said by a library"])
def test_a_full_disk_is_the_machines_trouble(run: Run, what: str) -> None:
    with pytest.raises(MachineError, match=r"trouble: the disk is full .*; free some space"):
        run(TroubleJob(what=what))


def test_a_fresh_process_that_says_nothing_is_lost(engine: LocalEngine, tmp_path: Path) -> None:
    with pytest.raises(StageError, match="ended with exit code 0") as error:
        engine.run_fresh(TroubleJob(what="exit at once, well"), tmp_path / "a.log")
    assert error.value.status == "lost"


def test_lesson_3_a_failure_is_not_cached(engine: LocalEngine, tmp_path: Path) -> None:
    stages = Stages(Cache(tmp_path / "cache"), engine, lambda: tmp_path / "a.log")
    for _ in range(2):
        with pytest.raises(StageError, match="the loss became nan"):
            stages(TroubleJob(what="stage error"))
    assert stages.find(TroubleJob(what="stage error")) is None
    assert [path.suffix for path in (tmp_path / "cache" / "trouble").glob("*/")] == [
        ".use"
    ]  # it is held, and not there


def test_a_stage_that_runs_past_its_time_is_stopped(run: Run, tmp_path: Path) -> None:
    run(TroubleJob())
    file = tmp_path / "pid"
    timed_out(run, "sleep", file)
    assert gone([wait_for(file)])
    assert run(TroubleJob(), HANG_S)[0]["pid"]


class EnoughError(Exception):
    """Somebody wants the sweep to end."""


def test_what_a_check_raises_ends_the_wait_for_a_worker(tmp_path: Path) -> None:
    asked = threading.Event()

    def check() -> None:
        if asked.is_set():
            raise EnoughError

    with LocalEngine(check=check) as engine:
        with engine.pool.worker(TroubleJob()):
            threading.Timer(0.2, asked.set).start()
            with pytest.raises(EnoughError):
                engine.run(TroubleJob(), tmp_path, tmp_path / "a.log")
        with pytest.raises(EnoughError):  # a stage that has a worker does not begin either
            engine.run(TroubleJob(), tmp_path, tmp_path / "a.log")


def test_processes_of_a_timing_are_begun_only_while_nobody_wants_the_end(tmp_path: Path) -> None:
    checked: list[float] = []
    job = QuickTimeJob(
        graph="g", provider="cpu", prompt_tokens=8, new_tokens=4, machine="m", processes=2, most=2, model_dir=tmp_path
    )
    with LocalEngine(check=lambda: checked.append(time.monotonic())) as engine:
        engine.time(job, tmp_path / "a.log")
        assert len(checked) == 2
        checked.clear()
        engine.time_in_turns(turned(tmp_path), tmp_path / "a.log")
        assert len(checked) >= 3


@posix
def test_a_stage_that_does_not_listen_is_killed(engine: LocalEngine, tmp_path: Path) -> None:
    file = tmp_path / "pid"
    timed_out(lambda job, limit: engine.run(job, tmp_path, tmp_path / "a.log", limit), "sleep without ears", file)
    assert gone([wait_for(file)])


@posix
@pytest.mark.parametrize(
    ("number", "status", "says"),
    [
        ("SIGSEGV", "failed", r"trouble: the process crashed \(SIGSEGV\)"),
        ("SIGABRT", "failed", r"trouble: the process crashed \(SIGABRT\)"),
        ("SIGKILL", "lost", r"trouble: the process was ended from outside \(SIGKILL\)"),
        ("SIGTERM", "lost", "trouble: the process (was )?ended"),
    ],
)
def test_lesson_12_a_crash_costs_one_candidate(run: Run, number: str, status: str, says: str) -> None:
    with pytest.raises(StageError, match=says) as error:
        run(TroubleJob(what="signal", signal=int(getattr(signal, number))))
    assert error.value.status == status
    assert run(TroubleJob())[0]["pid"]


@posix
def test_a_worker_that_dies_between_two_jobs_is_replaced(engine: LocalEngine, tmp_path: Path) -> None:
    """A system short of memory takes the largest process, busy or not."""
    log = tmp_path / "a.log"
    for pause in (0.0, 1.0):
        first = engine.run(TroubleJob(), tmp_path, log)[0]["pid"]
        os.kill(first, signal.SIGKILL)
        assert gone([first])
        time.sleep(pause)
        try:
            second = engine.run(TroubleJob(), tmp_path, log)[0]["pid"]
        except StageError as error:  # it was not known yet that the worker had gone: the search tries again
            assert error.status == "lost"  # noqa: PT017
            second = engine.run(TroubleJob(), tmp_path, log)[0]["pid"]
        assert second != first


@posix
@pytest.mark.parametrize("kind", ["warm", "fresh"])
def test_ctrl_c_while_a_worker_starts_does_not_end_it(kind: str, tmp_path: Path) -> None:
    """A terminal sends Ctrl-C to all of its processes, also to one that still imports its modules; at its end it sends SIGHUP."""
    sent, ended = set[int](), threading.Event()
    numbers = [signal.SIGINT, signal.SIGHUP] if kind == "warm" else [signal.SIGINT]

    def interrupt() -> None:
        while not ended.is_set():
            for pid in children():
                for number in numbers:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, number)
                sent.add(pid)
            time.sleep(0.002)

    thread, log, job = threading.Thread(target=interrupt), tmp_path / "log", TroubleJob()
    thread.start()
    try:
        with LocalEngine() as own:
            result = (own.run(job, tmp_path, log) if kind == "warm" else own.run_fresh(job, log))[0]
    finally:
        ended.set()
        thread.join()
    assert sent
    assert result["pid"] in sent
    assert "KeyboardInterrupt" not in log.read_text(encoding="utf-8")


def test_exit_codes_have_a_meaning() -> None:
    segv = int(signal.SIGSEGV)
    assert (died(-segv, "x").status, str(died(-segv, "x"))) == ("failed", "x: the process crashed (SIGSEGV)")
    assert str(died(-60, "x")) == "x: the process crashed (signal 60)"
    assert died(1, "x").status == "lost"
    assert (died(-9, "x").status, died(-9, "x", oom_kills=1).status) == ("lost", "out_of_memory")
    assert str(died(0xC0000005, "x")) == "x: the process crashed (status 0xc0000005)"  # access violation on Windows
    assert died(0xC0000005, "x").status == "failed"


# --- no process is left ----------------------------------------------------------------------------------------------


def test_no_process_is_left_when_the_engine_ends(engine: LocalEngine, tmp_path: Path) -> None:
    engine.run(TroubleJob(), tmp_path, tmp_path / "a.log")  # the other tests' worker is up, and stays
    before = set(children())
    with LocalEngine() as own:
        pids = [own.run(TroubleJob(), tmp_path, tmp_path / "a.log")[0]["pid"]]
        pids.append(own.run_fresh(TroubleJob(), tmp_path / "a.log")[0]["pid"])
        assert set(children()) - before
        with pytest.raises(StageError):
            own.run(TroubleJob(what="sleep"), tmp_path, tmp_path / "a.log", 0.5)
    assert gone(pids)
    assert set(children()) <= before


SCRIPT = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background inherits that it is ignored
from pathlib import Path
from stages_for_tests import TroubleJob
from autotune.execution.local import LocalEngine

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    with LocalEngine() as engine:
        if sys.argv[2] == "warm":
            engine.run(TroubleJob(what="sleep", pid_file=str(folder / "pid")), folder, folder / "a.log", 500)
        else:
            engine.run_fresh(TroubleJob(what="sleep", pid_file=str(folder / "pid")), folder / "a.log", 500)
"""


@posix
@pytest.mark.parametrize("kind", ["warm", "fresh"])
@pytest.mark.parametrize("end", ["SIGKILL", "SIGINT"])
def test_no_worker_outlives_the_tuner(tmp_path: Path, kind: str, end: str) -> None:
    """Killed, it can tidy nothing: the workers look for it. Ctrl-C reaches them all: the tuner alone answers."""
    script = tmp_path / "tuner.py"
    script.write_text(textwrap.dedent(SCRIPT), encoding="utf-8")
    with (tmp_path / "tuner.log").open("wb") as stream:
        tuner = subprocess.Popen(
            [sys.executable, str(script), str(tmp_path), kind], stdout=stream, stderr=stream, start_new_session=True
        )
        worker = wait_for(tmp_path / "pid")
        below = [process.pid for process in psutil.Process(tuner.pid).children(recursive=True)]
        assert worker in below
        if end == "SIGKILL":
            tuner.kill()
        else:
            os.killpg(tuner.pid, signal.SIGINT)
        code = tuner.wait(HANG_S)
    assert gone(below)
    log = (tmp_path / "tuner.log").read_text(encoding="utf-8")
    assert code == (-signal.SIGKILL if end == "SIGKILL" else -signal.SIGINT), log
    if end == "SIGINT":
        assert log.count("KeyboardInterrupt") == 1, log
