"""Compare strategies on the oracle tables, over many seeds, on simulated time.

python -m benchmarks.search.compare                                 # all peers that are installed, all tables, 50 seeds
python -m benchmarks.search.compare --strategy frontier tpe --table xed --seeds 10
python -m benchmarks.search.compare --table synthetic               # the made-up table
python -m benchmarks.search.compare --runs runs.jsonl               # keep what was replayed there, and go on with it

Prints markdown, and with `--out FOLDER` writes search.md, search.csv (the anytime curves) and, with matplotlib, search.png.
Every table is replayed twice: with the stage seconds as measured, and with training charged ten times as long. Each seed is
another sweep, with models of its own (`table.drawn`), which are what the truth is about; `xed-part` is the table xed without
one level of one parameter, another from seed to seed. The headline is given once more by the truth of settings, which is
the mean over training seeds: by that no sweep can be sure of what it has, the exhaustive one included.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import hashlib
import importlib.util
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path

from autotune import analysis, strategies
from autotune.pipeline.measure import LOOKS
from autotune.strategies.frontier.priors import prior_mean
from autotune.strategies.protocol import LEAST_ITEMS
from benchmarks.search import choices
from benchmarks.search.choices import table_of
from benchmarks.search.peers import COST_BLIND, LEVERS, OUTSIDE, conditions_of, strategy
from benchmarks.search.replay import Run, Truth, Truths, replay
from benchmarks.search.report import Found, OfTables, all_behind, curves, draw, headline, summary
from benchmarks.search.rows import TABLES
from benchmarks.search.table import PART, Table, drawn, over_seeds

HERE = Path(__file__).parent
PROPORTIONS = (1.0, 10.0)
OTHERS = (
    "optuna-tpe",
    "optuna-tpe-cache",
    "optuna-tpe-warm",
    "optuna-tpe-cache-warm",
    "in-turn",
    "halving",
    "tpe",
    "nsga2",
    "gp",
    "random",
    "mo-asha",
    "primo",
)
DEFAULT = ("frontier", *OTHERS, *LEVERS)
SLOW = ("gp", "mo-asha", "primo")
"""Their replays take a minute or more: fewer seeds, and no parts, unless they are named."""
SLOW_SEEDS = 5
PART_SEEDS = 27
"""Three for each part of a table; they vary more than the same seeds of the whole."""
EXHAUSTIVE = "random"
"""What measures everything, in the end."""
NEEDS = {"mo-asha": "syne_tune", "primo": "neps", "gp": "torch"}


@dataclass(frozen=True)
class Task:
    """One replay to do."""

    table: str
    strategy: str
    seed: int
    training: float
    items: int | None


@cache
def sweep_of(name: str, seed: int) -> tuple[Table, Truth, Truth]:
    """Return the table of one sweep, the truth of its models, and that of settings."""
    whole = table_of(name)
    table = drawn(whole, seed, part=name.endswith(PART))
    return table, Truth(table), Truth(over_seeds(table, whole))


def tables_of(named: Sequence[str] | None) -> list[str]:
    """Return the tables to look at: those that are named, else all but those that are no grid yet. Raises ValueError."""
    every = sorted(file.stem for file in TABLES.glob("*.jsonl"))
    names = named or [*every, *(name + PART for name in every)]
    found = []
    for name in names:
        try:
            table_of(name)
            found.append(name)
        except (OSError, ValueError) as error:
            if named:
                raise ValueError(f"table {name}: {error}") from None
            sys.stderr.write(f"table {name} is left out: {error}\n")
    if not found:
        raise ValueError(
            "there is no table yet: python -m benchmarks.search.oracle makes one; or take --table synthetic"
        )
    return found


def run(task: Task) -> Run:
    """Do one replay."""
    table, truth, of_settings = sweep_of(task.table, task.seed)
    conditions = conditions_of(task.strategy, task.seed, task.training, task.items)
    budget = truth.everything_s(cache=False, training=task.training)
    factors = PROPORTIONS if task.strategy in COST_BLIND else (1.0,)
    return replay(table, truth, strategy(task.strategy), conditions, budget, of_settings, factors)


@cache
def made_by(table: str, name: str) -> str:
    """Return a digest of everything that decides what a replay of a strategy on a table yields.

    Of code that was only moved or reworded the digest stays the same, so that kept replays remain valid:

    - a strategy with a list of choices (`choices.LISTED`) counts by that list, not by the bytes of its modules. The list has
      whole replays, on all tables; `done` makes it anew, and refuses to go on where it is not current;
    - other strategies of the tool (gp, grid) count by the bytes of `autotune/strategies`;
    - peers that begin with our prior count by its values on the table; all peers by the bytes of `peers.py`;
    - what charges, answers and judges counts by its bytes: the table, `replay.py`, `table.py`, `rows.py`, `synthetic.py`,
      and `autotune/analysis`, which has the rule of the winner and the hypervolume;
    - of `autotune/pipeline` a replay uses the ends of blocks of items only, and of `strategies/protocol.py` the least number
      of items: they count by their values. It uses nothing of `autotune/scheduler`.

    A change that alters choices of another seed, and none of the list, is not noticed.
    """
    digest = hashlib.sha256(repr((LOOKS, LEAST_ITEMS)).encode())
    files = [HERE / f"{module}.py" for module in ("peers", "replay", "table", "rows", "synthetic")]
    rows = TABLES / f"{table.removesuffix(PART)}.jsonl"
    files += [rows] if rows.exists() else []
    rooms = [analysis]
    if name in choices.LISTED:
        digest.update(choices.digest_of(name).encode())
    elif name not in OUTSIDE:
        rooms.append(strategies)
    if name.endswith("-warm"):
        digest.update(repr([round(prior_mean(lora), 9) for lora in table_of(table).adapters]).encode())
    for room in rooms:
        files += sorted(Path(str(room.__file__)).parent.rglob("*.py"))
    for file in files:
        digest.update(file.read_bytes().replace(b"\r\n", b"\n"))
    return digest.hexdigest()[:16]


def tasks_of(
    tables: Sequence[str], strategies: Sequence[str], seeds: int, items: int | None, named: bool
) -> list[Task]:
    """Return the replays to do: parts of tables are for the peers, levers are looked at on whole ones."""
    return [
        Task(table, name, seed, training, items)
        for table in tables
        for name in strategies
        if named or not (table.endswith(PART) and (name in LEVERS or name in SLOW))
        for seed in range(seeds if named else min(seeds, _most_seeds(table, name)))
        for training in (PROPORTIONS[:1] if name in COST_BLIND else PROPORTIONS)
    ]


def _most_seeds(table: str, name: str) -> int:
    return SLOW_SEEDS if name in SLOW else PART_SEEDS if table.endswith(PART) else sys.maxsize


def done(tasks: Sequence[Task], jobs: int, file: Path | None) -> Iterator[tuple[Task, Run]]:
    """Do replays, or take them from a file of earlier ones, to which new ones are appended. Those that were made by other
    code, or on another state of the table, are done again. Raises ChangedError where a list of choices is not current.
    """
    if file is not None:
        choices.check(sorted({task.strategy for task in tasks} & set(choices.LISTED)))
    known, stale = {}, 0
    for task, maker, load_run in kept(file) if file is not None and file.exists() else ():
        if maker == made_by(task.table, task.strategy):
            known[task] = load_run()
        else:
            stale += 1
    if stale:
        sys.stderr.write(
            f"{file}: {stale} replays are left out: they were made by other code, or on another state of their table\n"
        )
    yield from ((task, known[task]) for task in tasks if task in known)
    left = [task for task in tasks if task not in known] if jobs else []
    with contextlib.ExitStack() as stack:
        stream = stack.enter_context(file.open("a", encoding="utf-8")) if file is not None and jobs else None
        if stream is not None and stream.tell():
            stream.write("\n")  # the last line may be half a one
        if jobs <= 1:
            results: Iterable[Run] = map(run, left)
        else:
            pool = stack.enter_context(ProcessPoolExecutor(jobs, mp_context=get_context("spawn")))
            results = pool.map(run, left, chunksize=1)
        for task, one in zip(left, results, strict=True):
            if stream is not None:
                row = {"task": asdict(task), "made_by": made_by(task.table, task.strategy), "run": one.plain()}
                stream.write(json.dumps(row) + "\n")
                stream.flush()
            yield task, one


def kept(file: Path) -> Iterator[tuple[Task, str, Callable[[], Run]]]:
    """Yield the replays of a file, and what they were made by (see `made_by`); a half-written last line is none."""
    for line in file.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(json.JSONDecodeError):
            row = json.loads(line)
            yield Task(**row["task"]), row.get("made_by", ""), partial(Run.of_plain, row["run"])


def runs_of(tasks: Sequence[Task], jobs: int, file: Path | None = None) -> dict[tuple[str, str, float], list[Run]]:
    """Do all replays. Returns by (table, strategy, proportion) one run a seed."""
    results = dict(done(tasks, jobs, file))
    found: dict[tuple[str, str, float], list[Run]] = {}
    for task in (task for task in tasks if task in results):
        one = results[task]
        proportions = PROPORTIONS if task.strategy in COST_BLIND else (task.training,)
        for training in proportions:
            told = one.with_training(training) if training != task.training else one
            found.setdefault((task.table, task.strategy, training), []).append(told)
    return found


def installed(name: str) -> bool:
    """Whether a strategy's package is there."""
    return name not in NEEDS or importlib.util.find_spec(NEEDS[name]) is not None


