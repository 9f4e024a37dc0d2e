"""What cannot be a path is not there."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import pytest

from autotune.artifacts.store import default_root
from autotune.cli import main
from autotune.errors import Exit
from autotune.paths import exists, folder_named_by, is_file, is_folder, typed_path


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


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home folder, and another one where commands run."""
    here, home = tmp_path / "here", tmp_path / "home"
    for folder in (here, home):
        folder.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    return home


def test_the_home_folder_is_filled_in_where_the_shell_left_it(home: Path) -> None:
    assert typed_path("~/results/x") == home / "results" / "x"
    assert typed_path("~") == home
    Path("~lock").touch()
    assert typed_path("~lock") == Path("~lock"), "a file of an editor"


@pytest.mark.parametrize(
    "name", ["a b", "größe", "結果", "🎵", "-x", "it's", "50%", "a$", "x" * 200, "../up", "a/", ".", "C:"]
)
def test_a_path_stays_as_it_was_typed(home: Path, name: str) -> None:
    assert typed_path(name) == Path(name)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "it is empty"),
        ("  ", "it is empty"),
        ("$OUT/x", r"the variable \$OUT was not filled in"),
        ("results/${NAME}", r"the variable \$\{NAME\} was not filled in"),
        ("%TEMP%/x", "the variable %TEMP% was not filled in"),
        ("a\tb", "it holds a control character"),
        ("'x'", "the quotes are part of the name"),
        ("~nobody-at-all/x", "the home folder ~nobody-at-all is not known"),
    ],
)
def test_what_the_shell_was_meant_to_fill_in_names_no_folder(home: Path, text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        typed_path(text)


@pytest.mark.skipif(sys.platform == "win32", reason="there a backslash separates folders")
@pytest.mark.parametrize(
    ("text", "told"), [(r"results\x", "write results/x"), (r"C:\me\x", "write one of this system")]
)
def test_a_path_of_windows_names_no_folder_elsewhere(home: Path, text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        typed_path(text)


@pytest.mark.skipif(sys.platform == "win32", reason="no such names there")
@pytest.mark.parametrize("name", ["$HOME", r"a\b", '"x"', "%A%"])
def test_what_is_really_called_so_is_meant(home: Path, name: str) -> None:
    Path(name).mkdir()
    assert typed_path(name) == Path(name)


@pytest.mark.parametrize("option", ["--out=~/r", "--out=", "--out=$OUT/r", "--out='r'"])
def test_no_odd_folder_is_made_by_a_run(home: Path, option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with contextlib.suppress(SystemExit):
        main(["run", "no-such.yaml", option])
    assert list(Path().iterdir()) == []
    assert "Traceback" not in capsys.readouterr().err
