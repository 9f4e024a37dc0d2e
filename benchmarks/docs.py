"""Write or check the tables and the picture in the docs that come from code and from committed results.

python -m benchmarks.docs --write    # bring the generated blocks of all documents up to date
python -m benchmarks.docs            # exit 1 where one is out of date (a test runs this)
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from autotune.present.explained import explain
from autotune.present.select import select
from autotune.present.tables import finalist_lines, number, recipe_name
from autotune.providers import PROVIDERS
from autotune.results.columns import COLUMNS, CURVES, FINALISTS, RUNS, markdown
from autotune.results.folder import read_results
from autotune.results.rows import CommandRun, Finalist, Trial
from autotune.results.schema import TABLES, json_schema
from autotune.results.table import read_table
from autotune.space.parameter_tables import LORA, RECIPE, SESSION, Parameter
from benchmarks.rooms import module_list, picture
from benchmarks.search.table import PART

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "results" / "example"


def seconds(row: Trial) -> float:
    """Return the wall-clock of a row."""
    began, ended = (datetime.fromisoformat(str(moment)) for moment in (row.started, row.ended))
    return row.wall_s or (ended - began).total_seconds()


def parameters(table: dict[str, Parameter]) -> str:
    """Return a table of parameters: name, values, default, meaning."""
    lines = ["| parameter | values | default | what |", "|---|---|---|---|"]
    for p in table.values():
        if p.choices == (p.default,):  # all other values are refused
            continue
        if p.choices:
            values = ", ".join(str(choice) for choice in p.choices if choice != "")
        elif p.type is bool:
            values = "true, false"
        elif p.type is str:
            values = "text"
        else:
            values = ("whole number" if p.type is int else "number") + f", {p.low:g} to {p.high:g}"
        default = "" if p.default in (None, "") else str(p.default).lower() if p.type is bool else str(p.default)
        where = f" ({', '.join(p.providers)} only)" if p.providers else ""
        lines.append(f"| `{p.name}` | {values} | {default} | {p.meaning}{where} |")
    return "\n".join(lines) + "\n"


def sweep_output() -> str:
    """Return what the example sweep printed at its end, and its finalists."""
    if not (EXAMPLE / "results.csv").exists():
        return "(no example yet)\n"
    finalists = read_table(EXAMPLE / "finalists.csv", Finalist)
    runs = read_table(EXAMPLE / "runs.csv", CommandRun)
    found = select(EXAMPLE)
    lines = ["```text", explain(found, finalist_lines(finalists, "accuracy", found.won))]
    wall = sum((run.wall_s or 0.0) for run in runs)
    stages = sum((run.stages_s or 0.0) for run in runs)
    rows = read_results(EXAMPLE)
    lines += ["```", ""]
    done = [row for row in rows if row.trial and row.status == "ok"]
    adapters = len({row.adapter for row in done})
    recipes = len({tuple(v for k, v in row.settings.items() if k.startswith("build_")) for row in done})
    lines.append(
        f"{len(done)} candidates ({adapters} adapters, {recipes} recipes) to the end in {wall / 60:.1f} minutes, of which "
        f"the tuner itself cost {(wall - stages) / wall:.1%}."
    )
    return "\n".join(lines) + "\n"


def results_table() -> str:
    """Return the candidates of the example sweep as a Markdown table."""
    if not (EXAMPLE / "results.csv").exists():
        return "(no example yet)\n"
    heads = (
        "trial",
        "r",
        "learning rate",
        "recipe",
        "accuracy",
        "ms/token",
        "ms to first",
        "size MB",
        "memory MB",
        "seconds",
    )
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for row in read_results(EXAMPLE):
        interval = f"{number(row['accuracy'])} [{number(row['accuracy_low'])}, {number(row['accuracy_high'])}]"
        cells = [
            "base" if row.trial == 0 else row.trial, number(row["lora_r"]), number(row["lora_learning_rate"]),
            recipe_name(row.settings), interval if row["accuracy"] is not None else row.status, number(row["itl_ms_p50"]),
            number(row["ttft_ms_p50"]), number(row["size_mb"]), number(row["peak_memory_mb"]), f"{seconds(row):.0f}",
        ]  # fmt: skip
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def search_headline() -> str:
    """Return what `benchmarks.search.compare` printed above its first section, and its picture."""
    measured = ROOT / "benchmarks" / "measured"
    if not (measured / "search.md").exists():
        return "(not yet: the tables are being made)\n"
    first = (measured / "search.md").read_text(encoding="utf-8").split("\n## ", 1)[0]
    picture = "![The front over time](measured/search.png)\n" if (measured / "search.png").exists() else ""
    return first[first.index("|") :].rstrip() + "\n\n" + picture


def search_claim() -> str:
    """Return in a sentence how soon `frontier` has the front, from the first table of that."""
    file = ROOT / "benchmarks" / "measured" / "search.md"
    if not file.exists():
        return "How soon it has the front, beside others, is being measured.\n"
    heads, _, *rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in file.read_text(encoding="utf-8").split("\n\n")[2].splitlines()
    ]
    whole = [dict(zip(heads, row, strict=True)) for row in rows if not row[0].endswith(PART)]

    def span(column: str) -> str:
        times = sorted(float(row[column].split()[1]) for row in whole)
        return f"{times[0]:.1f} to {times[-1]:.1f}"

    return (
        f"In replays of {len({row['table'] for row in whole})} tasks, with trainings as measured and ten times as long, it "
        f"has 95 % of the best front there is {span('plain TPE takes')} times sooner than a plain Optuna loop, and "
        f"{span('TPE with our cache')} times sooner than one that shares our cache "
        f"([how, by which version of it, and what bounds it](benchmarks/README.md#how-soon-a-strategy-has-the-front)).\n"
    )


def providers() -> str:
    """Return the providers with what may run on them, what the machine needs, and the extra that installs them."""
    lines = ["| provider | precisions | the machine needs | extra |", "|---|---|---|---|"]
    for one in PROVIDERS.values():
        plugin = f" (plugin {one.plugin.package})" if one.plugin is not None else ""
        lines.append(f"| `{one.name}` | {', '.join(one.precisions)} | {one.needs} | `{one.extra}`{plugin} |")
    return "\n".join(lines) + "\n"


BLOCKS: dict[str, dict[str, Callable[[], str]]] = {
    "README.md": {
        "sweep": sweep_output,
        "search": search_claim,
        "providers": providers,
        "lora": lambda: parameters(LORA),
        "recipe": lambda: parameters(RECIPE),
        "session": lambda: parameters(SESSION),
    },
    "CONTRIBUTING.md": {"rooms": picture, "modules": module_list},
    "benchmarks/README.md": {"search": search_headline},
    "results/README.md": {
        "example": results_table,
        "results": lambda: markdown(COLUMNS),
        "finalists": lambda: markdown(FINALISTS),
        "curves": lambda: markdown(CURVES),
        "runs": lambda: markdown(RUNS),
    },
}


SCHEMAS = {f"results/{table}.schema.json": table for table in TABLES}
"""The JSON schemas of the tables, by their files."""


def schema_text(file: str) -> str:
    """Return a JSON schema as its file holds it."""
    return json.dumps(json_schema(SCHEMAS[file]), indent=1, ensure_ascii=False) + "\n"


def updated(file: str) -> str:
    """Return a document's text with its generated blocks made anew."""
    text = (ROOT / file).read_text(encoding="utf-8")
    for name, make in BLOCKS[file].items():
        found = re.search(rf"<!-- generated: {name} -->\n(.*?)<!-- /generated -->", text, re.DOTALL)
        if not found:
            raise SystemExit(f"{file}: no block '{name}'")
        text = text[: found.start(1)] + make() + text[found.end(1) :]
    return text


def main(arguments: list[str]) -> int:
    """Write (`--write`) or check every document. Returns the exit code."""
    stale = []
    for file in (*BLOCKS, *SCHEMAS):
        text = updated(file) if file in BLOCKS else schema_text(file)
        if not (ROOT / file).exists() or text != (ROOT / file).read_text(encoding="utf-8"):
            stale.append(file)
            if "--write" in arguments:
                (ROOT / file).write_text(text, encoding="utf-8", newline="\n")
    if stale and "--write" not in arguments:
        print(f"out of date: {', '.join(stale)}; run python -m benchmarks.docs --write")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