def parser_of() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--strategy", nargs="+", help=f"default: {', '.join(DEFAULT)}, as far as installed")
    parser.add_argument("--table", nargs="+", help="default: every table in benchmarks/search/tables")
    parser.add_argument("--items", type=int, help="validation items that a sweep has; default: as many as the table")
    parser.add_argument("--jobs", type=int, default=2, help="processes; 0: only report what --runs has")
    parser.add_argument(
        "--runs", type=Path, help="a file in which replays are kept; those that are there are not done again"
    )
    parser.add_argument("--out", type=Path, help="a folder for search.md, search.csv and search.png")
    return parser


def page(tables: Sequence[str], found: Found, truths: OfTables, of_settings: OfTables) -> str:
    """Return the report; `of_settings`: the truths of settings, the mean over training seeds."""
    by_settings = {key: [one.of_settings() for one in runs] for key, runs in found.items()}
    lines = [
        "# How soon each strategy has the front",
        "",
        "Made by `python -m benchmarks.search.compare`; see `benchmarks/search/README.md`.",
        "",
        *headline(found, truths),
        "",
        "By the truth of settings, the mean over training seeds, and how often the exhaustive sweep misses it:",
        "",
        *headline(by_settings, of_settings, EXHAUSTIVE),
        "",
    ]
    for table in tables:
        for training in PROPORTIONS:
            lines += [*summary(found, truths[table], table, training), ""]
    return "\n".join([*lines, *all_behind(found, truths)]).rstrip() + "\n"


