"""Does the configuration of Olive's published guide run to the end here, as its single point and searched?

`python -m benchmarks.olive_guide ../shared/olive/phi3-local.json --write` gives the file to the command as a user would:
`--set` names the built-in model, the CPU provider and the phrases of this repository as data. It runs the file as it is,
then with `--search`, and writes benchmarks/measured/olive_guide.md from the results. It does not repeat a finished run in `--work`.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from autotune.machine import hardware
from autotune.present.select import select
from autotune.present.tables import settings
from autotune.results.folder import read_results
from autotune.results.rows import Finalist, Trial
from autotune.results.table import read_table
from autotune.sweepfile.olive.reader import SEARCH
from autotune.sweepfile.resolve import load_sweep
from benchmarks.pages import put

OUT = Path(__file__).parent / "measured" / "olive_guide.md"
DONE = "guide.json"
PHRASES = "benchmarks/phrase_tone"
SETS: dict[str, str] = {
    "model": "smollm2-135m-instruct",
    "target.provider": "cpu",
    "data.train": f"{PHRASES}/train.jsonl",
    "data.test": f"{PHRASES}/test.jsonl",
}
"""What a user changes of the guide's file, which names Phi-3, CUDA and a file of its own."""
CAPS: dict[str, str] = {
    "train.max_length": "256",
    "data.max_items": "{validation: 100, test: 100}",
    "target.timing": "{processes: 3, most: 5, repeats: 0}",
}
"""What keeps the runs short on two cores."""
RUNS: Mapping[str, Sequence[str]] = {"single point": (), "searched": ("--search", "--trials", "3", "--hours", "0.25")}
"""By name of the run, the options besides the changes."""


def command(file: str, options: Sequence[str], out: Path) -> list[str]:
    """Return the words of a run behind `autotune`."""
    changes = [part for key, value in (SETS | CAPS).items() for part in ("--set", f"{key}={value}")]
    return ["run", file, *options, *changes, "--out", str(out)]


def run(file: Path, name: str, out: Path) -> None:
    """Do one run, and keep what it took and said. Raises CalledProcessError where it ends in anything but a model."""
    if (out / DONE).is_file():
        return
    words = command(str(file), RUNS[name], out)
    load = psutil.getloadavg()[0]
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "autotune", *words], capture_output=True, text=True, encoding="utf-8", check=False
    )
    took = time.perf_counter() - began
    sys.stderr.write(done.stderr)
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, words, done.stdout, done.stderr)
    sets = [f"{key}={value}" for key, value in (SETS | CAPS).items()] + [SEARCH] * ("--search" in RUNS[name])
    notes = [*load_sweep(file, sets).notes, *(line for line in done.stderr.splitlines() if " has no " in line)]
    found = {"wall_s": took, "load": [load, psutil.getloadavg()[0]], "notes": notes, "said": done.stdout}
    (out / DONE).write_text(json.dumps(found), encoding="utf-8")


def described(name: str, file: str, out: Path) -> str:
    """Return the section of a run: its command, what it took, its rows and its winner."""
    about: dict[str, Any] = json.loads((out / DONE).read_text(encoding="utf-8"))
    rows = read_results(out)
    winner = select(out).choice.winner
    shown = shlex.join(command(file, RUNS[name], Path("results") / name.replace(" ", "-")))
    before, after = about["load"]
    lines = [
        f"## {name[0].upper()}{name[1:]}", "", "```", f"autotune {shown}", "```", "",
        f"{about['wall_s'] / 60:.1f} minutes; load average {before:.1f} before and {after:.1f} after. "
        f"{len(rows)} rows, the untouched model among them.", "",
        "| trial | settings | status | loss on | steps | accuracy [95 %], items | ms a token | MB | train, build, check, score, time: s |",
        "|--:|---|---|---|--:|---|--:|--:|---|",
    ]  # fmt: skip
    for row in rows:
        mark = " **(winner)**" if winner is not None and row.candidate == winner.id and row.trial else ""
        lines.append(f"| {row.trial or 'base'} | {settings(row.settings).replace(' | ', ', ')}{mark} | {row.status} | "
                     f"{row['lora_loss_on'] or ''} | {row.number('train_steps') or 0:.0f} | {_score(row)} | "
                     f"{_number(row.number('itl_ms_p50'), 2)} | {_number(row.number('size_mb'), 0)} | {_costs(row)} |")  # fmt: skip
    lines += ["", "On the test split, which the search does not see:", ""]
    for one in read_table(out / "finalists.csv", Finalist):
        if one.number("accuracy") is not None:
            lines.append(f"- {one.role}: accuracy {_score(one)}")
    if about["notes"]:
        lines += ["", "What the command told:", "", *(f"- {note}" for note in about["notes"])]
    return "\n".join(lines)


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _score(row: Trial | Finalist) -> str:
    if row.number("accuracy") is None:
        return ""
    interval = row.interval("accuracy")
    between = f" [{interval.low:.3f}, {interval.high:.3f}]" if interval is not None else ""
    return f"{_number(row.number('accuracy'), 3)}{between}, {_number(row.number('accuracy_n'), 0)}"


def _costs(row: Trial) -> str:
    return ", ".join(_number(row.cost_s(stage), 0) or "-" for stage in ("train", "build", "check", "score", "time"))


def page(file: str, work: Path) -> str:
    """Return the whole page."""
    machine = hardware()
    lines = [
        "# The file of Olive's guide, run to the end", "",
        f"Made by `python -m benchmarks.olive_guide FOLDER/{file} --write` on {machine['processor']}, {machine['cores']} cores. "
        f"`{file}` is the published guide's configuration, as it stands there. `--set` names a model, a provider and data that "
        "this machine has; the limits on items and processes keep the runs short. A stage that shows `-` came from the cache, or was not needed.",
        "",
    ]  # fmt: skip
    lines += [described(name, file, work / name.replace(" ", "-")) + "\n" for name in RUNS]
    return "\n".join(lines)


def main() -> None:
    """Run both, and print the page or write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--work", type=Path, default=Path("results/olive-guide"))
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    for name in RUNS:
        run(arguments.file, name, arguments.work / name.replace(" ", "-"))
    text = page(arguments.file.name, arguments.work)
    put(text, OUT, arguments.write)


if __name__ == "__main__":
    main()
