"""An oracle table as arrays: the outcome of every candidate on every item, and the cost of every stage.

The truth of a candidate is its mean over all items and training seeds of the table. The truth of a simulated sweep (`drawn`) is
that of its own models, each trained with one seed, because a user ships one model. The cost is the median of the quiet half of
the samples: those during which other processes used the machine least.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from autotune.candidate import Candidate, Lora, Recipe
from autotune.metrics import Direction
from autotune.space.domains import Choice
from autotune.space.parameter_tables import Value
from autotune.space.space import Space
from benchmarks.search.rows import Row, RowFile, unpack_labels, unpack_nats

OBJECTIVES: dict[str, Direction] = {"accuracy": "maximize", "itl_ms_p50": "minimize", "size_mb": "minimize"}
_QUIET_AT_LEAST = 3
PART = "-part"
"""What the name of a table ends with of which a part is meant (see `drawn`)."""


@dataclass(frozen=True, eq=False)
class Seen:
    """The outcomes of one split: right (0/1), loss and margin (nats), each (items,)."""

    right: NDArray[np.float64]
    loss: NDArray[np.float64]
    margin: NDArray[np.float64]


class Ended(NamedTuple):
    """Where an adapter diverged."""

    rung: int
    """The number of the rung that it did not reach."""
    seconds: float
    """From the rung before until it diverged."""
    seed: int


@dataclass(frozen=True)
class Costs:
    """Seconds of each stage; by recipe in the table's order, the exact one first."""

    start_s: float
    call_s: float
    """What a training takes besides its steps: loading, saving."""
    step_s: Mapping[int, float]
    """Seconds of a training step, by adapter."""
    merge_s: float
    build_s: tuple[float, ...]
    check_s: tuple[float, ...]
    """0 where that was not measured."""
    time_s: tuple[float, ...]
    load_s: tuple[float, ...]
    item_s: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Table:
    """One table. Adapters and recipes are known by their numbers here."""

    name: str
    adapters: tuple[Lora, ...]
    recipes: tuple[Recipe, ...]
    space: Space
    rungs: tuple[float, ...]
    steps: tuple[int, ...]
    """Training steps of each rung."""
    items: int
    """Validation items."""
    rung_seen: Mapping[tuple[int, int, int], Seen]
    """(adapter, seed, rung number): at full precision, on validation."""
    pair_seen: Mapping[tuple[int, int, int], Seen]
    """(adapter, seed, recipe): as built, on validation."""
    base_seen: Mapping[int, Seen]
    """The untouched model in each recipe."""
    seeds: tuple[tuple[int, ...], ...]
    """Of each adapter the training seeds that are whole; empty: it diverged."""
    ended: Mapping[int, Ended]
    """The adapters that diverged."""
    truth: NDArray[np.float64]
    """True accuracy (adapters, recipes); nan where it diverged."""
    truth_of: Mapping[tuple[int, int], NDArray[np.float64]]
    """(adapter, seed): the true accuracy of the one model, (recipes,)."""
    base_truth: NDArray[np.float64]
    """Of the untouched model (recipes,)."""
    latency_ms: NDArray[np.float64]
    size_mb: NDArray[np.float64]
    processes_ms: tuple[NDArray[np.float64], ...]
    """Of each recipe's graph: the median time between tokens of each process that timed it."""
    graphs: tuple[str, ...]
    costs: Costs
    number: Mapping[str, int] = field(default_factory=dict)
    """Adapter number by the id of its candidate without a recipe."""
    recipe_number: Mapping[str, int] = field(default_factory=dict)

    @property
    def reference(self) -> tuple[float, float, float]:
        """The hypervolume's: accuracy of the untouched model at full precision, 1.1 times the slowest, the largest."""
        return float(self.base_truth[0]), 1.1 * float(self.latency_ms.max()), float(self.size_mb.max())

    def place(self, candidate: Candidate) -> tuple[int | None, int | None]:
        """Return the numbers of a candidate's adapter and recipe. Raises KeyError where the table has no such one."""
        adapter = None if candidate.lora is None else self.number[Candidate(lora=candidate.lora).id]
        recipe = None if candidate.recipe is None else self.recipe_number[str(candidate.recipe)]
        return adapter, recipe

    def candidate(self, adapter: int | None, recipe: int | None) -> Candidate:
        """The inverse of `place`."""
        return Candidate(
            lora=None if adapter is None else self.adapters[adapter],
            recipe=None if recipe is None else self.recipes[recipe],
        )