def write(folder: Path, text: str, found: Found, truths: OfTables) -> None:
    """Write search.md, search.csv and, where matplotlib is installed, search.png."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "search.md").write_text(text, encoding="utf-8")
    rows = curves(found, truths)
    with (folder / "search.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    if importlib.util.find_spec("matplotlib") is not None:
        draw(rows, folder / "search.png")
    else:
        sys.stderr.write("search.png needs matplotlib: pip install matplotlib\n")


def main(arguments: list[str] | None = None) -> int:
    """Compare, and print markdown."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    parser = parser_of()
    given = parser.parse_args(arguments)
    try:
        tables = tables_of(given.table)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    strategies = given.strategy or [name for name in DEFAULT if installed(name)]
    tasks = tasks_of(tables, strategies, given.seeds, given.items, bool(given.strategy))
    if given.jobs == 0 and given.runs is None:
        parser.error("--jobs 0 reports what --runs has, and needs it")
    try:
        found = runs_of(tasks, given.jobs, given.runs)
    except choices.ChangedError as error:
        parser.error(str(error))
    tables = [table for table in tables if any(key[0] == table for key in found)]
    seeds = {table: max(len(runs) for key, runs in found.items() if key[0] == table) for table in tables}
    sweeps = {table: [sweep_of(table, seed) for seed in range(count)] for table, count in seeds.items()}
    truths = {table: Truths([one[1] for one in each]) for table, each in sweeps.items()}
    of_settings = {table: Truths([one[2] for one in each]) for table, each in sweeps.items()}
    text = page(tables, found, truths, of_settings)
    print(text, end="")
    if given.out is not None:
        write(given.out, text, found, truths)
    return 0


if __name__ == "__main__":
    sys.exit(main())
