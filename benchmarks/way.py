"""Which functions get the sweep or a section of it, from the command down, file after file?

git worktree add ../before 718160a
python -m benchmarks.way ../before . --out benchmarks/measured/way.md

For each checkout, the script runs a small sweep of a random model of two layers in a process of its own, and notes the first call
of each function of the package in the main thread. A function counts if one of its arguments is the sweep or a section of it
(the classes in `SECTIONS`), or if it reads one from its object. A step goes from one counted function to the next: a climb goes to
a module that is higher in the order of imports, a return to a file that was left before.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

from benchmarks.rooms import Imports, imports_within, read_modules
from benchmarks.sizes import commit_of

SECTIONS = ("Document", "Sweep", "DataSpec", "Train", "Target", "Workload", "Workers", "Budget", "Timing", "Space")
"""The names of the classes of a sweep and its sections, in old checkouts too."""

_CHILD = """
import json, os, sys
package, out, sections, *command = sys.argv[1:]
sections, seen, way = frozenset(sections.split(",")), set(), []
def carries(value):
    return type(value).__name__ in sections and type(value).__module__.startswith("autotune.")
def reads(value, names):
    kept = getattr(value, "__dict__", None)
    return isinstance(kept, dict) and any(carries(part) and name in names for name, part in kept.items())
def profile(frame, event, _):
    code = frame.f_code
    if event != "call" or code in seen or not code.co_filename.startswith(package):
        return
    seen.add(code)
    given = [frame.f_locals.get(name) for name in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]]
    first = code.co_varnames[:1] == ("self",)
    whole = [value for value in given if carries(value)]
    if whole or (first and given and type(given[0]).__module__.startswith("autotune.") and reads(given[0], code.co_names)):
        sweep = any(type(value).__name__ == "Sweep" for value in whole)
        way.append([os.path.relpath(code.co_filename, package), code.co_qualname if hasattr(code, "co_qualname") else code.co_name, sweep])
from autotune.cli import main
sys.setprofile(profile)
try:
    code = main(command)
except SystemExit as ended:
    code = ended.code
finally:
    sys.setprofile(None)
    with open(out, "w", encoding="utf-8") as stream:
        json.dump(way, stream)
sys.exit(code)
"""


@dataclass(frozen=True)
class Step:
    """A function that is given the sweep or a section of it. `whole`: the sweep itself is one of its arguments."""

    module: str
    name: str
    whole: bool


def small_sweep(folder: Path) -> Path:
    """Write a sweep file that every checkout reads, with its model and its data. Returns the file."""
    from autotune.stages.preparation_jobs import TinyJob
    from autotune.stages.protocol import function_of

    model = folder / "model"
    model.mkdir()
    function_of(TinyJob())(TinyJob(), model)
    tones = ("fear", "joy", "sadness", "surprise")
    for split, start, count in (("train", 0, 24), ("validation", 100, 24), ("test", 200, 12)):
        rows = [{"text": f"{n} I felt {tones[n % 4]} today", "tone": tones[n % 4]} for n in range(start, start + count)]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    sweep = {
        "name": "way", "model": str(model), "train": {"max_length": 64}, "budget": {"trials": 2},
        "data": {"train": "train.jsonl", "validation": "validation.jsonl", "test": "test.jsonl",
                 "prompt": "Text: {text}\nTone:", "completion": " {tone}"},
        "target": {"provider": "cpu", "threads": 1, "workload": {"prompt_tokens": 4, "new_tokens": 5},
                   "timing": {"processes": 2, "most": 2}},
        "space": {"lora": {"r": {"choice": [2, 4]}, "learning_rate": 0.01, "steps": 3, "batch_size": 4},
                  "build": [{"precision": "fp32"}, {"precision": "int4"}]},
    }  # fmt: skip
    file = folder / "sweep.yaml"  # JSON is YAML
    file.write_text(json.dumps(sweep), encoding="utf-8")
    return file


def follow(checkout: Path, command: Sequence[str], environment: Mapping[str, str]) -> list[Step]:
    """Return the way in a checkout. Raises SystemExit where the command fails."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "way.json"
        package = str((checkout / "autotune").resolve())
        done = subprocess.run(
            [sys.executable, "-P", "-c", _CHILD, package, str(file), ",".join(SECTIONS), *command],
            env=os.environ | {"PYTHONPATH": str(checkout.resolve())} | dict(environment), check=False, stdout=sys.stderr,
        )  # fmt: skip
        if done.returncode != 0:
            raise SystemExit(f"{checkout}: autotune {' '.join(command)} ended with {done.returncode}")
        found = json.loads(file.read_text(encoding="utf-8"))
    return [Step(".".join(Path(name).with_suffix("").parts), function, whole) for name, function, whole in found]