def load(file: Path) -> Table:
    """Read a table that was made by the oracle."""
    return from_rows(RowFile(file).rows)


def from_rows(rows: Sequence[Row]) -> Table:
    """Return the table that rows describe. Raises ValueError where they do not make one yet.

    Adapters that are not whole are left out, and with them levels of their parameters until a full grid remains, which
    is what samplers take: an unfinished table is a smaller one.
    """
    if not rows or rows[0]["kind"] != "header":
        raise ValueError("a table begins with its header; make it with python -m benchmarks.search.oracle")
    header = rows[0]
    recipes = tuple(Recipe.model_validate(settings) for settings in header["recipes"].values())
    names = list(header["recipes"])
    gold = {split: unpack_labels(text) for split, text in header["gold"].items()}
    rungs = tuple(header["rungs"])
    trained = {(row["adapter"], row["seed"], row["rung"]): row for row in rows if row["kind"] == "train"}
    scores = _scores(rows, gold)

    def whole(adapter: str, seed: int) -> bool:
        low = all((adapter, seed, rung, None, "validation") in scores for rung in rungs[:-1])
        return low and all((adapter, seed, 1.0, name, "validation") in scores for name in names)

    loras = {name: Lora.model_validate(settings) for name, settings in header["adapters"].items()}
    all_seeds = sorted({seed for _, seed, _ in trained})
    seeds = {name: tuple(seed for seed in all_seeds if whole(name, seed)) for name in loras}
    failed = {name: _failure(name, trained.values(), scores, rungs) for name in loras}
    known = {name: lora for name, lora in loras.items() if seeds[name] or failed[name]}
    space, kept = _full_grid(header["sweep"]["space"]["lora"], loras, known, recipes)
    missing = [name for name in names if (None, None, None, name, "validation") not in scores]
    timed = {row["recipe"]: row for row in rows if row["kind"] == "time" and row["status"] == "ok"}
    if not kept or missing or set(timed) != set(names):
        raise ValueError(f"the table of {header['task']} is not far enough: {len(known)} whole adapters, recipes not "
                         f"scored untouched: {missing}, not timed: {sorted(set(names) - set(timed))}")  # fmt: skip

    places = {name: number for number, name in enumerate(kept)}
    rung_seen, pair_seen = {}, {}
    for name, a in places.items():
        for seed in seeds[name]:
            for r, recipe in enumerate(names):
                pair_seen[a, seed, r] = scores[name, seed, 1.0, recipe, "validation"]
            for g, rung in enumerate(rungs[:-1]):
                rung_seen[a, seed, g] = scores[name, seed, rung, None, "validation"]
            rung_seen[a, seed, len(rungs) - 1] = pair_seen[a, seed, 0]
    truth, truth_of, base_truth = _truth(scores, kept, names, seeds)
    built = {row["recipe"]: row for row in rows if row["kind"] == "build" and "adapter" not in row}
    processes = tuple(np.array([median(process["itl_ms"]) for process in timed[name]["processes"]]) for name in names)
    steps = _steps(rows, rungs, next(iter(kept.values())))
    ended = {}
    for name, a in places.items():
        failure = failed[name]
        if failure is not None and not seeds[name]:
            ended[a] = Ended(rungs.index(failure["rung"]), float(failure["seconds"]), int(failure["seed"]))
            for g, rung in enumerate(rungs[: ended[a].rung]):
                rung_seen[a, ended[a].seed, g] = scores[name, ended[a].seed, rung, None, "validation"]
    return Table(
        name=header["task"], adapters=tuple(kept.values()), recipes=recipes, space=space, rungs=rungs, steps=steps,
        items=len(gold["validation"]), rung_seen=rung_seen, pair_seen=pair_seen,
        base_seen={r: scores[None, None, None, name, "validation"] for r, name in enumerate(names)},
        seeds=tuple(seeds[name] for name in kept), ended=ended, truth=truth,
        truth_of=truth_of, base_truth=base_truth,
        latency_ms=np.array([p.mean() for p in processes]),
        size_mb=np.array([float(built[name]["size_mb"]) for name in names]), processes_ms=processes,
        graphs=tuple(str(built[name]["graph"]) for name in names),
        costs=_costs(rows, kept, names, len(gold["validation"]), steps),
        number=places, recipe_number={name: r for r, name in enumerate(names)},
    )  # fmt: skip


