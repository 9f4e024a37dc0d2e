"""Every mistake of `bad_inputs` ends with the right exit code and a message that says where, what and how to mend it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bad_inputs
import pytest
from bad_inputs import MISTAKES, PLAN, Mistake, call, first_line, write_demo

from autotune.execution.local import LocalEngine


@pytest.fixture(autouse=True)
def _apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folder and a cache of its own, the process as it was, and no stage: nothing here may get so far."""

    def refuse(self: LocalEngine, job: Any, *rest: Any) -> None:
        pytest.fail(f"a worker was started: {job}")

    monkeypatch.setattr(LocalEngine, "run", refuse)
    monkeypatch.setattr(LocalEngine, "run_fresh", refuse)
    monkeypatch.setenv("AUTOTUNE_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    environment, handler = dict(os.environ), signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)
    for name in set(os.environ) - set(environment):
        del os.environ[name]


def runs() -> Iterator[Any]:
    """Each mistake with its command; a mistake that `plan` refuses, `run` must refuse as well."""
    for mistake in MISTAKES:
        yield pytest.param(mistake, mistake.argv, id=mistake.name)
        if mistake.command.startswith(PLAN) and not mistake.plan_only:
            yield pytest.param(mistake, ["run", *mistake.argv[1:]], id=f"{mistake.name} (run)")


@pytest.mark.parametrize(("mistake", "argv"), list(runs()))
def test_a_mistake_is_refused(mistake: Mistake, argv: list[str]) -> None:
    with mistake.make(Path()):
        code, text = call(argv)
    assert code == mistake.code, text
    assert "Traceback" not in text
    for fragment in mistake.says:
        assert fragment in text
    assert first_line(text), "the table shows this line"


def test_the_sweep_is_right_without_a_mistake() -> None:
    write_demo(Path())
    code, text = call(["plan", "sweep.yaml"])
    assert code == 0, text
    assert "8 train, 4 validation" in text


def test_there_are_many_mistakes_with_different_names() -> None:
    assert len(MISTAKES) >= 250
    assert len({mistake.name for mistake in MISTAKES}) == len(MISTAKES)
    for mistake in MISTAKES:
        assert mistake.says, mistake.name


def test_the_table_has_a_row_for_each_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    some = [mistake for mistake in MISTAKES if mistake.name in ("unknown key in lora", "no command")]
    monkeypatch.setattr(bad_inputs, "MISTAKES", some)
    assert bad_inputs.table().splitlines() == [
        "| mistake | exit code | first line of message |",
        "|---|---|---|",
        "| unknown key in lora | 2 | sweep.yaml:12: space.lora.rank: unknown key; did you mean 'r'? |",
        "| no command | 2 | autotune: error: the following arguments are required: COMMAND |",
    ]


def test_the_table_of_mistakes_names_no_folder_of_the_machine_that_made_it(monkeypatch: pytest.MonkeyPatch) -> None:
    named = [mistake for mistake in MISTAKES if mistake.name == "misspelt function of a metric"]
    monkeypatch.setattr(bad_inputs, "MISTAKES", named)
    assert "| tones.py: data.metric: " in bad_inputs.table()
