"""The live view of a sweep: what stands in it, that it fits any terminal, and that it leaves every terminal clean."""

from __future__ import annotations

import html
import io
import os
import pty
import random
import re
import select as ready
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from rich.console import Console
from terminal import Terminal
from waiting import HANG_S

from autotune.candidate import Candidate, Recipe
from autotune.present.live import LiveView, view_lines
from autotune.present.so_far import SoFar
from autotune.present.status import read_status
from autotune.results.columns import STATUSES
from autotune.results.folder import read_results
from autotune.results.rows import Trial
from autotune.results.table import read_table
from autotune.scheduler.events import (
    BestSoFar,
    CandidateEnded,
    Event,
    RowWritten,
    StageBegan,
    TimeLeft,
    WorkersEmployed,
)
from autotune.space.domains import Choice
from autotune.space.space import Space
from autotune.sweepfile.schema import Budget
from benchmarks import live_picture

SPACE = Space({"r": Choice((8,))}, (), (), {"batch_size": 8, "max_length": 128, "steps": 10})
RECIPES = (
    Recipe(precision="fp32"),
    Recipe(precision="int8"),
    Recipe(precision="int4", algorithm="default", block_size=32),
    Recipe(precision="int4", algorithm="k_quant", block_size=32, mixed_precision="last_matmul:int8,mixed_layers:int8"),
)
PAIRS = [SPACE.candidate({}, recipe) for recipe in RECIPES]
EXAMPLE = Path(__file__).parents[2] / "results" / "example"


