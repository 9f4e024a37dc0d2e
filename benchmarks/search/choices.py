"""The list of choices: what each strategy proposes in replays with fixed seeds, kept in `choices.json`.

python -m benchmarks.search.choices             # says which strategies choose differently from the list; exit code 1 if any
python -m benchmarks.search.choices --write     # makes the list anew

The list shows every change of a choice, intended or not, and shows that a refactoring changed none. A test compares it
with what the strategies choose now. When a change is intended, make the list anew and say why in the commit.

A choice is written `ADAPTER:RECIPE` for a pair, and `ADAPTER@RUNG*ITEMS` for an adapter that is scored without a recipe; the
numbers are those of the replay's table. `first` has the first choices of a replay, `count` their number until nothing is left
(or `MOST`), and `sha256` is the digest of all of them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from autotune.strategies.protocol import Proposal
from benchmarks.search import synthetic
from benchmarks.search.peers import LEVERS, conditions_of, strategy
from benchmarks.search.replay import begun
from benchmarks.search.rows import TABLES
from benchmarks.search.table import PART, Table, drawn, from_rows, load

FILE = Path(__file__).with_name("choices.json")
LISTED = ("frontier", *LEVERS, "tpe", "nsga2", "random")
"""The strategies with a list: those of the tool that `compare` replays, but gp, which takes minutes."""
MOST = 250
"""Choices of a replay at most; a table has 60 to 120 pairs."""
FIRST = 40
"""Choices of a replay that are written out."""
_ONE = (("phrase_tone", 0, 1.0), ("snips", 0, 1.0), ("xed", 0, 1.0))
"""The replays of each strategy: table, seed, and how many times as long training takes."""
_FRONTIER = tuple(
    one
    for table in ("phrase_tone", "snips", "xed", "synthetic")
    for one in ((table, 0, 1.0), (table, 1, 10.0), (table + PART, 2, 1.0))
)
"""The replays of `frontier`; those of a part of a table lack one level of one parameter."""

Entry = dict[str, Any]


class ChangedError(Exception):
    """A strategy chooses differently from the list."""


@cache
def table_of(name: str) -> Table:
    """Return a table by its name, or by that of its parts. Raises OSError, ValueError."""
    name = name.removesuffix(PART)
    return from_rows(synthetic.rows()) if name == "synthetic" else load(TABLES / f"{name}.jsonl")


@cache
def entries_of(name: str) -> tuple[Entry, ...]:
    """Return a strategy's entries of the list, by what it chooses now: a few seconds."""
    return tuple(_entry(name, *replayed) for replayed in (_FRONTIER if name == "frontier" else _ONE))


def _entry(name: str, table_name: str, seed: int, training: float) -> Entry:
    table = drawn(table_of(table_name), seed, part=table_name.endswith(PART))
    asked = strategy(name)(table, seed)
    world = begun(table, asked, conditions_of(name, seed, training))
    chosen: list[str] = []
    while len(chosen) < MOST and (proposals := asked.ask(1, ())):
        chosen.append(_text(table, proposals[0]))
        asked.tell(proposals[0], world.measure(proposals[0]))
    return {
        "strategy": name, "table": table_name, "seed": seed, "training": training, "count": len(chosen),
        "sha256": hashlib.sha256(" ".join(chosen).encode()).hexdigest(), "first": " ".join(chosen[:FIRST]),
    }  # fmt: skip


def _text(table: Table, proposal: Proposal) -> str:
    adapter, recipe = table.place(proposal.candidate)
    if recipe is not None:
        return f"{adapter}:{recipe}"
    return f"{adapter}@{proposal.rung:.2f}*{proposal.items}"


@cache
def listed() -> dict[str, list[Entry]]:
    """Return the entries of the list as it is kept, by strategy. Raises OSError, ValueError."""
    found: dict[str, list[Entry]] = {}
    for entry in json.loads(FILE.read_text(encoding="utf-8")):
        found.setdefault(entry["strategy"], []).append(entry)
    return found


def digest_of(name: str) -> str:
    """Return the digest of a strategy's entries in the list as it is kept."""
    return hashlib.sha256(json.dumps(listed().get(name), sort_keys=True).encode()).hexdigest()


def changes(names: Sequence[str]) -> list[str]:
    """Return, for each replay in which a strategy chooses differently from the list, one line: which choice is the first."""
    found = []
    for name in names:
        kept = {(one["table"], one["seed"], one["training"]): one for one in listed().get(name, ())}
        for now in entries_of(name):
            key = now["table"], now["seed"], now["training"]
            before = kept.pop(key, None)
            where = f"{name} on {key[0]}, seed {key[1]}, training x {key[2]:g}"
            if before is None:
                found.append(f"{where}: is not in {FILE.name}")
            elif before != now:
                found.append(f"{where}: {_difference(before, now)}")
        found += [f"{name} on {key[0]}, seed {key[1]}: is replayed no more" for key in kept]
    return found


def _difference(before: Entry, now: Entry) -> str:
    pairs = zip(before["first"].split(), now["first"].split(), strict=False)
    for number, (old, new) in enumerate(pairs, 1):
        if old != new:
            return f"choice {number} was {old}, and is {new}"
    return f"a choice after the first {FIRST} ({before['count']} choices before, {now['count']} now)"


def check(names: Sequence[str]) -> None:
    """Raise ChangedError where one of these strategies chooses differently from the list."""
    if found := changes(names):
        raise ChangedError(
            f"choices differ from {FILE.name}:\n  " + "\n  ".join(found) + "\n"
            "if that is intended, run `python -m benchmarks.search.choices --write`, and say why in the commit"
        )


def main(arguments: list[str] | None = None) -> int:
    """Compare the list with what the strategies choose now, or write it. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="make the list anew")
    given = parser.parse_args(arguments)
    if given.write:
        lines = [json.dumps(entry) for name in LISTED for entry in entries_of(name)]
        FILE.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")
        return 0
    try:
        check(LISTED)
    except ChangedError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    print(f"{FILE.name} is current")
    return 0


if __name__ == "__main__":
    sys.exit(main())