def _scores(rows: Sequence[Row], gold: Mapping[str, NDArray[Any]]) -> dict[tuple[Any, ...], Seen]:
    """Return the outcomes of items by adapter, seed, rung, recipe and split."""
    found: dict[tuple[Any, ...], Seen] = {}
    for row in rows:
        if row["kind"] == "score" and row["status"] == "ok":
            right = (unpack_labels(row["predicted"]) == gold[row["split"]]).astype(np.float64)
            key = (row.get("adapter"), row.get("seed"), row.get("rung"), row.get("recipe"), row["split"])
            found[key] = Seen(right, unpack_nats(row["loss"]), unpack_nats(row["margin"]))
    return found


def _failure(
    adapter: str, trained: Iterable[Row], scores: Mapping[tuple[Any, ...], Seen], rungs: Sequence[float]
) -> Row | None:
    """Return the row of an adapter's failed training, if all rungs before it are scored; else None."""
    failure = next((row for row in trained if row["adapter"] == adapter and row["status"] != "ok"), None)
    if failure is None:
        return None
    before = [rung for rung in rungs if rung < failure["rung"]]
    scored = all((adapter, failure["seed"], rung, None, "validation") in scores for rung in before)
    return failure if scored else None


def _axis(lora: Lora, name: str) -> Value:
    value: Value = lora.alpha / lora.r if name == "alpha_over_r" else getattr(lora, name)
    return value


def _full_grid(
    written: Mapping[str, Any], loras: Mapping[str, Lora], known: Mapping[str, Lora], recipes: tuple[Recipe, ...]
) -> tuple[Space, dict[str, Lora]]:
    """Return the space of the adapters that are known, and these, without the levels that have holes."""
    searched = [name for name, value in written.items() if isinstance(value, Mapping)]
    axes = {name: list(dict.fromkeys(_axis(lora, name) for lora in loras.values())) for name in searched}
    while True:
        inside = [lora for lora in loras.values() if all(_axis(lora, name) in axes[name] for name in searched)]
        holes = [lora for lora in inside if lora not in known.values()]
        if not holes or not inside:
            break
        # The level that is emptiest, by its share of holes, goes.
        levels = [(name, level) for name in searched for level in axes[name]]

        def empty(level: tuple[str, Value], inside: list[Lora] = inside, holes: list[Lora] = holes) -> float:
            name, value = level
            return sum(_axis(h, name) == value for h in holes) / sum(_axis(i, name) == value for i in inside)

        name, value = max(levels, key=empty)
        axes[name].remove(value)
    kept = {name: lora for name, lora in known.items() if lora in inside}
    domains = {name: Choice(tuple(axes[name]) if name in axes else (value,)) for name, value in written.items()}
    return Space(domains, recipes), kept