class Clock:
    """A clock that is told the time."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def so_far(clock: Clock | None = None, **budget: Any) -> SoFar:
    return SoFar(
        "phrase-tone-cpu",
        Budget(**(budget or {"trials": 40, "hours": 8})),
        ["accuracy", "itl_ms_p50", "size_mb"],
        clock=clock or Clock(),
    )


def row_of(candidate: Candidate, trial: int = 1, status: str = "ok", **cells: Any) -> Trial:
    measured = {"accuracy": 0.67, "accuracy_low": 0.602, "accuracy_high": 0.731, "itl_ms_p50": 4.36, "size_mb": 83.8}
    about = {"candidate": candidate.id, "trial": trial, "status": status, **(measured if status == "ok" else {})}
    return Trial(about | dict(candidate.columns()) | cells)


def told(view: SoFar, *events: Event) -> SoFar:
    for event in events:
        view.hear(event)
    return view


def lines_of(view: SoFar, width: int = 80, height: int = 24) -> list[str]:
    return [line.plain for line in view_lines(view.picture(), width, height)]


def test_what_stands_there_in_eighty_columns() -> None:
    clock = Clock()
    view = so_far(clock)
    told(view, WorkersEmployed(2), StageBegan(13, PAIRS[3], "finetune"))
    clock.now += 65
    told(view, StageBegan(14, PAIRS[1], "score"))
    best = row_of(PAIRS[2], 1)
    front = (best, row_of(PAIRS[0], 2, accuracy=0.73, itl_ms_p50=16.0, size_mb=544.0))
    told(view, *(RowWritten(row, None) for row in front), BestSoFar(best, front), TimeLeft(11_400.0))
    told(view, RowWritten(row_of(PAIRS[1], 3, "out_of_memory", error="x"), None))
    clock.now += 3
    assert lines_of(view) == [
        f"phrase-tone-cpu  {chr(0x2501) * 2}{chr(0x2500) * 22}  3 of 40 trials",
        "worker 1  [13]  fine-tuning   68 s  r8 a16 lr 0.001 all-linear | int4 k_quant …",
        "worker 2  [14]  scoring        3 s  r8 a16 lr 0.001 all-linear | int8",
        "so far    2 measured, 1 failed (1 out_of_memory)",
        "front     2: accuracy 0.670\N{EN DASH}0.730, itl_ms_p50 4.36\N{EN DASH}16, size_mb 83.8\N{EN DASH}544",
        f"best      {PAIRS[2].id[:8]}  r8 a16 lr 0.001 all-linear | int4 b32",
        "          accuracy 0.670 [0.602, 0.731], itl_ms_p50 4.36, size_mb 83.8",
        "left      about 3 h 10 min; of the budget 37 trials and 7 h 59 min  (68 s gone)",
    ]  # fmt: skip


@pytest.mark.parametrize("seed", range(40))
def test_it_fits_any_terminal_and_keeps_its_height(seed: int) -> None:
    """Whatever happens: lines are narrower than the terminal, fewer than its rows, and as many as before."""
    draw, clock = random.Random(seed), Clock()
    budget = draw.choice([{"trials": 7}, {"hours": 0.5}, {"trials": 1_000_000, "hours": 1e6}, {}])
    view = SoFar("s" * draw.choice([1, 64]), Budget(**budget), ["accuracy", "size_mb"], clock=clock)
    workers, width, height = draw.choice([1, 2, 5, 64]), draw.randint(1, 200), draw.randint(2, 50)
    told(view, WorkersEmployed(workers), StageBegan(0, Candidate(), "score"), CandidateEnded(0, Candidate()))
    under_way: list[Candidate] = []
    heights = set()
    for trial in range(1, 40):
        clock.now += draw.expovariate(0.01)
        match draw.randrange(4):
            case 0 if under_way:
                done = under_way.pop(draw.randrange(len(under_way)))
                row = row_of(done, trial, draw.choice(list(STATUSES)), error="\x1b[2J hostile\nline", accuracy=None)
                best = row_of(done, trial)
                told(
                    view,
                    CandidateEnded(trial, done),
                    RowWritten(row, best),
                    BestSoFar(best, (best,) * draw.randrange(9)),
                )
            case 1 if len(under_way) < min(workers, len(PAIRS)):
                under_way.append(next(pair for pair in PAIRS if pair not in under_way))
                told(view, StageBegan(trial, under_way[-1], draw.choice(["finetune", "time", "score on test, winner"])))
            case 2:
                told(view, TimeLeft(draw.choice([None, 0.0, 1e9])))
            case _:
                if under_way:
                    told(view, StageBegan(trial, draw.choice(under_way), draw.choice(["merge", "turns", "own_stage"])))
        lines = view_lines(view.picture(), width, height)
        assert all(line.cell_len <= max(1, width - 1) for line in lines)
        assert "\x1b" not in "".join(line.plain for line in lines)
        assert "\n" not in "".join(line.plain for line in lines)
        heights.add(len(lines))
    assert len(heights) == 1
    assert max(heights) <= height - 1


def test_each_target_has_its_best() -> None:
    view = SoFar("s", Budget(trials=9), ["accuracy", "size_mb"], clock=Clock(), targets=["laptop", "box"])
    before = len(lines_of(view))
    told(view, BestSoFar(row_of(PAIRS[0]), (row_of(PAIRS[0]), row_of(PAIRS[1])), "box"))
    told(view, RowWritten(row_of(PAIRS[0]), None))
    lines = lines_of(view)
    assert lines[3:5] == [
        "best      laptop  no candidate keeps the limits  ",
        f"best      box  {PAIRS[0].id[:8]}  r8 a16 lr 0.001 all-linear | fp32  accuracy 0.670 [0.…",
    ]
    assert len(lines) == before


def test_a_line_belongs_to_a_worker_until_its_candidate_ends() -> None:
    view = told(so_far(), WorkersEmployed(3), *(StageBegan(n, PAIRS[n], "finetune") for n in range(3)))
    told(view, StageBegan(0, PAIRS[0], "merge"), CandidateEnded(1, PAIRS[1]), StageBegan(2, PAIRS[2], "build"))
    names = [doing.candidate if doing else None for doing in view.picture().workers]
    assert names == [PAIRS[0].id, None, PAIRS[2].id]
    told(view, StageBegan(7, PAIRS[3], "finetune"))
    assert [doing and doing.trial for doing in view.picture().workers] == [0, 7, 2]
    assert lines_of(view, height=9)[1:4] == [
        "worker 1  [-]   merging        0 s  r8 a16 lr 0.001 all-linear | fp32",
        "2 more    1 fine-tuning, 1 building",
        "so far    no candidate has ended",
    ]


def test_a_timing_waits_for_stages_at_work_and_others_wait_for_it() -> None:
    clock = Clock()
    view = told(so_far(clock), WorkersEmployed(3), StageBegan(1, PAIRS[0], "finetune"))

    def waiting() -> list[int]:
        clock.now += 1
        picture = view.picture()
        return [doing.trial for doing in picture.workers if doing is not None and picture.waits(doing)]

    assert waiting() == []
    told(view, StageBegan(2, PAIRS[1], "time"))
    assert waiting() == [2]
    told(view, StageBegan(3, PAIRS[2], "score"))
    assert waiting() == [2, 3]
    told(view, WorkersEmployed(3, one_host=False))
    assert waiting() == [], "on several machines nobody says what waits for what"
    told(view, WorkersEmployed(3))
    told(view, CandidateEnded(1, PAIRS[0]))
    assert waiting() == [3]
    told(view, CandidateEnded(2, PAIRS[1]))
    assert waiting() == []


def test_what_is_left_is_as_the_sweep_said_and_passes() -> None:
    clock = Clock()
    view = so_far(clock, trials=40)
    assert lines_of(view)[-1] == "left      not known yet; of the budget 40 trials  (0 s gone)"
    told(view, TimeLeft(700.0))
    clock.now += 100
    assert lines_of(view)[-1] == "left      about 10 min; of the budget 40 trials  (2 min gone)"
    clock.now += 10_000
    assert view.picture().left_s == 0.0
    told(view, TimeLeft(None))
    assert view.picture().left_s is None


def test_earlier_runs_count_as_status_counts_them(tiny_sweep: Any) -> None:
    for folder in (EXAMPLE, tiny_sweep.out):
        rows = read_table(folder / "results.csv", Trial)
        picture = SoFar("s", Budget(trials=99), ["accuracy"], rows, spent_before_s=3600.0).picture()
        status = read_status(folder)
        assert picture.trials == status["trials_done"]
        assert sum(picture.counts.values()) == sum(status["status_counts"].values())
        assert picture.counts["measured"] == status["status_counts"]["ok"]
        assert len({row.candidate for row in read_results(folder) if row.trial}) == sum(picture.counts.values())
        assert 3600 <= picture.spent_s < 3700


def terminal_of(view: SoFar, width: int) -> tuple[LiveView, Terminal, io.StringIO]:
    stream = io.StringIO()
    console = Console(
        file=stream, force_terminal=True, highlight=False, soft_wrap=True, width=width, height=24, _environ={}
    )
    return LiveView(view, console), Terminal(width), stream


@pytest.mark.parametrize("widths", [(80, 60, 100), (80, 33, 34, 20), (40, 30, 25, 24, 90, 11), (60, 59, 58, 57)])
def test_lasting_lines_stand_above_it_and_nothing_of_it_stays(widths: tuple[int, ...]) -> None:
    """The terminal breaks the lines anew at each width, and what is drawn next covers them all."""
    view = told(so_far(), WorkersEmployed(3), *(StageBegan(n, PAIRS[n], "finetune") for n in range(3)))
    best = row_of(PAIRS[3])
    told(view, BestSoFar(best, (best,)))
    live, terminal, stream = terminal_of(view, widths[0])
    lasting = [f"line {n} " + "word " * 3 * n for n in range(len(widths))]

    def seen() -> None:
        terminal.write(stream.getvalue())
        stream.seek(0)
        stream.truncate()

    with live:
        live._live.auto_refresh = False
        for line, width in zip(lasting, widths, strict=True):
            seen()
            live.console.width = width
            terminal.resize(width)
            live.say(line)
            live._live.refresh()
            seen()
            drawn = [line.plain.rstrip() for line in view_lines(view.picture(), width, 24)]
            assert terminal.text.split("\n")[-len(drawn) :] == drawn
            assert not terminal.cursor_shown
    seen()
    assert ["".join(line).rstrip() for line in terminal.lines if "".join(line)] == [line.rstrip() for line in lasting]
    assert (terminal.cursor_shown, terminal.unknown) == (True, [])
    assert terminal.together > 0


SCRIPT = """
import logging, os, sys, time, warnings
from autotune.candidate import Candidate
from autotune.present.progress import Progress
from autotune.present.so_far import SoFar
from autotune.scheduler.events import Note, StageBegan
from autotune.sweepfile.schema import Budget

