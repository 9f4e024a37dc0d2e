"""Work folders: gone at the end, gone after a kill when somebody cleans up, and never taken from a living process."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from waiting import HANG_S

from autotune import cli
from autotune.artifacts.room import Room, tidy
from autotune.artifacts.store import Cache
from autotune.errors import Exit
from autotune.scratch import OWNER, PREFIX, Scratch, left, scratch
from benchmarks.rooms import imported, read_modules

WORKING = """
import sys
from autotune.scratch import scratch
with scratch("build") as folder:
    (folder / "model.onnx.data").write_bytes(bytes(2_000_000))
    print(folder.parent, flush=True)
    sys.stdin.readline()
"""
NAMESPACE = ("unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc")
Working = Callable[..., tuple[subprocess.Popen[str], Path]]


@pytest.fixture(autouse=True)
def temporary(own_temporary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this test's temporary folders lie."""
    monkeypatch.setenv("AUTOTUNE_CACHE", str(tmp_path / "cache"))
    return own_temporary


@pytest.fixture
def working() -> Iterator[Working]:
    """Start a process that has a work folder. Returns it, and the folder."""
    started: list[subprocess.Popen[str]] = []

    def start(*before: str) -> tuple[subprocess.Popen[str], Path]:
        process = subprocess.Popen(
            [*before, sys.executable, "-c", WORKING], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout is not None
        return process, Path(process.stdout.readline().strip())

    yield start
    for process in started:
        process.kill()
        process.communicate()


def folders(place: Path) -> list[Path]:
    return [path for path in place.iterdir() if path.is_dir()]


def test_a_work_folder_is_empty_and_goes_at_the_end(temporary: Path) -> None:
    with scratch("build") as folder:
        assert list(folder.iterdir()) == []
        assert folder.parent.name.startswith(f"{PREFIX}build-")
        (folder / "deep").mkdir()
        (folder / "deep" / "file").write_text("x", encoding="utf-8")
        assert left() == []
    with pytest.raises(KeyError), scratch("own"):
        raise KeyError
    kept = Scratch("job")
    thread = threading.Thread(target=kept.remove)
    thread.start()
    thread.join()
    kept.remove()
    forgotten = Scratch("job")
    assert len(folders(temporary)) == 1
    del forgotten
    gc.collect()
    assert folders(temporary) == []


def test_what_a_killed_process_left_is_found_and_what_a_living_one_uses_is_not(
    temporary: Path, working: Working
) -> None:
    killed, folder = working()
    living, other = working()
    assert left() == []
    killed.kill()
    killed.wait()
    assert left() == [folder]
    removed = tidy(Cache(temporary / "cache"), dry=True)
    assert [(item.what, item.size_mb > 1) for item in removed] == [(f"leftover temporary/{folder.name}", True)]
    assert folder.is_dir()
    assert cli.main(["cache", "prune"]) == Exit.OK
    assert folders(temporary) == [other]
    assert (other / "work" / "model.onnx.data").stat().st_size == 2_000_000
    living.kill()
    living.wait()
    Room(Cache(temporary / "cache"), None).clear()  # what a run of the command does before it trains
    assert folders(temporary) == []


@pytest.mark.skipif(
    shutil.which("unshare") is None or subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode != 0,
    reason="unshare is not permitted",
)  # fmt: skip
def test_a_process_of_another_container_is_seen(working: Working) -> None:
    process, folder = working(*NAMESPACE)
    assert left() == []
    process.kill()
    process.wait()
    with FileLock(folder / OWNER, timeout=HANG_S):  # the end of the namespace takes a moment
        pass
    assert left() == [folder]


def test_folders_without_a_mark_and_those_of_others_stay(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("autotune-build-old", "autotune-", "other"):
        (temporary / name).mkdir()
    (temporary / "autotune-file").touch()
    strange = temporary / "autotune-build-strange"
    strange.mkdir()
    (strange / OWNER).touch()
    (temporary / "another").mkdir()
    (temporary / "another" / OWNER).touch()
    assert left() == [strange]
    if hasattr(os, "getuid"):
        own = os.getuid()
        monkeypatch.setattr(os, "getuid", lambda: own + 1)
        assert left() == []


def test_where_there_are_no_locks_a_folder_is_never_taken_for_left(monkeypatch: pytest.MonkeyPatch) -> None:
    acquire = FileLock.acquire

    def refuse(lock: FileLock, *given: object, **named: object) -> object:
        if str(lock.lock_file).endswith(OWNER):
            raise OSError(38, "Function not implemented")
        return acquire(lock, *given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(FileLock, "acquire", refuse)
    with scratch("build") as folder:
        assert not (folder.parent / OWNER).exists()
        monkeypatch.undo()
        tempfile.tempdir = str(folder.parent.parent)
        assert left() == []
    assert not folder.parent.exists()


CLEANING = """
import shutil, sys
from autotune.scratch import left
print("begun", flush=True)
while True:
    for place in left():
        shutil.rmtree(place)
        print(place, flush=True)
"""


def test_who_cleans_up_meanwhile_takes_no_folder_that_is_just_made() -> None:
    with subprocess.Popen([sys.executable, "-c", CLEANING], stdout=subprocess.PIPE, text=True) as cleaner:
        assert cleaner.stdout is not None
        cleaner.stdout.readline()
        try:
            for _ in range(300):
                with scratch("build") as folder:
                    (folder / "file").write_text("x", encoding="utf-8")
                    assert (folder.parent / OWNER).exists()
        finally:
            cleaner.kill()
        taken = cleaner.stdout.read().split()
    assert all(not Path(place).exists() for place in taken)  # at most one whose owner was just removing it


def test_all_temporary_folders_of_the_package_are_made_here() -> None:
    users = {name for name, tree in read_modules().items() if "tempfile" in imported(tree)}
    assert users == {"scratch"}