def levels(imports: Imports) -> dict[str, int]:
    """Return of each module the longest way of imports below it: 0 for one that imports no other."""

    @cache
    def level(name: str) -> int:
        return 1 + max((level(other) for other in imports[name]), default=-1)

    return {name: level(name) for name in imports}


def counts(steps: Sequence[Step], level: Mapping[str, int]) -> dict[str, int]:
    """Return what is counted of a way."""
    files = [step.module for step in steps]
    visits = [name for place, name in enumerate(files) if place == 0 or files[place - 1] != name]
    pairs = list(pairwise(visits))
    return {
        "files": len(set(files)),
        "folders and top-level files that these are in": len({name.partition(".")[0] for name in files}),
        "climbs": sum(level[after] > level[before] for before, after in pairs),
        "returns": sum(name in visits[:place] for place, name in enumerate(visits)),
        "functions": len(steps),
        "functions that are given the whole sweep": sum(step.whole for step in steps),
        "files with such a function": len({step.module for step in steps if step.whole}),
    }


HEAD = """# The way of a sweep file

Made by `python -m benchmarks.way` with two checkouts, the older one first; a column is named by its commit. The `run`
command is followed with a small sweep of a random model: each function of the package that is given the sweep or a section
of it, or reads one that its object holds, counts once, where it is called first. A climb is a step to a module that stands
higher in the order of imports, a return is a step to a file that was left before.

"""
LAST = """In the last checkout, file after file; a function in bold is given the whole sweep:

"""
WHY = """
There cannot be fewer files than folders: each is given its section in one file at least. Data and space are read, checked,
cleaned and split in several modules of one idea each, which were two files before; that is why there are more files.
"""


def as_markdown(columns: Mapping[str, Mapping[str, int]]) -> str:
    """Return the counts as a table, a column for each checkout."""
    names = list(next(iter(columns.values())))
    lines = [f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    lines += [f"| {name} | {' | '.join(str(column[name]) for column in columns.values())} |" for name in names]
    return "\n".join(lines) + "\n"


def visits(steps: Iterable[Step]) -> str:
    """Return the files in the order in which they are visited, each with its functions."""
    lines: list[str] = []
    last = ""
    for step in steps:
        if step.module != last:
            lines.append(f"- `{step.module}`: ")
        name = step.name.rpartition("<locals>.")[2]
        lines[-1] += (", " if step.module == last else "") + (f"**{name}**" if step.whole else name)
        last = step.module
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> int:
    """Print the counts, or write them with the last checkout's way. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.way", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("checkouts", nargs="+", type=Path, metavar="CHECKOUT", help="folder that holds autotune/")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the page here instead of printing the table")
    given = parser.parse_args(arguments)
    columns = {}
    steps: list[Step] = []
    with tempfile.TemporaryDirectory() as folder:
        sweep = small_sweep(Path(folder))
        for checkout in given.checkouts:
            name = commit_of(checkout)
            out, cache = Path(folder) / name, Path(folder) / f"{name}.cache"
            steps = follow(checkout, ["run", str(sweep), "--out", str(out)], {"AUTOTUNE_CACHE": str(cache)})
            columns[name] = counts(steps, levels(imports_within(read_modules(checkout / "autotune"))))
    table = as_markdown(columns)
    if given.out is None:
        print(table + "\n" + visits(steps), end="")
    else:
        given.out.write_text(f"{HEAD}{table}\n{LAST}{visits(steps)}{WHY}", encoding="utf-8", newline="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