def _truth(
    scores: Mapping[tuple[Any, ...], Seen], kept: Mapping[str, Lora], names: Sequence[str],
    seeds: Mapping[str, Sequence[int]],
) -> tuple[NDArray[np.float64], dict[tuple[int, int], NDArray[np.float64]], NDArray[np.float64]]:  # fmt: skip
    """Return true accuracies: mean over seeds (adapters, recipes), of each (adapter, seed) (recipes,), and of the untouched
    model (recipes,).

    Test items may be easier or harder. So that models with and without them compare, what they add is taken as a
    correction of the validation score: where there are none, the mean over the adapter's other seeds, or over all models
    that have them.
    """
    shares: dict[tuple[int, int], NDArray[np.float64]] = {}
    added: dict[tuple[int, int], NDArray[np.float64]] = {}
    for a, name in enumerate(kept):
        for seed in seeds[name]:
            shares[a, seed], added[a, seed] = np.empty(len(names)), np.full(len(names), np.nan)
            for r, recipe in enumerate(names):
                right = scores[name, seed, 1.0, recipe, "validation"].right
                shares[a, seed][r] = right.mean()
                test = scores.get((name, seed, 1.0, recipe, "test"))
                if test is not None:
                    added[a, seed][r] = np.concatenate([right, test.right]).mean() - right.mean()
    known = np.array(list(added.values()))
    usual = float(np.nanmean(known)) if np.isfinite(known).any() else 0.0
    truth, truth_of = np.full((len(kept), len(names)), np.nan), {}
    for a, name in enumerate(kept):
        if not seeds[name]:
            continue
        own = np.array([added[a, seed] for seed in seeds[name]])
        there = np.isfinite(own)
        mean = np.where(
            there.any(axis=0), np.where(there, own, 0).sum(axis=0) / np.maximum(1, there.sum(axis=0)), usual
        )
        for seed, more in zip(seeds[name], own, strict=True):
            truth_of[a, seed] = shares[a, seed] + np.where(np.isfinite(more), more, mean)
        truth[a] = np.mean([shares[a, seed] for seed in seeds[name]], axis=0) + mean
    base = []
    for recipe in names:
        parts = [scores.get((None, None, None, recipe, split)) for split in ("validation", "test")]
        base.append(np.concatenate([part.right for part in parts if part is not None]).mean())
    return truth, truth_of, np.array(base)


def drawn(table: Table, seed: int, part: bool = False) -> Table:
    """Return the table of one sweep: each adapter as it was trained with one of the seeds, whose truth is that of that model.

    With `part`, a part of the grid, too, another from seed to seed: without one level of one parameter. So it is not always
    the same adapter that is best, nor the same that a strategy thinks of first.
    """
    rng = np.random.default_rng([seed, 7])
    chosen = [int(rng.choice(seeds)) if seeds else None for seeds in table.seeds]
    space, kept = table.space, list(range(len(table.adapters)))
    if part:
        searched = {name: domain.values for name, domain in space.searched.items() if isinstance(domain, Choice)}
        levels = [(name, value) for name, values in searched.items() for value in values]
        name, value = levels[seed % len(levels)]
        kept = [a for a in kept if _axis(table.adapters[a], name) != value]
        left = Choice(tuple(one for one in searched[name] if one != value))
        space = replace(space, lora={**(space.lora or {}), name: left})
    place = {a: number for number, a in enumerate(kept)}
    truth = np.array([
        np.full(len(table.recipes), np.nan) if (own := chosen[a]) is None else table.truth_of[a, own] for a in kept
    ])  # fmt: skip

    def moved(seen: Mapping[tuple[int, int, int], Seen]) -> dict[tuple[int, int, int], Seen]:
        return {(place[a], s, last): one for (a, s, last), one in seen.items() if a in place and s == _of(chosen[a], s)}

    return replace(
        table, adapters=tuple(table.adapters[a] for a in kept), space=space,
        rung_seen=moved(table.rung_seen), pair_seen=moved(table.pair_seen),
        seeds=tuple(() if (own := chosen[a]) is None else (own,) for a in kept),
        ended={place[a]: one for a, one in table.ended.items() if a in place}, truth=truth,
        truth_of={(place[a], s): one for (a, s), one in table.truth_of.items() if a in place},
        costs=replace(table.costs, step_s={place[a]: s for a, s in table.costs.step_s.items() if a in place}),
        number={name: place[a] for name, a in table.number.items() if a in place},
    )  # fmt: skip


def _of(chosen: int | None, otherwise: int) -> int:
    return otherwise if chosen is None else chosen


def over_seeds(table: Table, whole: Table) -> Table:
    """Return a sweep's table with the truth of settings, not of its own models: the mean over all seeds of the whole table."""
    return replace(table, truth=whole.truth[[whole.number[name] for name in table.number]])


