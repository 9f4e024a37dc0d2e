"""A run never replaces what others have put into a folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes import make_sweep

from autotune.errors import UsageError
from autotune.results.claim import check_folder
from autotune.results.record import Record
from autotune.sweepfile.syntax import to_yaml


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("sweep.yaml", "# mine\nname: other\nmodel: m\n"),
        ("sweep.yaml", "- no\n- mapping\n"),
        ("sweep.yaml", "{ broken"),
        ("results.csv", "name,votes\nann,3\n"),
        ("results.csv", "\x00\x01"),
        ("best/notes.txt", "mine"),
        ("machine.json", "{}"),
        ("inputs.json", "{}"),
        ("outcomes/a.json", "{}"),
        ("front.csv", "a,b\n"),
        ("runs.csv", "distance,time\n"),
    ],
)
def test_what_others_have_written_stays(tmp_path: Path, name: str, text: str) -> None:
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError) as refused:
        Record(tmp_path, make_sweep())
    assert "choose another --out" in str(refused.value)
    assert name.partition("/")[0] in str(refused.value)
    assert file.read_text(encoding="utf-8") == text
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [file]


def test_the_sweep_file_itself_is_not_replaced_by_the_resolved_one(tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text("# what I found out\n" + to_yaml(make_sweep().resolved()), encoding="utf-8")
    with pytest.raises(UsageError, match="holds the sweep file itself"):
        check_folder(tmp_path, str(file))


def test_other_files_and_what_a_killed_run_has_left_are_no_hindrance(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    check_folder(tmp_path, "sweep.yaml")
    (tmp_path / "sweep.yaml").write_text(to_yaml(make_sweep().resolved()), encoding="utf-8")
    check_folder(tmp_path, "sweep.yaml")
    (tmp_path / "sweep.yaml").unlink()
    (tmp_path / "results.csv").touch()  # made, and not yet written
    check_folder(tmp_path, "sweep.yaml")
    with Record(tmp_path, make_sweep()):
        pass
    (tmp_path / "sweep.yaml").write_text("# edited\n", encoding="utf-8")
    check_folder(tmp_path, str(tmp_path / "sweep.yaml"))  # the table says that it is ours


def test_a_run_whose_folder_was_taken_away_is_run_again(tmp_path: Path) -> None:
    """At its end it writes how it ended, and its folder is there again with this table alone."""
    with Record(tmp_path / "out", make_sweep()) as record:
        (tmp_path / "out").rename(tmp_path / "away")
        (tmp_path / "out").mkdir()
        record.close()
    assert (tmp_path / "out" / "runs.csv").is_file()
    with Record(tmp_path / "out", make_sweep()):
        pass
