"""Does the page choose as `select` does? Random limits and preferences on results folders, answered by both.

python -m benchmarks.report_choices [--questions N] [--write] [DIR ...]   # needs node; without DIR: six made folders
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autotune.errors import UsageError
from autotune.metrics import METRICS
from autotune.present.select import as_json, select
from autotune.report.data import read_report
from autotune.report.page import bundle
from autotune.results.folder import read_results, read_sweep
from benchmarks.report_folders import Shape, make_folder

SHAPES = (
    Shape(40, metric="choice", turns=True),
    Shape(60, metric="f1", seed=1),
    Shape(50, metric="perplexity", seed=2, turns=True),
    Shape(50, metric="choice", outcomes=False, seed=3),
    Shape(300, items=120, metric="choice", seed=4),
    Shape(40, items=90, metric="rouge_l", seed=6),
)
"""The folders: right or wrong in pairs, parts of macro F1, of perplexity, unpaired intervals, a larger family, shares."""

MEASURED = Path(__file__).parent / "measured" / "report_choices.md"
HEAD = """# Does the page choose as `select` does?

Written by `python -m benchmarks.report_choices --write`: random limits (none to three, numbers and what `base` is compared
with) and preferences, on made results folders. Compared are the winner, who keeps the limits, the uncertain limits, the
nearest where there is no winner, and each step's leader, ties, those that are beaten with their p-values, and the method.

| sweep | rows | scores compared | questions | answered by both | differences |
|---|---|---|---|---|---|
"""

ASK = """
const { folder, questions } = JSON.parse(require("node:fs").readFileSync(0, "utf8"));
const sweep = new Sweep(folder);
const answers = questions.map(({ limits, prefer }) => {
  const found = solve(sweep, limits.map(parseLimit), prefer ?? "");
  return {
    winner: found.winner, leader: found.leader, feasible: found.feasible,
    uncertain: found.uncertain.map(({ text }) => text),
    steps: found.steps.map((step) => ({ ...step, beaten: Object.fromEntries(step.beaten) })),
    nearest: found.nearest.map(({ id, misses }) => [id, misses.map(({ limit, by }) => [limit.text, by])]),
  };
});
process.stdout.write(JSON.stringify(answers));
"""


def questions_for(folder: Path, count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Return random limits and preferences, about what was measured in a folder."""
    draw = random.Random(seed)
    rows = [row.values for row in read_results(folder) if row.status == "ok"]
    measured = list(dict.fromkeys(name for row in rows for name in row))
    found = []
    for _ in range(count):
        limits = []
        for name in draw.sample(measured, draw.randint(0, min(3, len(measured)))):
            values = sorted(row[name] for row in rows if name in row)
            value = draw.choice(values) if draw.random() < 0.4 else draw.uniform(values[0], values[-1])
            bound = draw.choice(
                [f"{value:.4g}", repr(value), f"base + {value / 10:.3g}", f"base * {draw.uniform(0.5, 2):.2f}"]
            )
            if bound.startswith("base") and draw.random() < 0.5:
                bound = f"{value:.6g}"
            sign, metric = draw.choice(["<=", ">="]), METRICS[name]
            if metric.kind == "score" and not metric.turns:  # `select` refuses a limit that would keep what is worse
                sign = ">=" if metric.direction == "maximize" else "<="
            limits.append(f"{name} {sign} {bound}")
        found.append({"limits": limits, "prefer": draw.choice([None, None, *measured])})
    return found


def by_select(folder: Path, question: dict[str, Any]) -> dict[str, Any] | None:
    """Return what `select` answers, in the page's form; None where it refuses the question."""
    try:
        found = json.loads(as_json(select(folder, question["limits"], question["prefer"])))
    except UsageError:
        return None
    return {
        "winner": found["winner"] and found["winner"]["candidate"],
        "feasible": found["feasible"],
        "uncertain": found["uncertain_limits"],
        "steps": found["steps"],
        "nearest": [[n["candidate"], [[m["limit"], m["by"]] for m in n["misses"]]] for n in found["nearest"]],
    }


def by_page(folder: Path, questions: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what the page's own script answers, run by node."""
    node = shutil.which("node")
    if node is None:
        raise FileNotFoundError("node is not installed")
    report = read_report(folder)
    # To `select` no limit means the sweep's own.
    given = [question if question["limits"] else question | {"limits": report["limits"]} for question in questions]
    asked = json.dumps({"folder": report, "questions": given})
    with tempfile.TemporaryDirectory() as place:
        script = Path(place) / "page.cjs"
        script.write_text(bundle() + ASK, encoding="utf-8")
        done = subprocess.run(
            [node, str(script)], input=asked, capture_output=True, text=True, encoding="utf-8", check=True
        )
    answers: list[dict[str, Any]] = json.loads(done.stdout)
    return answers


def differences(folder: Path, questions: Sequence[dict[str, Any]]) -> tuple[int, list[str]]:
    """Return how many questions both answered, and in words where the answers differ. p-values may differ by rounding."""
    answered, found = 0, []
    for question, page in zip(questions, by_page(folder, questions), strict=True):
        own = by_select(folder, question)
        if own is None:
            continue
        answered += 1
        where = f"{folder.name} {question}"
        pairs = [(key, own[key], page[key]) for key in ("winner", "feasible", "uncertain")]
        pairs.append(("nearest", [n[0] for n in own["nearest"]], [n[0] for n in page["nearest"]]))
        pairs += [
            (f"{key} of the steps", [step[key] for step in own["steps"]], [step[key] for step in page["steps"]])
            for key in ("metric", "leader", "tied", "method")
        ]
        found += [
            f"{where}: {key} {ours} by select, {theirs} on the page" for key, ours, theirs in pairs if ours != theirs
        ]
        found += [
            f"{where}: beaten {ours['beaten']} by select, {theirs['beaten']} on the page"
            for ours, theirs in zip(own["steps"], page["steps"], strict=False)
            if not _same(ours["beaten"], theirs["beaten"])
        ]
    return answered, found


def _same(ours: dict[str, float | None], theirs: dict[str, float | None]) -> bool:
    def near(a: float | None, b: float | None) -> bool:
        return a == b or (a is not None and b is not None and abs(a - b) <= 1e-9 + 1e-6 * abs(a))

    return list(ours) == list(theirs) and all(near(ours[name], theirs[name]) for name in ours)


def main(argv: Sequence[str] | None = None) -> int:
    """Ask, and print what was found; returns 1 where an answer differs."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    options.add_argument("--questions", type=int, default=1000)
    options.add_argument("--write", action="store_true", help=f"write {MEASURED.name}")
    options.add_argument("folders", nargs="*", type=Path)
    chosen = options.parse_args(argv)
    with tempfile.TemporaryDirectory() as place:
        folders = chosen.folders or [make_folder(Path(place) / f"made-{i}", shape) for i, shape in enumerate(SHAPES)]
        each = -(-chosen.questions // len(folders))
        wrong: list[str] = []
        lines = []
        for folder in folders:
            answered, found = differences(folder, questions_for(folder, each))
            rows = len(read_results(folder))
            how = "in pairs" if select(folder).paired else "by unpaired intervals"
            name = (read_sweep(folder) or {}).get("name", folder.name)
            lines.append(f"| {name} | {rows} | {how} | {each} | {answered} | {len(found)} |")
            print(lines[-1], flush=True)
            wrong += found
    print("\n".join(wrong[:20]))
    if chosen.write:
        MEASURED.write_text(HEAD + "\n".join(lines) + "\n", encoding="utf-8")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
