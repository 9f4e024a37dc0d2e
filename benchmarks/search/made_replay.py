"""One replay of a strategy on a made-up world, and what it was made by."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from autotune import space as space_room
from autotune import strategies as strategies_room
from autotune.analysis import pareto
from autotune.space.domains import Choice, Domain
from autotune.space.space import Space
from autotune.strategies import baselines, optuna_samplers
from autotune.strategies.protocol import LEAST_ITEMS, Strategy, Told
from benchmarks.search.anytime import Curve
from benchmarks.search.kinds import best_known, world_of
from benchmarks.search.made_table import MEASURED, MadeTable, MadeWorld, volume
from benchmarks.search.peers import OUTSIDE
from benchmarks.search.peers import strategy as peer
from benchmarks.search.replay import Conditions, Pair
from benchmarks.search.rivals import RIVALS, favourite
from benchmarks.search.rows import TABLES
from benchmarks.search.table import Table
from benchmarks.search.workers import Host

HERE = Path(__file__).parent
OWN = "frontier"
"""Strategies whose names begin so are ours, and no rivals."""
LEVELS = 9
"""Values of a range for peers that take choices alone."""
MOST_DECISIONS = 1200
"""Proposals after which a replay ends, whatever time is left."""


@dataclass(frozen=True)
class Task:
    """One replay to do."""

    world: str
    strategy: str
    seed: int
    charge: str = "tool"
    workers: int = 1


def play(
    table: MadeTable, make: Callable[[Table, int], Strategy], seed: int, best: float, budget_s: float, workers: int = 1,
    tool: bool = True,
) -> Curve:  # fmt: skip
    """Run a strategy on simulated time until `budget_s` are over, it has no more to ask, or it has asked `MOST_DECISIONS` times.

    `best`: the hypervolume that counts as 1; `tool`: whether it pays what a sweep of the tool pays.
    """
    asking = make(table, seed)
    world = MadeWorld(table, Conditions(seed, tool=tool))
    world.times_first = tool
    if tool:
        untouched, told = world.measure_untouched(whole=False)
        if asking.rungs:
            asking.replay(untouched, told)
    host = Host(world, workers)
    found = Curve()
    before: list[Pair] = []
    while world.clock < budget_s and found.asked < MOST_DECISIONS:
        while host.idle:
            began = time.perf_counter()
            proposals = asking.ask(host.idle, tuple(host.pending))
            found.decision_ms = max(found.decision_ms, 1000 * (time.perf_counter() - began) / max(1, len(proposals)))
            if not proposals:
                break
            found.asked += len(proposals)
            host.begin(proposals)
        try:
            ended = host.advance()
        except StopIteration:
            break
        if world.clock > budget_s:
            break
        for work in ended:
            assert work.seen is not None
            result: Told = world.told(work.proposal, work.seen, work.seconds)
            asking.tell(work.proposal, result)
            if result.values is None:
                continue
            found.finished += 1
            found.finished_s.append(world.clock)
            recommended = world.recommended()
            if recommended != before:
                before = recommended
                found.at_s.append(world.clock)
                found.hv.append(_share(table, recommended, table.true_accuracy) / best)
                found.hv_settings.append(_share(table, recommended, table.setting_accuracy) / best)
    return found


def _share(table: MadeTable, pairs: Sequence[Pair], accuracy: Callable[[Pair], float]) -> float:
    """Return the true hypervolume of pairs: of each recipe the most accurate counts."""
    most = [0.0] * len(table.recipes)
    for pair in pairs:
        most[pair[1]] = max(most[pair[1]], accuracy(pair))
    return volume(table, most)


def strategy(name: str) -> Callable[[Table, int], Strategy]:
    """Return what makes a strategy: a rival, or one that the tables are replayed with. Peers that take choices alone have a
    range as `LEVELS` of its values.
    """
    if name in RIVALS:
        return RIVALS[name]
    make = peer(name)
    if name not in OUTSIDE:
        return make
    return lambda table, seed: make(replace(table, space=_in_levels(table.space)), seed)


def _in_levels(space: Space) -> Space:
    """Return a space whose ranges are choices of `LEVELS` values."""
    lora: dict[str, Domain] = {}
    for name, domain in (space.lora or {}).items():
        if isinstance(domain, Choice):
            lora[name] = domain
            continue
        ends = (math.log(domain.low), math.log(domain.high)) if domain.log else (domain.low, domain.high)
        numbers = np.linspace(*ends, LEVELS)
        values = (math.exp(number) if domain.log else float(number) for number in numbers)
        lora[name] = Choice(tuple(dict.fromkeys(domain.value(value) for value in values)))
    return replace(space, lora=lora)


def run(task: Task) -> Curve:
    """Do one replay."""
    world = world_of(task.world)
    best, _ = best_known(task.world)
    tool = task.charge == "tool" or task.strategy.startswith(OWN)
    return play(world.table(task.seed), strategy(task.strategy), task.seed, best, world.budget_s, task.workers, tool)


@cache
def _bytes_of(rivals: bool, outside: bool) -> bytes:
    modules = ["kinds", "landscape", "made_table", "made_replay", "replay", "table", "workers"] + ["rivals"] * rivals
    files = [HERE / f"{name}.py" for name in modules] + [TABLES / f"{MEASURED}.jsonl", Path(str(pareto.__file__))]
    if outside:
        files.append(HERE / "peers.py")
    elif rivals:
        files += [Path(str(module.__file__)) for module in (baselines, optuna_samplers)]
    else:
        files += [*sorted(Path(str(strategies_room.__file__)).parent.rglob("*.py")), HERE / "peers.py"]
    files += sorted(Path(str(space_room.__file__)).parent.rglob("*.py"))
    digest = hashlib.sha256(repr(LEAST_ITEMS).encode())
    for file in files:
        digest.update(file.read_bytes().replace(b"\r\n", b"\n"))
    return digest.digest()


@cache
def made_by(world: str, name: str) -> str:
    """Return a digest of everything that decides what a replay yields."""
    digest = hashlib.sha256(_bytes_of(name in RIVALS or name == "random", name in OUTSIDE))
    if name.endswith("-favourite"):
        digest.update(favourite(world_of(world).space).model_dump_json().encode())
    return digest.hexdigest()[:16]
