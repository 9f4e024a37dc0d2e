"""What cannot be a path is not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from autotune.paths import exists, is_file, is_folder


@pytest.mark.parametrize("name", ["gone", "a" * 5000, "../" * 5000, "\0", "\ud800"])
def test_what_cannot_be_a_path_is_not_there(name: str) -> None:
    assert not is_file(Path(name))
    assert not is_folder(Path(name))
    assert not exists(Path(name))


def test_what_is_there_is_there(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    assert (is_file(file), is_folder(file), exists(file)) == (True, False, True)
    assert (is_file(tmp_path), is_folder(tmp_path), exists(tmp_path)) == (False, True, True)
