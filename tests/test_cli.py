"""The command line: what goes to stdout, what to stderr, and the exit codes that scripts rely on."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from bad_inputs import SWEEP, write_csv, write_demo
from waiting import HANG_S

from autotune import __version__
from autotune.artifacts.store import Cache, default_root
from autotune.cli import main, parser
from autotune.errors import AutotuneError, Exit, MachineError, Problem, StageError, UsageError, did_you_mean
from autotune.pipeline.prepare import probe_job
from autotune.present import plan as plan_module
from autotune.present.explained import explain
from autotune.present.select import select as chosen
from autotune.results.record import Record
from autotune.results.rows import Trial
from autotune.results.table import read_table
from autotune.run import RunOptions
from autotune.stages.jobs import BuildJob, FinetuneJob
from autotune.strategies.frontier.constants import POOL
from autotune.sweepfile.resolve import load_sweep
from autotune.sweepfile.schema import Sweep

RECIPE = {"build_precision": "int4", "build_block_size": 32, "build_accuracy_level": 4, "build_symmetric": True}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the demo sweep, a cache of its own, and the handler of SIGTERM as it was."""
    monkeypatch.setenv("AUTOTUNE_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "here"
    folder.mkdir()
    write_demo(folder)
    monkeypatch.chdir(folder)
    handler = signal.getsignal(signal.SIGTERM)
    yield folder
    signal.signal(signal.SIGTERM, handler)


def row(name: str, trial: int, accuracy: float | None, size: float, **more: Any) -> Trial:
    """Return a row of results: fully measured, unless something else is said."""
    cells: dict[str, Any] = {"candidate": name, "trial": trial, "attempt": 1, "kind": "pair" if trial else "base", "status": "ok",
                  "accuracy": accuracy, "itl_ms_p50": 5.0, "size_mb": size, **(RECIPE if trial else {})}  # fmt: skip
    if accuracy is not None:
        cells |= {"accuracy_n": 100, "accuracy_low": max(0, accuracy - 0.1), "accuracy_high": min(1, accuracy + 0.1)}
    return Trial(cells | more)


def results(*rows: Trial, **changes: str) -> tuple[Path, Sweep]:
    """Write the results folder of the demo sweep; return it and the sweep."""
    sweep = load_sweep("sweep.yaml", [f"{key}={value}" for key, value in changes.items()])
    folder = Path("results") / "demo"
    with Record(folder, sweep) as record:
        for cells in rows:
            record.results.append(cells)
    return folder, sweep


THREE = (row("base", 0, 0.3, 500.0), row("good", 1, 0.9, 90.0), row("small", 2, 0.5, 50.0))


# --- The command itself --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["plam", "sweep.yaml"], "plan"),
        (["statu", "results/demo"], "status"),
        (["select", "results/demo", "--limt", "size_mb<=3"], "--limit"),
        (["run", "sweep.yaml", "--trails", "3"], "--trials"),
        (["run", "sweep.yaml", "--trails=3"], "--trials"),
        (["doctor", "--engine", "rya"], "ray"),
        (["run", "sweep.yaml", "--qqqqqq"], None),
        (["qqqqqq"], None),
    ],
)
def test_a_misspelt_command_option_or_choice_is_answered_with_the_nearest(
    words: list[str], meant: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    said = capsys.readouterr().err
    assert ended.value.code == Exit.USAGE
    assert re.findall(r"; did you mean '([^']*)'\?$", said.strip()) == ([] if meant is None else [meant])


def test_help_names_every_command_and_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    said = " ".join(capsys.readouterr().out.split())
    for word in ("run", "plan", "status", "select", "bench", "cache", "doctor", "130 interrupted", "3 this machine"):
        assert word in said


@pytest.mark.parametrize("command", ["run", "plan", "status", "select", "bench", "cache", "doctor"])
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert f"usage: autotune {command}" in capsys.readouterr().out


def test_every_option_says_what_it_is_for() -> None:
    commands = next(action for action in parser()._actions if action.dest == "command")
    for name, command in commands.choices.items():  # type: ignore[union-attr]
        for action in command._actions:
            assert action.help, f"{name} {action.dest}"


def test_version_and_module(here: Path) -> None:
    command = [sys.executable, "-m", "autotune", "--version"]
    done = subprocess.run(command, cwd=here, capture_output=True, text=True, encoding="utf-8", check=False)
    assert (done.returncode, done.stdout) == (0, f"autotune {__version__}\n")


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (
            UsageError(Problem("is wrong", "a.b", "f.yaml", 3, "x", "mend it")),
            2,
            "f.yaml:3: a.b: is wrong, got 'x'; mend",
        ),
        (UsageError([Problem("one"), Problem("two")]), 2, "autotune: 2 problems:\n  one\n  two\n"),
        (MachineError("no room"), 3, "autotune: no room\n"),
        (StageError("failed", "of one candidate"), 1, "autotune: of one candidate\n"),
        (KeyboardInterrupt(), 130, "run the same command again to go on"),
    ],
)
def test_an_error_is_one_message_and_an_exit_code(
    error: BaseException, code: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("autotune.run.run_command", fail)
    assert main(["run", "sweep.yaml"]) == code
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.out == ""


@pytest.mark.parametrize("kind", ["below a file", "no permission"])
def test_a_cache_that_cannot_be_written_is_named_before_the_sweep_starts(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    place = tmp_path / "file" / "x" if kind == "below a file" else tmp_path / "closed"
    if kind == "no permission":
        monkeypatch.setattr("os.access", lambda path, mode: Path(path) != place)
    monkeypatch.setenv("AUTOTUNE_CACHE", str(place))
    assert main(["run", "sweep.yaml"]) == Exit.MACHINE
    said = capsys.readouterr().err
    assert f"the cache {place} cannot be written (" in said
    assert said.endswith("; name another folder in AUTOTUNE_CACHE\n")
    assert not Path("results").exists()


def test_a_bug_of_ours_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("autotune.run.run_command", fail)
    with pytest.raises(ZeroDivisionError):
        main(["run", "sweep.yaml"])


def test_run_gets_what_was_written(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[RunOptions] = []
    monkeypatch.setattr("autotune.run.run_command", lambda asked: given.append(asked) or Exit.NO_FEASIBLE)
    options = ["--out", "there", "--trials", "3", "--hours", "0.5", "--set", "seed=1", "--set", "limits=[]"]
    assert main(["run", "sweep.yaml", *options]) == 4
    assert given.pop() == RunOptions("sweep.yaml", Path("there"), ["seed=1", "limits=[]"], 3, 0.5)
    main(["run", "sweep.yaml"])
    assert given.pop() == RunOptions("sweep.yaml", sets=[])
    main(["run", "sweep.yaml", "--set", "seed=1", "--engine", "ray", "--address", "head:6379"])
    assert given.pop() == RunOptions("sweep.yaml", sets=["seed=1", "engine=ray"], address="head:6379")
    main(["run", "sweep.yaml", "--plain", "--report", "--optuna-storage", "sqlite:///s.db"])
    assert given.pop() == RunOptions("sweep.yaml", sets=[], report=True, optuna_storage="sqlite:///s.db", plain=True)


def test_a_termination_is_an_interruption(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def stop(*_: object) -> None:
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr("autotune.run.run_command", stop)
    assert main(["run", "sweep.yaml"]) == 130
    assert "interrupted" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="pipes of POSIX")
def test_a_reader_that_leaves_is_no_error(here: Path) -> None:
    code = (
        "import sys; from autotune import cli; cli._plan = lambda _: [cli._say('x' * 100) for _ in range(9999)] and 0; "
    )
    command = [sys.executable, "-c", code + "sys.exit(cli.main(['plan', 'sweep.yaml']))"]
    child = subprocess.Popen(command, cwd=here, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stderr is not None
    child.stdout.readline()
    child.stdout.close()
    errors = child.stderr.read().decode()
    child.stderr.close()
    assert (child.wait(HANG_S), errors) == (0, "")


# --- Errors as values ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("problem", "text"),
    [
        (Problem("must be"), "must be"),
        (Problem("must be", "a"), "a: must be"),
        (Problem("must be", "a", "f"), "f: a: must be"),
        (Problem("must be", "a", "f", 3), "f:3: a: must be"),
        (Problem("must be", "a", "", 3), "a: must be"),
        (Problem("must be", value=0), "must be, got 0"),
        (Problem("must be", value="x" * 100), "must be, got '" + "x" * 76 + "..."),
        (Problem("must be", remedy="do it"), "must be; do it"),
    ],
)
def test_a_problem_in_words(problem: Problem, text: str) -> None:
    assert str(problem) == text


def test_the_nearest_name_is_meant() -> None:
    known = ["alpha", "beta", "size_mb"]
    assert did_you_mean("alfa", known) == "did you mean 'alpha'?"
    assert did_you_mean("size", known) == "did you mean 'size_mb'?"
    assert did_you_mean("gpu", known) == "use one of: alpha, beta, size_mb"
    assert did_you_mean("x", []) == "remove it"


def test_errors_have_their_exit_codes() -> None:
    assert issubclass(UsageError, AutotuneError)
    assert (UsageError(()).exit_code, MachineError("x").exit_code, AutotuneError("x").exit_code) == (2, 3, 1)
    assert {code.name: int(code) for code in Exit} == {
        "OK": 0, "BUG": 1, "USAGE": 2, "MACHINE": 3, "NO_FEASIBLE": 4, "NO_RESULT": 5, "INTERRUPTED": 130,
    }  # fmt: skip


# --- plan ----------------------------------------------------------------------------------------------------------

AIMS = "objectives={accuracy: maximize, itl_ms_p50: minimize, size_mb: minimize}"
LONG = "space.lora.steps=400"  # `frontier` looks at adapters where training takes longer than scoring


def planned(capsys: pytest.CaptureFixture[str], *sets: str) -> dict[str, Any]:
    options = [word for change in sets for word in ("--set", change)]
    assert main(["plan", "sweep.yaml", "--json", *options]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    plan: dict[str, Any] = json.loads(captured.out)
    return plan


def test_a_plan_counts(capsys: pytest.CaptureFixture[str]) -> None:
    plan = planned(capsys, "space.lora.learning_rate={choice: [1e-3, 2e-3, 4e-3]}", "budget.trials=99")
    assert (plan["candidates"], plan["trials"], plan["ends_by"]) == (6, 6, "space")
    assert (plan["adapters"], plan["trainings"], plan["builds"]) == (3, 3, 7)
    assert plan["timings"] == 3, "two recipes, and the untouched model at fp32"
    assert plan["items_scored"] == 7 * 4
    assert plan["recipes"] == ["int8 default block_size=32 accuracy_level=4 symmetric=True",
                               "int4 default block_size=32 accuracy_level=4 symmetric=True"]  # fmt: skip
    assert plan["data"] == {
        "train": 8, "validation": 4, "test": 0, "held_out": {}, "holdout_by_default": False,
        "labels": [" fear", " joy"],
        "label_rows": {" fear": {"train": 4, "validation": 2}, " joy": {"train": 4, "validation": 2}},
        "left_out": [],
    }  # fmt: skip
    estimate = plan["estimate"]
    assert estimate["total_s"] == pytest.approx(sum(estimate["seconds"].values()), abs=4)
    assert estimate["low_s"] < estimate["total_s"] < estimate["high_s"]
    assert estimate["measured_here"] == []
    assert {line["evidence"] for line in estimate["stages"]} == {"size"}
    assert plan["disk"]["free_mb"] > 0
    assert plan["notes"] == []


def test_a_plan_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    with (Path("train.csv")).open("a", encoding="utf-8") as stream:
        stream.write("phrase number 0,joy\n,joy\n")
    change = "space.build=[{precision: int4, algorithm: k_quant, block_size: [32, 64]}]"
    assert main(["plan", "sweep.yaml", "--set", change]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "demo: model on cpu, strategy tpe"
    table = {line.split("  ")[0]: line.split() for line in lines[2 : lines.index("", 2)]}
    assert lines[2].split() == ["stage", "how", "often", "each", "in", "all", "on", "what", "evidence"]
    assert table["train adapters"][2] == "4"
    assert table["build"][1] == "5"
    assert table["time graphs"][2] == "2"
    assert table["score items"][2:4] == ["20", "items"]
    assert " ".join(table["build"]).endswith("estimate by model size")
    assert re.search(r" 80 % interval: \d.* to \d", " ".join(table["in all"]))
    assert all(len(line) <= 110 for line in lines[2 : lines.index("", 2)])
    assert "measures 4 (budget.trials) of infinitely many candidates" in lines
    assert "recipes (1):" in lines
    assert "left out (1), cannot run here:" in lines
    assert any("64 in blocks of 64 gives 1" in line for line in lines)
    assert "data: 8 train, 4 validation, 0 test; 2 labels" in lines
    assert "  label ' joy': 4 train, 2 validation" in lines
    assert "  1 rows of train left out: duplicate (train.csv:10)" in lines
    assert "  1 rows of train left out: empty value in 'text' (train.csv:11)" in lines


def test_a_plan_never_promises_more_than_its_budget(capsys: pytest.CaptureFixture[str]) -> None:
    """Six trials are not "at most 256 trainings"."""
    for strategy in ("frontier", "tpe", "nsga2", "random"):
        plan = planned(capsys, f"strategy={strategy}", "budget={trials: 6}", AIMS)
        assert (plan["trials"], plan["ends_by"]) == (6, "trials")
        assert 0 < plan["trainings"] <= 12
        assert plan["trainings"] <= plan["adapters"] < POOL / 2
        assert plan["builds"] <= 6 + 1 + 2 * plan["adapters"]
        assert "256" not in json.dumps(plan["estimate"])


def test_a_plan_says_what_would_be_cheaper(capsys: pytest.CaptureFixture[str]) -> None:
    plan = planned(capsys, "space.lora.steps=20000")
    assert plan["savings"][0].startswith("half as long trainings (space.lora.steps: 10000) saves about ")
    whole, half = (planned(capsys, f"space.lora.steps={steps}")["estimate"] for steps in (20000, 10000))
    assert whole["total_s"] - half["total_s"] == pytest.approx(whole["seconds"]["train"] / 2, rel=0.1)
    assert main(["plan", "sweep.yaml", "--set", "space.lora.steps=20000"]) == 0
    assert f"cheaper: {plan['savings'][0]}" in capsys.readouterr().out.splitlines()
    quick = planned(capsys, "target.timing={processes: 40, most: 40}")
    assert any("target.timing: { processes: 3, most: 5 }" in words for words in quick["savings"])


def test_a_plan_says_what_is_held_out_by_default_and_which_labels_are_alike(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [(f"phrase {n}", ("joy", "fear", "joy ")[n % 3]) for n in range(60)]
    write_csv(Path("train.csv"), rows)
    sweep = Path("sweep.yaml").read_text(encoding="utf-8")
    Path("sweep.yaml").write_text(sweep.replace("  validation: validation.csv\n", ""), encoding="utf-8")
    assert main(["plan", "sweep.yaml"]) == 0
    text = capsys.readouterr().out
    assert (
        "  validation: a share of 0.2 of train, held out by content; the default, since neither data.validation nor "
        "data.holdout is given\n"
    ) in text
    assert "note: labels ' joy', ' joy ' (20, 20 rows) differ only in white space, and count as 2 labels" in text
    plan = planned(capsys)
    assert plan["data"]["held_out"] == {"validation": 0.2}
    assert plan["data"]["holdout_by_default"] is True
    assert sum(plan["data"]["label_rows"][" joy "].values()) == 20
    assert planned(capsys, "data.holdout=0.4")["data"]["holdout_by_default"] is False


def test_a_plan_of_adapters_or_of_recipes_alone(capsys: pytest.CaptureFixture[str]) -> None:
    adapters = planned(capsys, "space={lora: {r: {choice: [4, 8]}}}", "objectives={accuracy: maximize}", "limits=[]")
    assert (adapters["candidates"], adapters["builds"], adapters["recipes"]) == (2, 0, [])
    assert not {"build", "time", "turns", "verify"} & set(adapters["estimate"]["seconds"])
    recipes = planned(capsys, "space={build: [{precision: [int8, fp32]}]}")
    assert (recipes["candidates"], recipes["trainings"], recipes["adapters"]) == (2, 0, 0)
    assert not {"train", "merge"} & set(recipes["estimate"]["seconds"])
    assert (recipes["builds"], recipes["timings"]) == (2, 2), "the untouched model at fp32 is one of the two"


def test_a_plan_counts_sessions_and_workloads(capsys: pytest.CaptureFixture[str]) -> None:
    changes = (
        "space.lora.learning_rate={choice: [1e-3, 2e-3]}", "space.session=[{}, {threads: [1, 500]}]", "budget.trials=99",
        "target.workloads={chat: {new_tokens: data}, long: {prompt_tokens: 512, batch: 2}}",
    )  # fmt: skip
    plan = planned(capsys, *changes)
    assert plan["sessions"] == ["as the target says", "1 thread", "500 threads"]
    assert plan["workloads"] == [
        "chat: prompt of 32 tokens, answer of lengths drawn from the data, batch 1",
        "long: prompt of 512 tokens, answer of 16 tokens, batch 2",
    ]
    assert (plan["candidates"], plan["trials"], plan["builds"]) == (2 * 2 * 3, 2 * 2 * 3, 2 * 2 + 1)
    assert plan["timings"] == (2 * 3 + 1) * 2, "two recipes in three sessions, the untouched model; two workloads"
    assert any("500 are asked for, and this machine runs" in note for note in plan["notes"])
    assert main(["plan", "sweep.yaml", *(word for change in changes for word in ("--set", change))]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "sessions (3); every recipe is timed in each:" in lines
    assert "timed: long: prompt of 512 tokens, answer of 16 tokens, batch 2" in lines


def test_a_plan_of_frontier_is_what_it_expects_to_spend(capsys: pytest.CaptureFixture[str]) -> None:
    changes = ("strategy=frontier", "budget={trials: 30}", AIMS, LONG)
    plan = planned(capsys, *changes)
    assert (plan["trials"], plan["ends_by"]) == (30, "trials")
    assert 0 < plan["trainings"] < plan["adapters"] <= POOL
    assert plan["estimate"]["total_s"] == pytest.approx(sum(plan["estimate"]["seconds"].values()), abs=4)
    small = ("strategy=frontier", AIMS, "space.lora={r: {choice: [4, 8]}, steps: 9}", "budget={hours: 1000}")
    whole = planned(capsys, *small)
    assert (whole["trials"], whole["ends_by"]) == (whole["candidates"], "space")
    hours = planned(capsys, "strategy=frontier", "budget={hours: 0.05}", AIMS)
    assert hours["ends_by"] == "hours"
    assert hours["estimate"]["total_s"] <= 1.2 * 0.05 * 3600
    assert main(["plan", "sweep.yaml", *(word for change in changes for word in ("--set", change))]) == 0
    assert f"{plan['adapters']}, {plan['trainings']:g} in full" in capsys.readouterr().out


def test_a_plan_of_frontier_says_what_ends_it(capsys: pytest.CaptureFixture[str]) -> None:
    few = ("strategy=frontier", AIMS, "space.lora={r: {choice: [4, 8, 16]}, steps: 9}")
    for trials, ends_by in ((20, "space"), (6, "trials"), (5, "trials")):
        plan = planned(capsys, *few, f"budget={{trials: {trials}}}")
        assert (plan["trials"], plan["ends_by"]) == (min(trials, 6), ends_by)


def test_a_plan_of_frontier_keeps_its_own_bounds(capsys: pytest.CaptureFixture[str]) -> None:
    changes = ("strategy=frontier", AIMS)
    day = planned(capsys, *changes, "budget={hours: 1e6}")
    pairs = 2 * POOL
    assert 0 < day["trainings"] <= day["adapters"] <= POOL
    assert day["builds"] <= pairs + 1 + 2 * POOL
    assert (day["ends_by"], day["trials"]) == ("space", pairs)
    many = planned(capsys, *changes, "budget={trials: 5000, hours: 1e6}")
    assert (many["trials"], many["builds"]) == (pairs, day["builds"])


def test_a_plan_that_only_the_hours_end(capsys: pytest.CaptureFixture[str]) -> None:
    plan = planned(capsys, "budget={hours: 1}")
    assert plan["ends_by"] == "hours"
    assert 1 < plan["trials"] < 10_000
    assert 3600 * 0.95 < plan["estimate"]["total_s"] < 3600 * 1.1, "the end comes after the hours"
    assert plan["savings"] == [], "what one stage does not take, the next one does"
    both = planned(capsys, "budget={hours: 0.0001, trials: 3}")
    assert (both["trials"], both["ends_by"]) == (0, "hours")
    few = planned(capsys, "budget={hours: 8, trials: 3}")
    assert (few["trials"], few["ends_by"]) == (3, "trials")
    finite = planned(capsys, "budget={hours: 8}", "space.lora.learning_rate=1e-3")
    assert (finite["trials"], finite["ends_by"]) == (2, "space")
    assert main(["plan", "sweep.yaml", "--set", "budget={hours: 1}"]) == 0
    out = capsys.readouterr().out
    assert f"measures about {plan['trials']} (60 min, budget.hours) of infinitely many candidates" in out
    assert main(["plan", "sweep.yaml", "--set", "budget={hours: 8}", "--set", "model=a/b"]) == 0
    assert "measures what fits into 8 h 00 min of infinitely many candidates" in capsys.readouterr().out


def test_a_plan_builds_no_adapter_that_pytorch_scores(capsys: pytest.CaptureFixture[str]) -> None:
    alone = ("strategy=frontier", "space={lora: {learning_rate: {loguniform: [1e-4, 1e-2]}}}", "limits=[]")
    plan = planned(capsys, *alone, "objectives={accuracy: maximize}")
    assert plan["builds"] == 0
    pairs = ("strategy=frontier", AIMS, LONG, "budget={trials: 30}")
    built = planned(capsys, *pairs, "train.device=cpu")
    scored = planned(capsys, *pairs, "train.device=cuda")
    assert built["builds"] > 30 + 1 == scored["builds"]
    assert planned(capsys, *pairs, "target.provider=cuda", "train.device=cpu", "limits=[]")["builds"] == 30 + 1
    assert planned(capsys, *pairs)["builds"] == built["builds"]
    Cache(default_root()).make(probe_job(), lambda out: ({"device": "cuda"}, 1.0))
    assert planned(capsys, *pairs)["builds"] == scored["builds"], "a sweep has found a GPU here"


def test_a_plan_of_frontier_scores_the_items_of_a_task(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "tones.yaml").write_text("task: tones\ndataset_path: json\n", encoding="utf-8")
    by_task = "  metric: lm-eval:tones.yaml\n  max_items: { validation: 150 }\n"
    (here / "sweep.yaml").write_text(SWEEP.replace("  validation: validation.csv\n", by_task), encoding="utf-8")
    aims = "objectives={lm_eval: maximize, itl_ms_p50: minimize, size_mb: minimize}"
    plan = planned(capsys, "strategy=frontier", aims, "budget={trials: 10}")
    assert (plan["trials"], plan["ends_by"]) == (10, "trials")
    assert plan["items_scored"] >= 10 * 150


def test_a_plan_of_a_huge_grid_is_made_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    values = ", ".join(str(n / 1000) for n in range(1, 101))
    many = [
        f"space.lora.{name}={{choice: [{values}]}}" for name in ("learning_rate", "dropout", "warmup", "weight_decay")
    ]
    plan = planned(capsys, *many, "strategy=grid", "budget={}")
    assert (plan["candidates"], plan["trials"]) == (2 * 10**8, 10_000)


def test_a_plan_learns_from_what_was_measured_here(capsys: pytest.CaptureFixture[str]) -> None:
    cache = Cache(default_root())
    sweep = load_sweep("sweep.yaml")
    for number, recipe in enumerate(sweep.space.recipes):
        job = BuildJob(source="s", recipe=recipe, provider="cpu", source_dir=Path())

        def build(out: Path, seconds: float = 1000.0 + number) -> tuple[dict[str, Any], float]:
            (out / "model.onnx").write_text("x", encoding="utf-8")
            return {}, seconds

        cache.make(job, build, "model")
    plan = planned(capsys)
    assert plan["estimate"]["measured_here"] == ["build"]
    lines = {line["stage"]: line for line in plan["estimate"]["stages"]}
    assert (lines["build"]["evidence"], lines["train"]["evidence"]) == ("alike", "size")
    assert 5 * 500 < plan["estimate"]["seconds"]["build"] < 5 * 1200
    assert main(["plan", "sweep.yaml"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^build .* 1 like these, measured here$", out, re.MULTILINE)


def test_a_plan_takes_a_training_step_with_all_its_passes(capsys: pytest.CaptureFixture[str]) -> None:
    sweep = load_sweep("sweep.yaml", ["space.lora.accumulation=4"])
    lora = sweep.space.candidate({"learning_rate": 1e-3}, None).lora
    assert lora is not None
    for seed in range(8):
        job = FinetuneJob(base="b", data="d", lora=lora, seed=seed, device="cpu", base_dir=Path(), data_file=Path())
        Cache(default_root()).make(job, lambda out: ({"step": 30, "step_s": 80.0}, 2400.0), "model")
    for accumulation, seconds in ((4, 80.0), (1, 20.0)):
        plan = planned(capsys, f"space.lora.accumulation={accumulation}")
        assert plan["estimate"]["measured_here"] == ["train"]
        assert plan["estimate"]["seconds"]["train"] == pytest.approx(4 * 30 * seconds, rel=0.3)


def test_a_plan_of_a_hub_model_still_checks_the_data(capsys: pytest.CaptureFixture[str]) -> None:
    plan = planned(capsys, "model=models/mine")
    assert plan["notes"] == [
        "there is no folder models/mine, so it is fetched from the hub, and its architecture checked then"
    ]
    assert plan["data"]["train"] == 8
    assert "estimate" not in plan
    assert main(["plan", "sweep.yaml", "--set", "model=models/mine", "--set", "data.train=gone.csv"]) == 2


def test_a_plan_with_data_on_the_hub_says_what_it_cannot_check(capsys: pytest.CaptureFixture[str]) -> None:
    plan = planned(capsys, "data.train=owner/name:train")
    assert plan["data"] is None
    assert plan["notes"] == ["data is on the hub: it is checked when it is fetched"]
    assert plan["estimate"]["total_s"] > 0


def test_a_plan_names_azure_where_model_and_data_are_there(capsys: pytest.CaptureFixture[str]) -> None:
    model, rows = "azureml://registries/azureml/models/Phi/versions/3", "azureml://datastores/store/paths/rows.jsonl"
    assert planned(capsys, f"model={model}", f"data.train={rows}")["notes"] == [
        "data is on Azure: it is checked when it is fetched",
        f"the model {model} is fetched from Azure, and its architecture checked then",
    ]


def test_a_plan_tells_what_the_built_in_model_is(capsys: pytest.CaptureFixture[str]) -> None:
    plan = planned(capsys, "model=smollm2-135m-instruct")
    assert "GGUF Q4_1" in plan["notes"][0]
    assert plan["memory"]["needed_mb"] > 2000


def test_a_plan_warns_of_too_little_memory_and_refuses_too_little_disk(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(plan_module, "free_memory_mb", lambda: 10.0)
    assert any(note.startswith("memory: about ") for note in planned(capsys)["notes"])
    monkeypatch.setattr(plan_module, "free_disk_mb", lambda _: 0.001)
    assert main(["plan", "sweep.yaml"]) == 3
    assert "the disk of the cache has only" in capsys.readouterr().err


# --- select --------------------------------------------------------------------------------------------------------


def selected(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> dict[str, Any]:
    assert main(["select", *arguments, "--json"]) == code
    captured = capsys.readouterr()
    assert captured.err == ""
    document: dict[str, Any] = json.loads(captured.out)
    return document


def test_select_goes_by_the_sweep_and_by_new_limits(capsys: pytest.CaptureFixture[str]) -> None:
    folder, _ = results(*THREE)
    assert selected(capsys, str(folder))["winner"]["candidate"] == "good"
    assert selected(capsys, str(folder), "--limit", "size_mb<=60")["winner"]["candidate"] == "small"
    assert selected(capsys, str(folder), "--limit", "accuracy>=base+0.3")["winner"]["candidate"] == "good"
    preferring = selected(capsys, str(folder), "--prefer", "size_mb")
    assert preferring["winner"]["candidate"] == "small"
    assert list(preferring["objectives"]) == ["size_mb", "accuracy"]
    assert preferring["limits"] == ["size_mb <= 100"]
    assert set(preferring["front"]) == {"good", "small"}
    nothing = selected(capsys, str(folder), "--limit", "size_mb<=1", "--limit", "accuracy>=0.8", code=4)
    assert nothing["winner"] is None
    assert {near["candidate"] for near in nothing["nearest"]} == {"good", "small"}
    assert selected(capsys, str(folder / "results.csv"))["paired"] is False


def test_select_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    folder, _ = results(*THREE, row("bad", 3, None, 9.0, status="failed", error="oh"))
    assert main(["select", str(folder), "--limit", "accuracy>=0.85"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("Winner: good (trial 1)  int4 b32\n  accuracy 0.900 [0.800, 1], size_mb 90 MB\n")
    assert "uncertain, the interval straddles the threshold: accuracy>=0.85" in said
    assert "compared by" not in said, "it is alone under this limit"
    assert "Front of accuracy, size_mb (2 of 4):" in said
    assert [line.split()[:3] for line in said.splitlines() if line.startswith("*")] == [["*", "good", "1"]]
    assert "bad" not in said
    assert main(["select", str(folder)]) == 0
    assert "  compared by unpaired intervals: the outcomes of single items are not at hand" in capsys.readouterr().out
    assert main(["select", str(folder), "--limit", "size_mb<=40"]) == 4
    said = capsys.readouterr().out
    assert said.splitlines()[0] == "No candidate keeps the limits."
    assert "small int4 b32: misses 'size_mb<=40' by 10" in said


def test_select_without_a_measured_base_says_why_nothing_keeps_the_limit(capsys: pytest.CaptureFixture[str]) -> None:
    base = row("base", 0, None, 500.0, status="failed", error="oh", size_mb=None, itl_ms_p50=None)
    folder, _ = results(base, row("good", 1, 0.9, 90.0), limits='["accuracy >= base"]')
    assert main(["select", str(folder)]) == 4
    assert "'accuracy >= base' cannot be judged: the untouched model was not measured" in capsys.readouterr().out


def test_select_takes_a_csv_of_few_columns(capsys: pytest.CaptureFixture[str]) -> None:
    text = "candidate,trial,kind,status,load_s\na,1,pair,ok,3\nb,2,pair,ok,2\nc,3,pair,failed,\n"
    Path("few.csv").write_text(text, encoding="utf-8")
    assert selected(capsys, "few.csv")["winner"]["candidate"] == "b"
    Path("none.csv").write_text(text.splitlines()[0] + "\n", encoding="utf-8")
    assert main(["select", "none.csv"]) == 5
    assert "No candidate finished." in capsys.readouterr().out


def test_select_with_outcomes_compares_in_pairs(capsys: pytest.CaptureFixture[str]) -> None:
    folder, sweep = results(*THREE)
    with Record(folder, sweep) as record:
        for name, right in (("good", 90), ("small", 50)):
            predicted = [int(n >= right) for n in range(100)]
            outcomes = {"ids": [str(n) for n in range(100)], "predicted": predicted, "gold": [0] * 100}
            record.keep_outcomes(name, "validation", "choice", outcomes)
    document = selected(capsys, str(folder))
    assert (document["winner"]["candidate"], document["paired"]) == ("good", True)
    assert document["steps"][0]["method"] == "paired"
    assert main(["select", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "by accuracy (paired): the winner is the best, 1 is worse" in said
    assert "unpaired" not in said


# --- status --------------------------------------------------------------------------------------------------------


def status_of(capsys: pytest.CaptureFixture[str], folder: Path) -> dict[str, Any]:
    assert main(["status", str(folder), "--json"]) == 0
    status: dict[str, Any] = json.loads(capsys.readouterr().out)
    return status


def test_status_of_a_stopped_sweep(capsys: pytest.CaptureFixture[str]) -> None:
    again = row("good", 1, None, 90.0, status="lost", attempt=1)
    folder, _ = results(THREE[0], again, THREE[1] | {"attempt": 2}, THREE[2], row("bad", 3, None, 9.0, status="failed"))
    status = status_of(capsys, folder)
    assert (status["sweep"], status["state"], status["trials_done"], status["trials_budget"]) == (
        "demo",
        "stopped",
        3,
        4,
    )
    assert status["status_counts"] == {"ok": 2, "failed": 1}
    assert status["best"]["candidate"] == "good"
    assert "running" not in status
    assert main(["status", str(folder)]) == 0
    said = capsys.readouterr().out
    assert said.startswith("demo: stopped, 3 of 4 trials (2 ok, 1 failed)\nbest so far: int4 b32\n")


@pytest.mark.parametrize(
    ("ended", "best"), [("done", "best"), ("interrupted", "best so far"), ("killed", "best so far")]
)
def test_status_says_how_a_sweep_ended(ended: str, best: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder, _ = results(*THREE)
    text = (
        f"started,wall_s,stages_s,trials,ended\n2026-11-28T20:14:45Z,9,8,1,killed\n2026-11-28T20:15:45Z,9,8,2,{ended}\n"
    )
    (folder / "runs.csv").write_text(text, encoding="utf-8")
    assert main(["status", str(folder)]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"demo: {ended}, 2 of 4 trials (2 ok)\n{best}: int4 b32\n")
    status = status_of(capsys, folder)
    assert (status["state"], status["ended"]) == ("stopped", ended)
    (folder / "runs.csv").write_text("no table", encoding="utf-8")
    assert "ended" not in status_of(capsys, folder)


def test_status_while_it_runs(capsys: pytest.CaptureFixture[str]) -> None:
    folder, sweep = results(*THREE)
    with Record(folder, sweep) as record:
        began = time.time() - 65
        record.busy(trial=3, candidate="x", stage="build", since=began)
        status = status_of(capsys, folder)
        assert status["state"] == "running"
        assert status["running"]["pid"] == os.getpid()
        assert main(["status", str(folder)]) == 0
        said = re.search(
            rf"process {os.getpid()} on {re.escape(socket.gethostname())}: trial 3, build for (\d+) s",
            capsys.readouterr().out,
        )
        assert said
        assert 65 <= int(said[1]) <= time.time() - began + 1
    assert status_of(capsys, folder)["state"] == "stopped"


def test_what_was_left_on_the_way_is_no_trial_done(capsys: pytest.CaptureFixture[str]) -> None:
    looked = row("looked", 1, None, 9.0, status="stopped")
    lost = row("lost", 3, None, 9.0, status="lost")  # and then tried again
    folder, _ = results(THREE[0], looked, *THREE[1:], lost, lost | {"attempt": 2, "status": "stopped"})
    status = status_of(capsys, folder)
    assert (status["trials_done"], status["status_counts"]["stopped"]) == (2, 2)


def test_status_before_the_base_model_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    folder, _ = results(limits='["accuracy >= base + 0.2"]')
    status = status_of(capsys, folder)
    assert (status["trials_done"], status["best"], status["status_counts"]) == (0, None, {})
    assert main(["status", str(folder)]) == 0
    assert "none ended yet" in capsys.readouterr().out


@pytest.mark.parametrize(
    "note",
    [
        {"pid": 2**22 + 1, "started": 0.0},
        {"pid": os.getpid(), "started": 0.0},
        {"started": 1.0},
        {"pid": "x", "started": 1.0},
        {"pid": os.getpid()},
    ],
)
def test_a_note_of_a_killed_process_is_not_believed(note: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    folder, _ = results(*THREE)
    told = {"host": socket.gethostname(), "stage": "build", **note}
    (folder / "running.json").write_text(json.dumps(told), encoding="utf-8")
    assert status_of(capsys, folder)["state"] == "stopped"


def test_a_note_of_another_host_is_believed(capsys: pytest.CaptureFixture[str]) -> None:
    folder, _ = results(*THREE)
    note = {"host": "elsewhere", "pid": 1, "started": 1.0, "stage": "build"}
    (folder / "running.json").write_text(json.dumps(note), encoding="utf-8")
    assert status_of(capsys, folder)["state"] == "running"


@pytest.mark.parametrize("text", ["", "[]", "name: x\n", "name: x\nobjectives: {}\nbudget: {}\n",
                                  "name: x\nobjectives: {speed: maximize}\nbudget: {}\n", "{", "\0"])  # fmt: skip
def test_a_folder_with_another_sweep_file_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder, _ = results(*THREE)
    (folder / "sweep.yaml").write_text(text, encoding="utf-8")
    assert main(["status", str(folder)]) == 2
    assert str(folder) in capsys.readouterr().err


# --- run, as far as it gets without a stage -------------------------------------------------------------------------


def test_run_keeps_the_resolved_sweep_and_plan_reads_it(capsys: pytest.CaptureFixture[str]) -> None:
    folder, sweep = results()
    kept = yaml.safe_load((folder / "sweep.yaml").read_text(encoding="utf-8"))
    assert kept == json.loads(json.dumps(sweep.resolved()))
    assert main(["plan", str(folder / "sweep.yaml")]) == 0
    assert "demo: model on cpu" in capsys.readouterr().out


def test_what_may_change_between_runs(here: Path) -> None:
    results(*THREE)
    (here / "sweep.yaml").write_text(SWEEP.replace("name: demo", "name: other").replace("    steps: 30", "    steps: 9"), encoding="utf-8")  # fmt: skip
    results(**{"budget.trials": "99", "limits": "[]", "strategy": "random"})
    with pytest.raises(UsageError, match="seed: differs from the sweep"):
        results(seed="8")
    assert len(read_table(Path("results/demo/results.csv"), Trial)) == 3


def test_no_output_commands_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    Path("results.csv").write_text(
        "candidate,trial,kind,status,graph,lora_r,lora_target_modules,accuracy,size_mb\n"
        "a,1,pair,ok,\x9b2J\u202e,8,q\x1b[31m,0.5,9\n", encoding="utf-8")  # fmt: skip
    assert main(["select", "results.csv"]) == Exit.OK
    assert "q\\x1b[31m" in capsys.readouterr().out
    assert main(["select", "results.csv", "--json"]) == Exit.OK
    text = capsys.readouterr().out
    assert "\x1b" not in text
    assert "\x9b" not in text
    winner = json.loads(text)["winner"]
    assert (winner["graph"], winner["lora_target_modules"]) == ("\x9b2J\u202e", "q\x1b[31m")
    for argv in (["plan", "gone\x1b[31m.yaml"], ["\x1b[31m"], ["plan", "sweep.yaml", "x\n\x1b[31m"], ["select", "a" * 5000],
                 ["status", "a" * 5000], ["bench", "a" * 5000], ["bench", "x", "--threads", "9" * 400],
                 ["run", "x", "--hours", "\x1b"], ["run", "x", "--trials", "9" * 5000]):  # fmt: skip
        try:
            code = main(argv)
        except SystemExit as ended:
            code = int(ended.code or 0)
        said = capsys.readouterr().err
        assert code == Exit.USAGE
        assert "\x1b" not in said
        assert "autotune" in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--threads", "0"], "--threads: must be at least 1, got 0"),
        (["--provider-option", "a=1"], "--provider-option: provider_options means something on cuda"),
        (["--provider", "cuda", "--provider-option", "a"], "--provider-option: takes one KEY=VALUE for each option, got 'a'"),
        (["--provider", "cuda", "--provider-option", "a=1", "--provider-option", "a=2"], "takes one KEY=VALUE for each"),
        (["--provider", "cuda", "--provider-option", "a=x y"], "a value is a text without spaces"),
    ],
)  # fmt: skip
def test_a_bench_that_makes_no_sense_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, options: list[str], said: str
) -> None:
    (tmp_path / "genai_config.json").write_text("{}", encoding="utf-8")
    assert main(["bench", str(tmp_path), *options]) == Exit.USAGE
    assert said in capsys.readouterr().err


def test_an_arena_is_on_or_off(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["bench", "x", "--arena", "maybe"])
    assert "choose from" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["select"], ["select", "--json"], ["status"]])
def test_large_tables_are_read_once(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading ten thousand rows takes the most of what these commands take."""
    folder, _ = results(row("base", 0, 0.4, 500.0), row("a", 1, 0.9, 90.0), row("b", 2, 0.8, 80.0))
    read: list[Path] = []

    def counted(file: Path, kind: Any) -> list[Any]:
        read.append(file)
        return read_table(file, kind)

    monkeypatch.setattr("autotune.results.folder.read_table", counted)
    monkeypatch.setattr("autotune.present.status.read_table", counted)
    assert main([command[0], str(folder), *command[1:]]) == 0
    assert [file.name for file in read].count("results.csv") == 1


def test_the_summary_says_what_was_found_before_how(capsys: pytest.CaptureFixture[str]) -> None:
    folder, _ = results(row("base", 0, 0.4, 500.0), row("a", 1, 0.9, 90.0), row("b", 2, 0.5, 80.0))
    said = explain(chosen(folder), ["The winner is in best", "winner on test: accuracy 0.8"]).splitlines()
    assert said[0].startswith("Winner: ")
    assert said[2:4] == ["  The winner is in best", "  winner on test: accuracy 0.8"]
    assert next(place for place, line in enumerate(said) if line.startswith("  by ")) > 3
    assert next(place for place, line in enumerate(said) if line.startswith("Front of")) > 4
