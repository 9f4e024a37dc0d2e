"""Commands on the results of a real sweep, as people use and misuse them: copies that are cut, tables that a spreadsheet has saved,
places that hold something else. Each ends with the right code, a message that names the remedy, and nothing lost.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from conftest import TONES, Ran, TinySweep

from autotune.errors import Exit
from autotune.present.select import select
from autotune.results import outcomes
from autotune.results.folder import read_results

pytestmark = pytest.mark.usefixtures("keeps_workers", "lasting_pace")

Autotune = Callable[..., Ran]
Rows = list[list[str]]


@pytest.fixture
def copied(tiny_sweep: TinySweep, tmp_path: Path) -> Path:
    """A copy of the results, for tests that change them."""
    return Path(shutil.copytree(tiny_sweep.out, tmp_path / "copied"))


def rows_of(folder: Path) -> Rows:
    with (folder / "results.csv").open(encoding="utf-8-sig", newline="") as stream:
        return list(csv.reader(stream))


def save(folder: Path, rows: Rows, encoding: str = "utf-8-sig", delimiter: str = ",", end: str = "\r\n") -> None:
    """Save the table as a spreadsheet does."""
    with (folder / "results.csv").open("w", encoding=encoding, newline="") as stream:
        csv.writer(stream, delimiter=delimiter, lineterminator=end).writerows(rows)


def winner(done: Ran) -> str:
    assert "Traceback" not in done.err
    return done.out.split("Winner: ", 1)[1].split(" ", 1)[0]


# --- tables that a spreadsheet has saved ------------------------------------------------------------------------------

HARMLESS: dict[str, Callable[[Rows], Rows]] = {
    "a mark and other line ends": lambda rows: rows,
    "sorted": lambda rows: [rows[0], *rows[:0:-1]],
    "blank lines at the end": lambda rows: [*rows, *[[""] * len(rows[0])] * 3],
    "a blank line within": lambda rows: [rows[0], [""] * len(rows[0]), *rows[1:]],
    "a column of remarks": lambda rows: [[*row, "remark" if row is rows[0] else "look at this"] for row in rows],
    "capital truth values": lambda rows: [[{"true": "TRUE", "false": "FALSE"}.get(c, c) for c in row] for row in rows],
}


@pytest.mark.parametrize("how", HARMLESS)
def test_what_a_spreadsheet_does_without_harm_changes_nothing(
    how: str, tiny_sweep: TinySweep, copied: Path, autotune: Autotune
) -> None:
    save(copied, HARMLESS[how](rows_of(copied)))
    assert select(copied).doubts == ()
    assert winner(autotune("select", copied)) == winner(autotune("select", tiny_sweep.out))
    again = autotune("run", tiny_sweep.file, "--out", copied)
    assert again.code == Exit.OK, again.err
    assert winner(again) == winner(autotune("select", tiny_sweep.out))
    assert len(read_results(copied)) == len(read_results(tiny_sweep.out))
    assert autotune("report", copied).code == Exit.OK


def changed_setting(rows: Rows, column: str, value: str) -> Rows:
    place = rows[0].index(column)
    return [rows[0], *([*row[:place], value, *row[place + 1 :]] if row[place] else row for row in rows[1:])]


@pytest.mark.parametrize(
    ("column", "value"),
    [("lora_adam_beta2", "1"), ("lora_learning_rate", "0"), ("lora_r", "4"), ("build_precision", "int8")],
)
def test_settings_that_were_changed_are_not_taken_for_the_candidates(
    column: str, value: str, tiny_sweep: TinySweep, copied: Path, autotune: Autotune, tmp_path: Path
) -> None:
    save(copied, changed_setting(rows_of(copied), column, value))
    for words in (("run", tiny_sweep.file, "--out", copied), ("export", copied, "--to", tmp_path / "x")):
        done = autotune(*words)
        assert (done.code, "others than those that it was named by" in done.err) == (Exit.USAGE, True), done.err
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: [[*row, "", ""] for row in rows], "has columns without a name"),
        (lambda rows: [["my sweep"], *rows], "has no column 'candidate'"),
    ],
)
def test_what_a_spreadsheet_has_spoilt_is_said(
    change: Callable[[Rows], Rows], said: str, copied: Path, autotune: Autotune
) -> None:
    save(copied, change(rows_of(copied)))
    done = autotune("select", copied)
    assert (done.code, said in done.err) == (Exit.USAGE, True), done.err


def shifted(rows: Rows, column: str) -> Rows:
    """Sort one column alone, as a spreadsheet does where only that column is marked."""
    place = rows[0].index(column)
    cells = [row[place] for row in rows[1:]]
    turned = cells[1:] + cells[:1]
    return [rows[0], *([*row[:place], cell, *row[place + 1 :]] for row, cell in zip(rows[1:], turned, strict=True))]


def test_scores_that_are_not_those_of_the_items_are_told(
    tiny_sweep: TinySweep, copied: Path, autotune: Autotune
) -> None:
    before = rows_of(copied)
    table = before[0].index("accuracy")
    assert len({row[table] for row in before[1:]}) > 1
    said = "in results.csv is not that of its items"
    assert said not in autotune("select", copied).out
    save(copied, shifted(before, "accuracy"))
    for words in (("select", copied), ("status", copied), ("select", copied, "--json"), ("status", copied, "--json")):
        done = autotune(*words)
        assert (done.code, said in done.out) == (Exit.OK, True), done.out
    assert autotune("report", copied).code == Exit.OK
    assert said in (copied / "report.html").read_text(encoding="utf-8")
    data = tiny_sweep.file.parent / "test.jsonl"
    assert said in autotune("export", copied, "--to", "x", "--items", 0).err
    assert said in autotune("score", copied, "--data", data, "--no-base").err
    save(copied, shifted(before, "size_mb"))  # no items say what it was
    assert said not in autotune("select", copied).out


def test_settings_of_the_front_that_are_not_the_candidates_are_told(copied: Path, autotune: Autotune) -> None:
    said = "settings are not those that it was named by"
    assert said not in autotune("select", copied).out
    save(copied, changed_setting(rows_of(copied), "lora_r", "4"))
    for command in ("select", "status"):
        done = autotune(command, copied)
        assert (done.code, said in done.out) == (Exit.OK, True), done.out


# --- a sweep.yaml of other settings than the rows --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "key"),
    [
        ("Tone:", "Mood:", "data.prompt was"),
        ("threads: 1", "threads: 2", "target.threads was 1, and is 2"),
        ("prompt_tokens: 4", "prompt_tokens: 8", "target.workload.prompt_tokens was 4, and is 8"),
        ("seed: 0", "seed: 1", "seed was 0, and is 1"),
        ("metric: choice", "metric: exact_match", "data.metric was 'choice', and is 'exact_match'"),
        ("validation: validation.jsonl", "holdout: 0.3", "data.validation was"),
    ],
)
def test_a_sweep_that_was_changed_beside_its_rows_is_told(
    before: str, after: str, key: str, tiny_sweep: TinySweep, copied: Path, autotune: Autotune
) -> None:
    file = copied / "sweep.yaml"
    text = file.read_text(encoding="utf-8")
    assert before in text
    file.write_text(text.replace(before, after), encoding="utf-8")
    for words in (("select", copied), ("status", copied), ("select", copied, "--json"), ("status", copied, "--json")):
        done = autotune(*words)
        assert (done.code, key in done.out) == (Exit.OK, True), done.out
    assert autotune("report", copied).code == Exit.OK
    assert f"{key.partition(chr(32))[0]} was" in (copied / "report.html").read_text(encoding="utf-8")
    for words in (("export", copied, "--to", "x"), ("score", copied, "--data", tiny_sweep.file.parent / "test.jsonl")):
        done = autotune(*words)
        assert (done.code, f"was changed since the rows in this folder were measured: {key}" in done.err) == (
            2,
            True,
        ), done.err
    again = autotune("run", tiny_sweep.file, "--out", copied)  # the sweep that the rows are of
    assert again.code == Exit.OK, again.err
    assert file.read_text(encoding="utf-8") == text
    assert "was changed" not in again.out + autotune("select", copied).out


def test_what_may_change_between_runs_is_no_change(copied: Path, autotune: Autotune) -> None:
    file = copied / "sweep.yaml"
    text = file.read_text(encoding="utf-8")
    for before, after in (
        ("limits: []", "limits: [size_mb <= 1]"),
        ("processes: 2", "processes: 3"),
        ("trials: 6", "trials: 9"),
    ):
        assert before in text
        file.write_text(text.replace(before, after), encoding="utf-8")
        assert "was changed" not in autotune("select", copied).out


def test_a_model_and_data_that_were_moved_are_no_other_sweep(
    tiny_sweep: TinySweep, tiny_llama: Path, copied: Path, autotune: Autotune, tmp_path: Path
) -> None:
    """Where they lie has to be written into sweep.yaml, if a model is to be made again on another machine."""
    moved, file = Path(shutil.copytree(tiny_llama, tmp_path / "moved")), copied / "sweep.yaml"
    data = shutil.copy(tiny_sweep.file.parent / "train.jsonl", tmp_path)
    text = file.read_text(encoding="utf-8")
    for before, after in ((f"model: {tiny_llama}", f"model: {moved}"), ("train: train.jsonl", f"train: {data}")):
        assert before in text
        text = text.replace(before, after)
    file.write_text(text, encoding="utf-8")
    done = autotune("export", copied, "--to", "x", "--items", 0)
    assert done.code == Exit.OK, done.err
    config = json.loads((moved / "config.json").read_text(encoding="utf-8"))
    (moved / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 0.1}), encoding="utf-8")
    done = autotune("export", copied, "--to", "y", "--items", 0)
    assert (done.code, "rows in this folder were measured: model was" in done.err) == (Exit.USAGE, True), done.err


def test_a_sweep_without_rows_may_have_begun_anew_with_other_settings(copied: Path, autotune: Autotune) -> None:
    """A first run was stopped before its first row, and noted its settings; the next has written its sweep.yaml."""
    save(copied, rows_of(copied)[:1])
    file = copied / "sweep.yaml"
    file.write_text(file.read_text(encoding="utf-8").replace("seed: 0", "seed: 1"), encoding="utf-8")
    for words in (("select", copied), ("status", copied), ("export", copied, "--to", "x")):
        done = autotune(*words)
        assert "was changed" not in done.out + done.err


def test_a_sweep_whose_file_was_removed_beside_its_rows_is_not_another_one(
    tiny_sweep: TinySweep, copied: Path, autotune: Autotune
) -> None:
    (copied / "sweep.yaml").unlink()
    other = autotune("run", tiny_sweep.file, "--out", copied, "--set", "target.threads=2")
    assert (other.code, "differs from the sweep whose results are in" in other.err) == (Exit.USAGE, True), other.err
    assert autotune("run", tiny_sweep.file, "--out", copied).code == Exit.OK


def test_each_state_of_a_sweep_that_runs_agrees_with_itself(copied: Path) -> None:
    rows = rows_of(copied)
    for count in range(1, len(rows) + 1):
        save(copied, rows[:count])
        assert select(copied, ["size_mb <= 1e9"]).doubts == ()


def test_outcomes_are_read_once(copied: Path, autotune: Autotune, monkeypatch: pytest.MonkeyPatch) -> None:
    read, one = Counter[str](), outcomes._read

    def counted(folder: Path, candidate: str) -> outcomes.Parts | None:
        read[candidate] += 1
        return one(folder, candidate)

    monkeypatch.setattr(outcomes, "_read", counted)
    for command in ("select", "status"):
        read.clear()
        assert autotune(command, copied).code == Exit.OK
        assert set(read.values()) == {1}


def test_rows_of_another_sweep_in_a_folder_are_told(copied: Path, autotune: Autotune) -> None:
    """A table that was copied in: nothing was noted with it (or it is of an earlier version)."""
    (copied / "inputs.json").unlink()
    rows, score = rows_of(copied), ("", "_low", "_high", "_n")
    swapped = {
        f"{one}{end}": f"{other}{end}"
        for end in score
        for one, other in (("accuracy", "rouge_l"), ("rouge_l", "accuracy"))
    }
    save(copied, [[swapped.get(name, name) for name in rows[0]], *rows[1:]])
    for command in ("select", "status"):
        done = autotune(command, copied)
        assert (
            "the sweep's metric is choice, and the rows of results.csv have rouge_l: they are of another sweep"
            in done.out
        )


# --- folders that came in part ----------------------------------------------------------------------------------------


def test_a_table_that_is_cut_between_two_rows_is_told(tiny_sweep: TinySweep, copied: Path, autotune: Autotune) -> None:
    save(copied, rows_of(copied)[:3], encoding="utf-8", end="\n")
    told = "results.csv has 2 of the 7 rows that it had when the sweep ended"
    assert told in autotune("select", copied).out
    assert told in autotune("status", copied).out
    assert any(told in note for note in json.loads(autotune("select", copied, "--json").out)["notes"])
    assert told in json.loads(autotune("status", copied, "--json").out)["notes"][0]
    (copied / "results.csv").write_text("", encoding="utf-8")
    assert told.replace("2 of", "0 of") in autotune("select", copied).out
    again = autotune("run", tiny_sweep.file, "--out", copied)
    assert again.code == Exit.OK, again.err
    assert "of the 7 rows" not in again.out + autotune("select", copied).out
    assert "of the 7 rows" not in autotune("select", tiny_sweep.out).out


def test_a_folder_without_its_table_or_its_sweep_says_what_is_missing(copied: Path, autotune: Autotune) -> None:
    table = (copied / "results.csv").read_bytes()
    (copied / "results.csv").unlink()
    for command in ("select", "status", "report"):
        done = autotune(command, copied)
        assert done.code == Exit.USAGE
        assert "results.csv: is missing, and the rest of a results folder is there; bring it back" in done.err
    (copied / "results.csv").write_bytes(table)
    (copied / "sweep.yaml").unlink()
    assert autotune("select", copied).code == Exit.OK
    for words in (("status", copied), ("report", copied), ("export", copied, "--to", "x")):
        done = autotune(*words)
        assert (done.code, "sweep.yaml is missing" in done.err) == (Exit.USAGE, True), done.err


# --- places that hold something else ----------------------------------------------------------------------------------


def test_no_command_writes_over_what_it_has_not_written(
    tiny_sweep: TinySweep, copied: Path, autotune: Autotune, tmp_path: Path
) -> None:
    data = tmp_path / "new.csv"
    data.write_text("text,tone\n1 I felt joy today,joy\n", encoding="utf-8")
    notes, link, real = tmp_path / "notes.html", tmp_path / "link", tmp_path / "real"
    notes.write_text("<p>mine</p>", encoding="utf-8")
    mine = tmp_path / "mine"
    shutil.copytree(tiny_sweep.file.parent, mine, ignore=shutil.ignore_patterns("out"))
    before = {path: path.read_bytes() for path in (data, notes, copied / "results.csv", *mine.iterdir())}
    refused = [
        ("score", copied, "--data", data, "--wrong", data),
        ("score", copied, "--data", data, "--wrong", notes),
        ("report", copied, "--to", notes),
        ("report", copied, "--to", copied / "results.csv"),
        ("submit", mine / "sweep.yaml", "--to", "slurm", "-o", data),
        ("submit", mine / "sweep.yaml", "--to", "skypilot", "-o", notes),
        ("run", mine / "sweep.yaml", "--out", mine),
        ("run", mine / "sweep.yaml", "--out", data),
        ("init", "--model", "smollm2-135m-instruct", "--data", data, "--out", data, "--force"),
        ("export", copied, "--to", mine),
        ("export", copied, "--to", data),
        ("export", copied, "--to", data / "in"),
        ("export", copied, "--to", "."),
        ("export", copied, "--to", copied),
    ]
    for words in refused:
        done = autotune(*words)
        assert done.code == Exit.USAGE, (words, done)
        assert "Traceback" not in done.err
    assert {path: path.read_bytes() for path in before} == before
    real.mkdir()
    link.symlink_to(real)
    assert autotune("export", copied, "--to", link, "--items", 0).code == Exit.OK
    assert link.is_symlink()
    assert (real / "onnx").is_dir()
    for name in ("a.html", "b.html"):
        assert autotune("report", copied, "--to", tmp_path / name).code == Exit.OK
    assert {path.name for path in tmp_path.glob("*.svg")} == {"a-pareto.svg", "b-pareto.svg"}
    assert autotune("report", copied, "--to", tmp_path / "a.html").code == Exit.OK, "a report is written anew"


def test_results_never_go_into_the_folder_of_the_base_model(
    tiny_sweep: TinySweep, tiny_llama: Path, autotune: Autotune
) -> None:
    before = sorted(tiny_llama.iterdir())
    for out in (tiny_llama, tiny_llama / "results"):
        done = autotune("run", tiny_sweep.file, "--out", out)
        assert (done.code, "lies in the folder of the base model" in done.err) == (Exit.USAGE, True), done.err
    assert sorted(tiny_llama.iterdir()) == before


# --- limits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        (["accuracy<=0.9"], "this limit would keep what is worse"),
        (["accuracy>=90"], "write 0.9"),
        (["size_mb<=0"], "give a bound above 0"),
        (["size_mb<=1", "size_mb>=2"], "no candidate could keep this limit and 'size_mb<=1'"),
        (["accuracy"], "a shell takes < and > for files"),
        (["size_mb<=1 and accuracy>=0.5"], "write --limit before each limit"),
        (["itl_ms_p50<=base/2"], "write base * 0.5"),
        (["accuracy>=inf"], "leave the limit out for none"),
    ],
)
def test_a_limit_that_contradicts_itself_or_its_metric_is_refused(
    limits: Sequence[str], said: str, tiny_sweep: TinySweep, autotune: Autotune
) -> None:
    words = [word for limit in limits for word in ("--limit", limit)]
    for command in (["select", tiny_sweep.out], ["export", tiny_sweep.out, "--to", "x"]):
        done = autotune(*command, *words)
        assert (done.code, said in done.err) == (Exit.USAGE, True), done.err


def test_what_was_given_up_for_a_stricter_limit_is_told(
    tiny_sweep: TinySweep, autotune: Autotune, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    done = autotune("run", tiny_sweep.file, "--out", out, "--set", "limits=[size_mb <= 0.2]")
    assert done.code == Exit.OK, done.err
    said = autotune("select", out, "--limit", "size_mb<=10").out
    assert (
        "Note: 4 candidates were given up unmeasured for a limit of the sweep, and might win under these limits" in said
    )
    assert """run the sweep again with --trials 10 --set 'limits=["size_mb<=10"]'""" in said
    for limits in ([], ["--limit", "size_mb<=0.2"], ["--limit", "size_mb<=0.3"]):
        assert "given up unmeasured" not in autotune("select", out, *limits).out, limits
    again = autotune("run", tiny_sweep.file, "--out", out, "--trials", "10", "--set", 'limits=["size_mb<=10"]')
    assert again.code == Exit.OK, again.err
    assert "given up unmeasured" not in autotune("select", out, "--limit", "size_mb<=10").out
    nothing = autotune("run", tiny_sweep.file, "--out", tmp_path / "none", "--set", "limits=[size_mb <= 0.001]")
    assert nothing.code == Exit.NO_FEASIBLE
    assert "None was measured: each was given up before" in nothing.out
    assert "size_mb <= 0.001 cannot be kept: size_mb is" in nothing.out
    assert len(json.loads(autotune("select", tmp_path / "none", "--json").out)["given_up"]) == 6
    assert "no candidate keeps the limits\n" in autotune("status", tmp_path / "none").out


# --- new data ---------------------------------------------------------------------------------------------------------


def test_rows_that_the_model_has_seen_are_told(tiny_sweep: TinySweep, autotune: Autotune, tmp_path: Path) -> None:
    data = tiny_sweep.file.parent
    found = {
        split: json.loads(autotune("score", tiny_sweep.out, "--data", data / f"{split}.jsonl", "--json").out)
        for split in ("train", "validation", "test")
    }
    assert {split: one["seen"] for split, one in found.items()} == {
        "train": {"train": 48}, "validation": {"validation": 24}, "test": {},
    }  # fmt: skip
    assert "a score on what a model has learned says nothing about new text" in found["train"]["notes"][0]
    base = read_results(tiny_sweep.out)[0]
    assert base.kind == "base"
    done = autotune("score", tiny_sweep.out, "--data", data / "train.jsonl", "--candidate", base.candidate, "--json")
    assert json.loads(done.out)["seen"] == {}, "it was never trained"
    done = autotune("score", tiny_sweep.out / "best", "--data", data / "validation.jsonl", "--json")
    assert json.loads(done.out)["seen"] == {"validation": 24}


def test_labels_that_the_model_does_not_know_are_answered_with_those_that_it_does(
    tiny_sweep: TinySweep, autotune: Autotune, tmp_path: Path
) -> None:
    (tmp_path / "new.csv").write_text("text,tone\n1 I felt joy,Joy\n2 I felt fear,FEAR\n", encoding="utf-8")
    done = autotune("score", tiny_sweep.out, "--data", "new.csv")
    assert done.code == Exit.USAGE
    assert "' Joy' is none of the model's labels, but nearly ' joy'" in done.err
    assert f"write the labels as the model knows them: {', '.join(map(repr, TONES))}" in done.err
    done = autotune("score", tiny_sweep.out, "--data", "new.csv", "--candidate", "x", "--limit", "size_mb<=1")
    assert "--candidate names the model, and --limit or --prefer choose one" in done.err
    done = autotune("score", tiny_sweep.out, "--data", "new.csv", "--wrong", "no/such/x.csv")
    assert "cannot be written, because there is no folder" in done.err


# --- the process ------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="a shell of POSIX")
def test_closed_streams_a_full_device_and_a_cache_that_cannot_be_written(tiny_sweep: TinySweep) -> None:
    def ran(words: str, **environment: str) -> tuple[int, str]:
        command = f'exec "{sys.executable}" -m autotune {words}'
        done = subprocess.run(
            ["sh", "-c", command], capture_output=True, text=True, check=False, env={**os.environ, **environment}
        )
        assert "Traceback" not in done.stderr
        return done.returncode, done.stderr

    before = (tiny_sweep.out / "results.csv").read_bytes()
    assert ran(f'select "{tiny_sweep.out}" >&-') == (Exit.OK, "")
    assert ran(f'select "{tiny_sweep.out}" --json >&- 2>&- <&-')[0] == Exit.OK
    assert ran("select nothing 2>&-")[0] == Exit.USAGE
    assert (tiny_sweep.out / "results.csv").read_bytes() == before
    if Path("/dev/full").exists():
        code, err = ran(f'select "{tiny_sweep.out}" >/dev/full')
        assert (code, "free some space on that disk" in err) == (Exit.MACHINE, True)
    for words in (
        f'score "{tiny_sweep.out}" --data x.csv',
        f'plan "{tiny_sweep.file}"',
        f'run "{tiny_sweep.file}" --out y',
    ):
        code, err = ran(words, AUTOTUNE_CACHE="/dev/null/x")
        assert (code, "name another folder in AUTOTUNE_CACHE" in err) == (Exit.MACHINE, True), err


def test_a_run_goes_on_where_nobody_reads_its_messages(tiny_sweep: TinySweep, copied: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        command = [sys.executable, "-m", "autotune", "run", str(tiny_sweep.file), "--out", str(copied)]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=writing, text=True, check=False)
    finally:
        os.close(writing)
    assert (done.returncode, done.stdout[:8]) == (Exit.OK, "Winner: ")


@pytest.mark.skipif(sys.platform == "win32", reason="the home folder of Windows is known to the system")
def test_a_user_without_a_home_is_told_what_to_set(
    autotune: Autotune, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As in a container that is run as a user of any number."""
    import pwd

    def unknown(number: int) -> pwd.struct_passwd:
        raise KeyError(f"getpwuid(): uid not found: {number}")

    for name in ("HOME", "XDG_CACHE_HOME", "AUTOTUNE_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for address in ("", "s3://bucket/cache"):
        if address:
            monkeypatch.setenv("AUTOTUNE_CACHE", address)
        done = autotune("cache")
        assert (done.code, "no home folder is known here" in done.err) == (Exit.MACHINE, True), done.err
    assert not any(tmp_path.iterdir())
