"""The costs of stages that the strategy expects: the mean of those that it was told in this sweep, and until then those that
the sweep gave it.

A sweep gives it the expectations of the shared cost model (`autotune.costs`). The strategy itself learns plain means,
because its choices in replays and in resumed sweeps must follow from its rows alone: the shared model also learns from other
sweeps, and while stages still run. So the expectations are noted in `inputs.json` when the sweep begins, and a resumed sweep
begins with the same.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

from autotune.candidate import Lora
from autotune.results.record import Record
from autotune.strategies.frontier.constants import BUILD_S, ITEM_S, MERGE_S, TIME_S, TRAIN_S

NOTED = "expected_s"
"""The key of `inputs.json` under which the expectations stand."""


@dataclass(frozen=True)
class FirstCosts:
    """Seconds that stages are taken to need before any was measured in this sweep."""

    train_s: float = TRAIN_S
    """A whole training of usual length."""
    build_s: float = BUILD_S
    merge_s: float = MERGE_S
    time_s: float = TIME_S
    item_s: float = ITEM_S
    """Scoring one item."""


def first_costs(record: Record, expected: Callable[[], FirstCosts]) -> FirstCosts:
    """Return the expectations that a sweep began with; a sweep that begins now notes those that `expected` returns. Raises
    OSError.
    """
    noted = record.inputs().get(NOTED)
    try:
        values = {name: float(noted[name]) for name in asdict(FirstCosts())} if isinstance(noted, dict) else {}
    except (KeyError, TypeError, ValueError):
        values = {}
    if values and all(0 <= value < float("inf") for value in values.values()):
        return FirstCosts(**values)
    if record.results.rows:  # it began before expectations were noted
        return FirstCosts()
    first = expected()
    record.note_input(NOTED, {name: float(f"{value:.4g}") for name, value in asdict(first).items()})
    return first


def mean_of(costs: Sequence[FirstCosts]) -> FirstCosts:
    """Return the mean of the expectations of several targets."""
    each = [asdict(one) for one in costs]
    return FirstCosts(**{name: statistics.fmean(one[name] for one in each) for name in each[0]})


def work_of(lora: Lora) -> float:
    """Return the work of a training: items where `steps` is set, passes over the data where `epochs` is."""
    return lora.epochs or 1.0 if lora.steps is None else float(lora.steps * lora.batch_size * lora.accumulation)


class CostModel:
    """Mean seconds of each stage. For a deployment that was not measured yet they are the mean of all others."""

    def __init__(self, usual_work: float, first: FirstCosts | None = None) -> None:
        """`usual_work`: the mean work of the space's adapters, as in `work_of`; `first`: None: for a model of 100 million
        parameters on two cores.
        """
        self._usual_work, self._first = usual_work, first or FirstCosts()
        self._trained_s = self._trained = 0.0
        self._means: dict[str, tuple[float, int]] = {}
        """The mean seconds, and the number of measurements, by kind of stage."""

    def _mean(self, kind: str, default: float) -> float:
        known = self._means.get(kind)
        return default if known is None else known[0]

    def _add(self, kind: str, seconds: float) -> None:
        mean, count = self._means.get(kind, (0.0, 0))
        self._means[kind] = mean + (seconds - mean) / (count + 1), count + 1

    def learn(
        self,
        seconds: Mapping[str, float],
        deployment: str | None,
        work: float,
        items: int,
        target: str | None = None,
    ) -> None:
        """Add the seconds of a candidate's stages. `deployment`: None where the adapter was scored without a recipe; `work`:
        of its training, as in `work_of`; `items`: the number that was scored; `target`: on which of several.
        """
        if "train" in seconds and work > 0:
            self._trained_s, self._trained = self._trained_s + seconds["train"], self._trained + work
        for stage in ("merge", "time", "build", "check"):
            if stage in seconds:
                self._add(stage, seconds[stage])
                self._add(f"{stage} on {target}", seconds[stage])
        if "build" in seconds and deployment is not None:
            self._add(f"build {deployment}", seconds["build"])
        if "score" in seconds and items:
            own = [f"score {deployment}", f"score on {target}", "score"]
            for name in ["score alone"] if deployment is None else own:
                self._add(name, seconds["score"] / items)
            if deployment is None:  # PyTorch scores some adapters without a merge or a build
                self._add("prepare alone", seconds.get("merge", 0.0) + seconds.get("build", 0.0))

    def training(self, work: float) -> float:
        """Return the expected seconds of a training, which are proportional to its work."""
        rate = self._trained_s / self._trained if self._trained else self._first.train_s / self._usual_work
        return work * rate

    def pair(self, deployment: str, items: int, timed: bool = False, target: str | None = None) -> float:
        """Return the expected seconds of building, timing and scoring a trained adapter; `timed`: the timing is there;
        `target`: on which of several.
        """
        build = self.made(deployment, target)
        time = 0.0 if timed else self._on("time", target, self._first.time_s)
        score = items * self._mean(f"score {deployment}", self._on("score", target, self._first.item_s))
        return build + self._on("check", target, 0.0) + time + score

    def made(self, deployment: str, target: str | None = None, built: bool = True) -> float:
        """Return the expected seconds of the merge of a trained adapter and, where it is `built`, of its build."""
        merge = self._mean("merge", self._first.merge_s)
        build = self._mean(f"build {deployment}", self._on("build", target, self._first.build_s))
        return merge + build if built else merge

    def _on(self, kind: str, target: str | None, default: float) -> float:
        """Return the mean seconds on a target; until one is measured there, the mean of all targets."""
        return self._mean(f"{kind} on {target}", self._mean(kind, default))

    def alone(self, items: int) -> float:
        """Return the expected seconds of scoring a trained adapter without a recipe."""
        default = self._mean("merge", self._first.merge_s) + self._mean("build", self._first.build_s)
        return self._mean("prepare alone", default) + items * self._mean(
            "score alone", self._mean("score", self._first.item_s)
        )
