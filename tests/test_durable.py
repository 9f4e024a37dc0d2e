"""Files are whole and on the disk before they have their name."""

from __future__ import annotations

import errno
import os
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from autotune import durable
from autotune.durable import put, remove_asides, remove_tree, sync_file, sync_tree, write_aside


@pytest.fixture
def acts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is done to the disk, in order."""
    done: list[str] = []
    fsync, replace = os.fsync, os.replace

    def synced(number: int) -> None:
        done.append("fsync folder" if os.path.isdir(f"/proc/self/fd/{number}") else "fsync file")  # noqa: PTH112
        fsync(number)

    def replaced(aside: Any, place: Any) -> None:
        done.append("rename")
        replace(aside, place)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    return done


@pytest.mark.skipif(sys.platform != "linux", reason="/proc says what a descriptor is")
def test_a_file_is_flushed_before_it_is_renamed_and_its_name_after(tmp_path: Path, acts: list[str]) -> None:
    write_aside(tmp_path / "f", "text")
    assert acts == ["fsync file", "rename", "fsync folder"]
    acts.clear()
    write_aside(tmp_path / "f", "other", sync=False)
    assert acts == ["rename"]
    assert (tmp_path / "f").read_bytes() == b"other"


@pytest.mark.skipif(sys.platform != "linux", reason="/proc says what a descriptor is")
def test_a_tree_is_flushed_with_all_its_folders(tmp_path: Path, acts: list[str]) -> None:
    (tmp_path / "sub" / "empty").mkdir(parents=True)
    for name in ("a", "sub/b"):
        (tmp_path / name).write_text(name, encoding="utf-8")
    sync_tree(tmp_path)
    assert sorted(acts) == ["fsync file"] * 2 + ["fsync folder"] * 3


@pytest.mark.parametrize("at", ["fsync", "replace"])
def test_where_it_fails_the_old_file_stays_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    file = tmp_path / "file.json"
    write_aside(file, "old")

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, at, full)
        with pytest.raises(OSError, match="No space") as raised:
            write_aside(file, "new text")
    assert Path(raised.value.filename).name.startswith("file.json")
    assert file.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_many_writers_of_one_file_leave_one_of_their_texts(tmp_path: Path) -> None:
    file, together = tmp_path / "f", threading.Barrier(8)

    def write(text: str) -> None:
        together.wait()
        for _ in range(5):
            write_aside(file, text, sync=False)

    threads = [threading.Thread(target=write, args=[str(n) * 10_000]) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    text = file.read_text(encoding="utf-8")
    assert len(text) == 10_000
    assert len(set(text)) == 1
    assert list(tmp_path.iterdir()) == [file]


def test_windows_waits_for_a_reader_to_close_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace, tries = os.replace, list[int]()

    def held(aside: Any, place: Any) -> None:
        tries.append(1)
        if len(tries) < 3:
            raise PermissionError(errno.EACCES, "in use")
        replace(aside, place)

    monkeypatch.setattr(os, "replace", held)
    with pytest.raises(PermissionError):  # on POSIX it is no reader that forbids it
        put(tmp_path / "none", tmp_path / "place")
    assert len(tries) == 1
    tries.clear()
    (tmp_path / "aside").write_text("text", encoding="utf-8")
    monkeypatch.setattr(durable.sys, "platform", "win32")
    put(tmp_path / "aside", tmp_path / "place", sync=False)
    assert len(tries) == 3
    monkeypatch.setattr(durable, "_BUSY_S", 0.0)
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(PermissionError(errno.EACCES, "in use")))
    with pytest.raises(PermissionError):
        put(tmp_path / "place", tmp_path / "other", sync=False)


def test_a_folder_that_cannot_be_flushed_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows opens no folders, and some network drives flush none."""
    real = os.open

    def refused(path: Any, *more: Any) -> int:
        if Path(path).is_dir():
            raise PermissionError(errno.EACCES, "a folder")
        return real(path, *more)

    monkeypatch.setattr(os, "open", refused)
    write_aside(tmp_path / "f", "text")
    sync_tree(tmp_path)
    with pytest.raises(OSError, match="No such file"):  # but a file must be
        sync_file(tmp_path / "none")


def test_a_removed_tree_is_never_half_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "file").touch()
    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            remove_tree(folder)
    assert not folder.exists()
    (left,) = tmp_path.iterdir()
    assert left.name.endswith(".gone")
    remove_tree(folder)  # it is gone already
    folder.mkdir()
    remove_tree(folder)
    assert list(tmp_path.iterdir()) == [left]


def test_what_a_killed_process_was_writing_is_removed(tmp_path: Path) -> None:
    (tmp_path / "kept.csv").touch()
    (tmp_path / "f.json.0123456789ab.new").touch()
    (tmp_path / "f.json.1234.new").touch()  # of earlier versions
    (tmp_path / "folder.new").mkdir()
    remove_asides([tmp_path, tmp_path / "none"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.new", "kept.csv"]
