"""OpenMP's threads sleep while they wait where other programs need the cores, and compute the same."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from stages_for_tests import TroubleJob

from autotune.execution.local import LocalEngine
from autotune.execution.openmp_waiting import IDLE_TEAM, USER_SETTINGS, OpenMPWaiting
from autotune.machine import own_processors
from autotune.stages.preparation_jobs import TinyJob

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="GNU's OpenMP, which PyTorch has on Linux")
CORES = len(own_processors())
Load = tuple[float, float]

WAITING = """
import json, time
import torch
from autotune.execution.openmp_waiting import IdleTeam, OpenMPWaiting
torch.set_num_threads(2)
torch.manual_seed(0)
x = torch.randn(300, 300)

def waited():
    "The processor seconds of the second thread, while the first does something else for a second, and what they computed."
    y = (x @ x).tanh().sum().item()
    before = time.process_time()
    time.sleep(1.0)
    return time.process_time() - before, y

waiting = OpenMPWaiting()
waiting.set_for(foreign=1.0, busy=1e9)
not_adjusted = waiting.asleep
found = [waited()]
for _ in range(3):
    team = IdleTeam.start(100)
    found.append(waited())
    team.end()
    found.append(waited())
print(json.dumps([not_adjusted, found]))
"""


def test_threads_beside_an_idle_team_sleep_and_compute_the_same() -> None:
    """The user's word that threads never sleep makes the difference large; it also keeps them from being adjusted."""
    environment = dict(os.environ) | {"OMP_WAIT_POLICY": "ACTIVE"}
    printed = subprocess.check_output([sys.executable, "-c", WAITING], text=True, env=environment)
    adjusted, found = json.loads(printed)
    assert not adjusted
    awake, asleep = [seconds for seconds, _ in found[::2]], [seconds for seconds, _ in found[1::2]]
    assert min(awake) > 3 * max(asleep)
    assert len({value for _, value in found}) == 1


@pytest.fixture
def no_user_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in USER_SETTINGS:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(("system", "setting"), [("linux", USER_SETTINGS[0]), ("win32", ""), ("darwin", "")])
@pytest.mark.usefixtures("no_user_settings")
def test_where_nothing_is_adjusted_the_load_is_not_looked_at(
    monkeypatch: pytest.MonkeyPatch, system: str, setting: str
) -> None:
    """The thread that looks twice a second also ends a worker whose tuner has ended."""
    monkeypatch.setattr(sys, "platform", system)
    if setting:
        monkeypatch.setenv(setting, "ACTIVE")

    def looked() -> tuple[float, float, float]:
        raise AssertionError("the load was looked at")

    waiting = OpenMPWaiting(looked)
    waiting.adjust()
    assert not waiting.asleep


@pytest.mark.usefixtures("no_user_settings")
@pytest.mark.parametrize(
    ("loads", "asleep"),
    [
        ([(0.0, CORES)], [False]),  # it alone fills the machine
        ([(1.0, CORES)], [True]),
        ([(0.1, CORES)], [False]),
        ([(1.0, CORES * 0.5)], [False]),  # there are cores left
        ([(1.0, CORES), (0.5, CORES * 0.5), (0.0, CORES)], [True, True, False]),
        ([(1.0, CORES), (0.0, 0.0), (1.0, CORES)], [True, False, True]),
    ],
)
def test_the_load_decides(loads: list[Load], asleep: list[bool]) -> None:
    import torch  # noqa: F401 - brings the library

    moments = _moments(loads)
    waiting = OpenMPWaiting(lambda: next(moments))
    found = []
    for _ in loads:
        waiting.adjust()
        found.append(waiting.asleep)
    waiting.set_for(foreign=0.0, busy=0.0)
    assert found == asleep
    assert not waiting.asleep


def _moments(loads: list[Load]) -> Iterator[tuple[float, float, float]]:
    """Yield the times and processor seconds of a machine with these loads (cores of others, of all), 0.5 s each."""
    now, busy, own = 100.0, 5000.0, 10.0
    yield now, busy, own
    for foreign, together in loads:
        now, busy, own = now + 0.5, busy + 0.5 * together, own + 0.5 * (together - foreign)
        yield now, busy, own


@pytest.mark.usefixtures("no_user_settings")
def test_a_worker_beside_busy_programs_adjusts(tmp_path: Path) -> None:
    """Asked until it is so: how soon the system gives others the cores is not ours."""
    busy: list[subprocess.Popen[bytes]] = []
    with LocalEngine() as engine:
        engine.run(TinyJob(), tmp_path / "tiny", tmp_path / "logs" / "a.log")  # PyTorch is loaded now
        try:
            busy += [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(CORES)]
            end = time.monotonic() + 300
            threads: list[str] = []
            while IDLE_TEAM not in threads:
                assert time.monotonic() < end, threads
                out = tmp_path / str(time.monotonic_ns())
                threads = engine.run(TroubleJob(), out, tmp_path / "logs" / "b.log")[0]["threads"]
        finally:
            for process in busy:
                process.kill()
                process.wait()