how, *seen = sys.argv[1:]

def wait():  # until who looks at the terminal says that he has seen the view
    while seen and not os.path.exists(seen[0]):
        time.sleep(0.01)
    del seen[:1]

so_far = SoFar("named", Budget(trials=3), ["accuracy"])
try:
    with Progress(so_far, plain=how == "plain") as progress:
        progress(StageBegan(0, Candidate(), "score"))
        wait()
        progress(Note("a note"))
        warnings.warn("a warning")
        logging.basicConfig()
        logging.error("logged")
        sys.stderr.write("said by others\\n")
        wait()
        if how == "error":
            raise RuntimeError("a fault")
        if how == "interrupt":
            raise KeyboardInterrupt
except (RuntimeError, KeyboardInterrupt) as error:
    sys.stderr.write(f"autotune: {error!r}\\n")
print("what was found")
"""


def in_terminal(
    command: list[str], env: dict[str, str] | None = None, watch: Callable[[str, int], None] = lambda text, pid: None
) -> tuple[int, str]:
    """Run a command in a terminal of 80 columns. Returns its exit code and all that it wrote."""
    controller, terminal = pty.openpty()
    sized = {"COLUMNS": "80", "LINES": "24", "TERM": "xterm"}
    started = subprocess.Popen(
        command, stdin=terminal, stdout=terminal, stderr=terminal, env={**os.environ, **sized, **(env or {})},
        process_group=0,  # as a shell starts it: Ctrl-Z stops no process that has no shell
    )  # fmt: skip
    os.close(terminal)
    text, until = b"", time.monotonic() + HANG_S
    while time.monotonic() < until:
        if ready.select([controller], [], [], 0.2)[0]:
            try:
                chunk = os.read(controller, 65536)
            except OSError:  # Linux says so where the other end is closed
                break
            if not chunk:
                break
            text += chunk
        watch(text.decode("utf-8", "replace"), started.pid)
    os.close(controller)
    return started.wait(HANG_S), text.decode("utf-8", "replace")


class Looks:
    """Somebody who looks at the terminal, and tells `SCRIPT` when he has seen the view, before and after what others say."""

    def __init__(self, folder: Path) -> None:
        self.files = [folder / "before", folder / "after"]

    def __call__(self, text: str, pid: int) -> None:
        before, _, after = text.partition("said by others")
        for file, part in zip(self.files, (before, after), strict=True):
            if "worker" in part:
                file.touch()


@pytest.mark.parametrize("how", ["end", "error", "interrupt"])
def test_what_others_say_meanwhile_stands_above_it_and_the_end_is_clean(how: str, tmp_path: Path) -> None:
    looks = Looks(tmp_path)
    code, text = in_terminal([sys.executable, "-c", SCRIPT, how, *map(str, looks.files)], watch=looks)
    assert code == 0
    assert "worker" in text
    terminal = Terminal()
    terminal.write(text)
    rows = [row for row in terminal.rows if row]
    assert rows[0] == "a note"
    assert "a warning" in terminal.text
    assert "ERROR:root:logged" in rows
    assert "said by others" in rows
    assert rows[-1] == "what was found"
    assert ("autotune: RuntimeError('a fault')" in rows) == (how == "error")
    assert not any(row.startswith(("named", "worker", "so far", "front", "best", "left")) for row in rows)
    assert (terminal.cursor_shown, terminal.unknown) == (True, [])


def test_ctrl_z_gives_the_shell_its_cursor_and_the_view_comes_back_below(tmp_path: Path) -> None:
    looks = Looks(tmp_path)
    shell = "[1]+  Stopped\r\n$ fg\r\n"
    at: dict[str, int] = {}

    def watch(text: str, pid: int) -> None:
        if "stop" not in at and text.count("worker") > 0:
            at["stop"] = len(text)
            os.kill(pid, signal.SIGTSTP)
        elif "go on" not in at and "stop" in at and psutil.Process(pid).status() == psutil.STATUS_STOPPED:
            at["go on"] = len(text)
            os.kill(pid, signal.SIGCONT)
        elif "go on" in at:
            looks(text, pid)

    code, text = in_terminal([sys.executable, "-c", SCRIPT, "end", *map(str, looks.files)], watch=watch)
    assert code == 0
    assert set(at) == {"stop", "go on"}
    terminal = Terminal()
    terminal.write(text[: at["go on"]])
    assert (terminal.cursor_shown, terminal.column) == (True, 0)
    terminal.write(shell)
    terminal.write(text[at["go on"] :])
    assert "\x1b[?25l" in text[at["go on"] :]
    rows = [row for row in terminal.rows if row]
    assert rows[rows.index("[1]+  Stopped") :][:3] == ["[1]+  Stopped", "$ fg", "a note"]
    assert rows[-1] == "what was found"
    assert (terminal.cursor_shown, terminal.unknown) == (True, [])


def test_ctrl_c_while_it_ends_leaves_the_cursor(monkeypatch: pytest.MonkeyPatch) -> None:
    live, terminal, stream = terminal_of(so_far(), 80)

    refresh, asked = live._live.refresh, list[int]()

    def interrupted() -> None:
        if threading.current_thread() is threading.main_thread() and not asked:
            asked.append(1)
            raise KeyboardInterrupt
        refresh()

    with pytest.raises(KeyboardInterrupt), live:
        monkeypatch.setattr(live._live, "refresh", interrupted)
    terminal.write(stream.getvalue())
    assert terminal.cursor_shown


@pytest.mark.parametrize(("how", "env"), [("plain", {}), ("end", {"TERM": "dumb"}), ("end", {"TERM": "unknown"})])
def test_plain_lines_where_they_are_asked_for_or_the_terminal_is_dumb(how: str, env: dict[str, str]) -> None:
    code, text = in_terminal([sys.executable, "-c", SCRIPT, how], env)
    assert code == 0
    assert "\x1b" not in text
    assert text.replace("\r", "").startswith("[-] scoring the untouched model\na note\n")


def test_no_colour_where_none_is_wanted(tmp_path: Path) -> None:
    coloured = r"\x1b\[[0-9;]*3[0-7][0-9;]*m"

    def seen(no_color: str) -> str:
        looks = Looks(tmp_path / f"looks{no_color}")
        looks.files[0].parent.mkdir()
        command = [sys.executable, "-c", SCRIPT, "end", *map(str, looks.files)]
        return in_terminal(command, {"NO_COLOR": no_color}, looks)[1]

    with_colour, without = seen(""), seen("1")

    assert re.search(coloured, with_colour)
    assert not re.search(coloured, without)
    assert "worker" in without


@pytest.mark.parametrize("env", [{}, {"FORCE_COLOR": "1"}, {"TTY_COMPATIBLE": "1"}])
def test_no_codes_where_stderr_is_no_terminal(env: dict[str, str]) -> None:
    """Whatever the environment says of colours: lines that go to a file hold no codes, and rich is not loaded."""
    script = SCRIPT + "\nprint('rich' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script, "end"], capture_output=True, text=True, check=True, env={**os.environ, **env}
    )
    assert "\x1b" not in done.stdout + done.stderr
    assert done.stderr.startswith("[-] scoring the untouched model\na note\n")
    assert done.stdout.splitlines() == ["what was found", "False"]


@pytest.mark.parametrize(
    "command", [["--help"], ["select", str(EXAMPLE)], ["status", str(EXAMPLE)], ["schema"], ["cache", "list"]]
)
def test_other_commands_start_without_the_library_of_the_view(command: list[str]) -> None:
    script = "import sys\nfrom autotune.cli import main\ntry: main(sys.argv[1:])\nfinally: print('rich' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script, *command], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_a_sweep_in_a_terminal_is_stopped_and_goes_on_to_a_clean_end(tiny_sweep: Any, tmp_path: Path) -> None:
    """Ctrl-C in the middle of a real sweep, then the same command again: the view goes, what was said and found stays."""
    file, out = tiny_sweep.file, tmp_path / "out"
    command = [sys.executable, "-m", "autotune", "run", str(file), "--out", str(out), "--set", "seed=1"]
    asked: list[int] = []

    def stop(text: str, pid: int) -> None:
        if "fine-tuning" in text and not asked:
            asked.append(pid)
            os.kill(pid, signal.SIGINT)

    code, text = in_terminal(command, watch=stop)
    terminal = Terminal()
    terminal.write(text)
    rows = [row for row in terminal.rows if row]
    assert (code, rows[-1]) == (130, "autotune: interrupted; run the same command again to go on")
    assert any(row.startswith("autotune: stopping") for row in rows)
    assert not any(row.startswith(("worker", "so far", "left")) for row in rows)
    assert terminal.cursor_shown
    shutil.rmtree(out)
    shutil.copytree(tiny_sweep.out, out)
    code, text = in_terminal([*command[:-2]])
    terminal = Terminal()
    terminal.write(text)
    rows = [row for row in terminal.rows if row]
    found = [n for n, row in enumerate(rows) if row.startswith("Winner: ")]
    assert code == 0
    assert "worker" in text
    assert len(found) == 1
    assert not any(row.startswith(("worker", "so far", "left")) for row in rows)
    assert (terminal.cursor_shown, terminal.unknown) == (True, [])


def test_the_picture_in_the_readme_is_what_the_view_shows() -> None:
    """The texts of the committed picture are those that its command draws now."""

    def texts(svg: str) -> list[str]:
        return [html.unescape(part).replace("\xa0", " ") for part in re.findall(r"<text[^>]*>([^<]*)</text>", svg)]

    kept = live_picture.PICTURE.read_text(encoding="utf-8")
    drawn = texts(live_picture.picture())
    assert texts(kept) == drawn
    assert any("front" in text for text in drawn)
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", kept)