def quiet(samples: Sequence[tuple[float, float | None]]) -> float:
    """Return the median of the quiet half of (value, cores that others used), of at least three; the least of fewer,
    since what disturbs only adds.
    """
    if len(samples) < _QUIET_AT_LEAST:
        return min(value for value, _ in samples)
    ordered = sorted(samples, key=lambda sample: (sample[1] is None, sample[1] or 0.0))
    return median(value for value, _ in ordered[: max(_QUIET_AT_LEAST, (len(ordered) + 1) // 2)])


def _steps(rows: Sequence[Row], rungs: Sequence[float], lora: Lora) -> tuple[int, ...]:
    found = {row["rung"]: int(row["step"]) for row in rows if row["kind"] == "train" and row["status"] == "ok"}
    return tuple(found.get(rung, max(1, round(rung * (lora.steps or 1)))) for rung in rungs)


def _costs(
    rows: Sequence[Row], kept: Mapping[str, Lora], names: Sequence[str], items: int, steps: Sequence[int]
) -> Costs:
    def samples(kind: str, value: str = "seconds", **wanted: Any) -> list[tuple[float, float | None]]:
        """Return what was measured for that alone; else what the whole machine took; else what a part of it took."""
        found: list[list[tuple[float, float | None]]] = [[], [], []]
        for row in rows:
            alone = row["kind"] == "cost" and row["stage"] == kind
            usual = row["kind"] == kind and row.get("status") == "ok"
            same = all(row.get(name) == wish for name, wish in wanted.items() if not (alone and name == "split"))
            if (alone or usual) and same and row.get(value) is not None:
                found[0 if alone else 1 if "threads" not in row else 2].append((float(row[value]), row.get("others")))
        return next(filter(None, found), [])

    def scoring(recipe: str) -> tuple[float, float]:
        """Return seconds to load and for an item."""
        own: dict[str, Any] = {"recipe": recipe, "split": "validation"}
        load_s = quiet(samples("score", "load_s", **own))
        return load_s, max(0.0, quiet(samples("score", **own)) - load_s) / items

    step_s, call_s = _training_costs(rows, kept, steps)
    by_recipe = [scoring(name) for name in names]
    checks = [samples("check", recipe=name) for name in names]
    return Costs(
        start_s=quiet(samples("start")), call_s=call_s, step_s=step_s, merge_s=quiet(samples("merge")),
        build_s=tuple(quiet(samples("build", recipe=name)) for name in names),
        check_s=tuple(quiet(check) if check else 0.0 for check in checks),
        time_s=tuple(quiet(samples("time", recipe=name)) for name in names),
        load_s=tuple(load for load, _ in by_recipe), item_s=tuple(item for _, item in by_recipe),
    )  # fmt: skip


def _training_costs(
    rows: Sequence[Row], kept: Mapping[str, Lora], steps: Sequence[int]
) -> tuple[dict[int, float], float]:
    """Return the seconds of a step, by adapter, and of a call besides its steps. A step's time goes by rank and modules."""
    groups: dict[tuple[Any, ...], list[tuple[float, float | None]]] = {}
    calls: list[tuple[float, float | None]] = []
    trained = [row for row in rows if "step_s" in row and row["adapter"] in kept and row["step_s"] is not None]
    alone = [row for row in trained if row["kind"] == "cost"]
    whole = [row for row in trained if "threads" not in row]
    for row in alone or whole or trained:
        lora = kept[row["adapter"]]
        groups.setdefault((lora.r, lora.target_modules), []).append((row["step_s"], row["others"]))
        before = [step for step in (0, *steps) if step < row["step"]][-1]
        calls.append((max(0.0, row["seconds"] - row["step_s"] * (row["step"] - before)), row["others"]))
    anyone = [sample for group in groups.values() for sample in group]
    each = {
        a: quiet(groups.get((lora.r, lora.target_modules), anyone)) for a, lora in enumerate(kept.values()) if anyone
    }
    return each, quiet(calls)
