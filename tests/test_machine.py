"""What a process may use of its machine: control groups and affinity, as containers and batch systems set them."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from autotune import control_groups, machine

GB = 1e9


class Groups:
    """Control groups in files, as Linux shows them."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        self.root, self.membership = root / "cgroup", root / "membership"
        patch.setattr(control_groups, "ROOT", self.root)
        patch.setattr(control_groups, "MEMBERSHIP", self.membership)

    def member(self, *lines: str) -> None:
        self.membership.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")

    def write(self, folder: str, **values: str) -> None:
        place = self.root / folder
        place.mkdir(parents=True, exist_ok=True)
        for name, value in values.items():
            (place / name.replace("__", ".", 1)).write_text(f"{value}\n", encoding="utf-8")


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Groups:
    return Groups(tmp_path, monkeypatch)


def found() -> tuple[float, float, float]:
    return control_groups.cpu_quota(), control_groups.memory_limit(), control_groups.memory_left()


NONE = (math.inf, math.inf, math.inf)


def test_without_groups_there_is_no_limit(groups: Groups) -> None:
    assert found() == NONE  # no file at all, as on Windows and macOS
    groups.member("0::/")
    assert found() == NONE
    groups.write(".", cpu__max="max 100000", memory__max="max", memory__current="5")
    assert found() == NONE
    groups.write(".", cpu__max="", memory__max="nonsense")
    assert found() == NONE


def test_a_container_sees_its_group_as_the_top(groups: Groups) -> None:
    groups.member("0::/")
    groups.write(".", cpu__max="150000 100000", memory__max="4000000000", memory__current="3000000000")
    groups.write(".", memory__stat="anon 5\ninactive_file 500000000\nslab 7", memory__events="low 0\noom_kill 2")
    assert found() == (1.5, 4 * GB, 1.5 * GB)
    assert control_groups.oom_kills() == 2


def test_the_lowest_of_a_group_and_its_ancestors_counts(groups: Groups) -> None:
    """As Slurm and systemd nest them: the job has the limit, and the step inside it has none."""
    groups.member("0::/system.slice/job_7/step_0")
    groups.write("system.slice", cpu__max="max 100000", memory__max="64000000000", memory__current="63500000000")
    groups.write("system.slice/job_7", cpu__max="400000 100000", memory__max="8000000000", memory__current="1000000000")
    groups.write("system.slice/job_7/step_0", cpu__max="max 100000", memory__max="max")
    assert found() == (4.0, 8 * GB, 0.5 * GB)


def test_groups_of_version_1(groups: Groups) -> None:
    groups.member("7:memory:/docker/ab", "4:cpu,cpuacct:/docker/ab", "3:cpuset:/docker/ab", "1:name=systemd:/x:y")
    groups.write("cpu,cpuacct/docker/ab", cpu__cfs_quota_us="300000", cpu__cfs_period_us="100000")
    groups.write("cpu,cpuacct", cpu__cfs_quota_us="-1", cpu__cfs_period_us="100000")
    groups.write("memory", memory__limit_in_bytes="9223372036854771712", memory__usage_in_bytes="9")
    groups.write("memory/docker/ab", memory__limit_in_bytes="2000000000", memory__usage_in_bytes="1900000000")
    groups.write("memory/docker/ab", memory__stat="inactive_file 1\ntotal_inactive_file 600000000")
    assert found() == (3.0, 2 * GB, 0.7 * GB)


def test_a_group_outside_of_what_is_seen_is_left_out(groups: Groups) -> None:
    groups.member("0::/../../other")
    groups.write(".", cpu__max="100000 100000")
    assert found() == NONE


def test_the_name_of_a_group_may_be_no_text(groups: Groups) -> None:
    groups.membership.write_bytes(b"0::/caf\xe9/job\n")
    groups.write(".", cpu__max="200000 100000")
    assert control_groups.cpu_quota() == 2.0


STAT = "cpu  9 9 9 9 9 9 9 9 9 9\ncpu0 100 20 0 7000 60 0 0 0 50 0\ncpu2 1000 0 0 9 0 0 0 0 0 0\nintr 5\n"
"""Two processors of which the second threads are switched off, in hundredths of a second; the last two numbers are guests'."""


@pytest.mark.skipif(sys.platform != "linux", reason="the processors that Linux lists")
@pytest.mark.parametrize(("own", "hundredths"), [([0, 2], 1120), ([2], 1000), ([0], 120), ([12, 13], 1120)])
def test_the_processors_of_this_process_count_by_their_numbers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, own: list[int], hundredths: int
) -> None:
    """Linux does not list those that are switched off; LXC lists those of a container from 0 on, whatever they are."""
    (tmp_path / "stat").write_text(STAT, encoding="utf-8")
    monkeypatch.setattr(psutil, "PROCFS_PATH", str(tmp_path))
    monkeypatch.setattr(machine, "own_processors", lambda: own)
    assert machine.busy_s() == pytest.approx(hundredths / os.sysconf("SC_CLK_TCK"))


@pytest.mark.parametrize(("quota", "usable"), [("50000", 1), ("100000", 1), ("190000", 1), ("max", None)])
def test_a_quota_bounds_the_processors(groups: Groups, quota: str, usable: int | None) -> None:
    groups.member("0::/")
    groups.write(".", cpu__max=f"{quota} 100000", memory__max="1000000000", memory__current="400000000")
    everything = len(machine.own_processors())
    assert machine.usable_processors() == (usable or everything)
    expected = usable if usable is not None and usable < (psutil.cpu_count() or 1) else None
    assert machine.hardware().get("usable") == expected
    assert (machine.total_memory_mb(), machine.free_memory_mb()) == (1000, 600)


PINNED = """
import json, os
os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
from autotune.execution.workers import slots
from autotune import machine
import torch
from autotune.stages import torch_model
before = machine.busy_s()
sum(i for i in range(10_000_000))
print(json.dumps([machine.usable_processors(), len(slots("auto", "auto", "cpu", 0)), torch_model._THREADS,
                  machine.hardware().get("usable"), machine.busy_s() > before]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the affinity of Linux")
def test_a_pinned_process_takes_only_its_processors() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    printed = subprocess.check_output([sys.executable, "-c", PINNED], text=True, env=environment)
    usable = 1 if (psutil.cpu_count() or 1) > 1 else None
    assert json.loads(printed) == [1, 1, 1, usable, True]
