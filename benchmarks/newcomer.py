"""Does a newcomer find the right file at the first guess, from the names of folders and files alone?

python -m benchmarks.newcomer                     # prints the questions and the names, for a reader who has not seen the code
python -m benchmarks.newcomer ANSWERS             # counts: ANSWERS has one file a line, in the order of the questions
python -m benchmarks.newcomer ANSWERS --write     # and writes measured/newcomer.md

A question names no file and no function. The answer is the file that defines the function or class in question; a test checks
that it still does. The reader opens no file, and has one guess per question.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = Path(__file__).parent / "measured" / "newcomer.md"

QUESTIONS: tuple[tuple[str, str, str], ...] = (
    ("where is the Wilson interval", "analysis/statistics.py", "wilson"),
    ("what decides that a candidate is over_limit", "pipeline/over_limit.py", "over_limit"),
    ("where is a new execution provider added", "providers.py", "Provider"),
    ("who decides which graphs are timed in turns at the end", "scheduler/finalists.py", "Finalists"),
    ("where is the rule by which the winner is chosen", "analysis/selection.py", "choose"),
    ("where is the hypervolume computed", "analysis/pareto.py", "hypervolume"),
    ("where is a LoRA adapter trained", "stages/finetune.py", "finetune"),
    ("where is a built graph compared with the PyTorch model", "stages/check_build.py", "agreement"),
    ("where is best/ tried from the text of prompts", "stages/verify_best.py", "verify"),
    ("where are the columns of results.csv declared", "results/columns.py", "Column"),
    ("what decides which cache entries are evicted", "artifacts/room.py", "evict"),
    ("how long will a training take: where is that estimated", "costs/model.py", "CostModel"),
    ("where are the keys of a sweep file declared", "sweepfile/schema.py", "Sweep"),
    ("where is YAML parsed so that a message can name the line", "sweepfile/syntax.py", "read_file"),
    ("where are labels that differ in a space only warned of", "data/labels.py", "label_notes"),
    ("where is the separator of a CSV file found", "data/delimited.py", "read_delimited"),
    ("where are ShareGPT conversations read", "data/conversations.py", "conversation_of"),
    ("where are rows held out for validation", "data/splits.py", "hold_out"),
    ("where are tokens of the hub hidden in logs", "secrets.py", "redact"),
    ("who waits until the host is quiet before a timing", "execution/host_lock.py", "HostLock"),
    ("which timings are made again because other work disturbed them", "scheduler/disturbed_timings.py", "Provisional"),
    ("where does frontier keep what it expects before the first score", "strategies/frontier/priors.py", "prior_of"),
    ("where are Optuna's samplers adapted", "strategies/optuna_samplers.py", "Sampled"),
    ("where is the model card of an export written", "shipping/card.py", "card"),
    ("where are the passes of an Olive file read", "sweepfile/olive/passes.py", "read_passes"),
)
"""What is asked; the file below autotune/ that defines the answer, and the name that it defines there."""


def names() -> list[str]:
    """Return the Python files of the package, below autotune/."""
    package = ROOT / "autotune"
    return sorted(file.relative_to(package).as_posix() for file in package.rglob("*.py") if file.name != "__init__.py")


def page(answers: Sequence[str]) -> str:
    """Return the table of questions, answers and where it is. Raises ValueError if their number is wrong."""
    if len(answers) != len(QUESTIONS):
        raise ValueError(f"{len(QUESTIONS)} questions have {len(answers)} answers")
    guesses = [answer.strip().removeprefix("autotune/") for answer in answers]
    right = sum(guess == file for guess, (_, file, _) in zip(guesses, QUESTIONS, strict=True))
    lines = [
        "# A newcomer's first guess",
        "",
        "`python -m benchmarks.newcomer` printed the questions and the names of files to a reader who had not seen the code.",
        f"{right} of {len(QUESTIONS)} first guesses are right.",
        "",
        "| question | guess | it is in |",
        "|---|---|---|",
        *(
            f"| {question} | {guess} | {'there' if guess == file else file} |"
            for guess, (question, file, _) in zip(guesses, QUESTIONS, strict=True)
        ),
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Print the questions, or count the answers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("answers", type=Path, nargs="?")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    if arguments.answers is None:
        print("\n".join([*(f"{n}. {question}" for n, (question, _, _) in enumerate(QUESTIONS, 1)), "", *names()]))
        return 0
    text = page(arguments.answers.read_text(encoding="utf-8").split("\n")[: len(QUESTIONS)])
    print(text, end="")
    if arguments.write:
        PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
