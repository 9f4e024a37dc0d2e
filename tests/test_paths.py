"""What cannot be a path is not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from autotune.artifacts.store import default_root
from autotune.cli import main
from autotune.errors import Exit
from autotune.paths import exists, folder_named_by, is_file, is_folder


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


@pytest.mark.parametrize(
    ("named", "told"),
    [
        ("$HOME/cache", "variables within it are not filled in"),
        ("%TEMP%\\cache", "variables within it are not filled in"),
        ('"/tmp/cache"', "the quotes are part of the name"),
        ("/tmp/a\nb", "it holds a control character"),
        ("a" * 300, "File name too long"),
        ("file", "there is a file of that name"),
    ],
)
def test_a_cache_that_no_folder_can_be_is_refused(
    named: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    monkeypatch.setenv("AUTOTUNE_CACHE", named)
    if named.startswith("a") and exists(Path("a" * 300)):
        pytest.skip("this system takes such a name")
    code = main(["cache"])
    said = capsys.readouterr().err
    assert code == Exit.USAGE
    assert "AUTOTUNE_CACHE: must be the path of a folder" in said
    assert told in said or "too long" in told
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("named", ["", "  ", "\t"])
def test_a_cache_that_is_not_named_is_the_users_own(named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOTUNE_CACHE", named)
    blank = default_root()
    monkeypatch.delenv("AUTOTUNE_CACHE")
    assert blank == default_root()
    assert folder_named_by("AUTOTUNE_CACHE") is None
