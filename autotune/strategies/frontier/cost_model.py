"""The cost model: the expected seconds of each stage, from what was measured in this sweep, and from defaults until then."""

from __future__ import annotations

from collections.abc import Mapping

from autotune.candidate import Lora
from autotune.strategies.frontier.constants import BUILD_S, ITEM_S, MERGE_S, TIME_S, TRAIN_S


def work_of(lora: Lora) -> float:
    """Return the work of a training: items where `steps` is set, passes over the data where `epochs` is."""
    return lora.epochs or 1.0 if lora.steps is None else float(lora.steps * lora.batch_size * lora.accumulation)


class CostModel:
    """Mean seconds of each stage. A deployment that was not measured yet takes the mean of all others."""

    def __init__(self, usual_work: float) -> None:
        """`usual_work`: the mean work of the space's adapters, as in `work_of`."""
        self._usual_work = usual_work
        self._trained_s = self._trained = 0.0
        self._means: dict[str, tuple[float, int]] = {}
        """The mean seconds, and the number of measurements, by kind of stage."""

    def _mean(self, kind: str, default: float) -> float:
        known = self._means.get(kind)
        return default if known is None else known[0]

    def _add(self, kind: str, seconds: float) -> None:
        mean, count = self._means.get(kind, (0.0, 0))
        self._means[kind] = mean + (seconds - mean) / (count + 1), count + 1

    def learn(self, seconds: Mapping[str, float], deployment: str | None, work: float, items: int) -> None:
        """Add the seconds of a candidate's stages. `deployment`: None where the adapter was scored without a recipe; `work`:
        of its training, as in `work_of`; `items`: the number that was scored.
        """
        if "train" in seconds and work > 0:
            self._trained_s, self._trained = self._trained_s + seconds["train"], self._trained + work
        for stage in ("merge", "time", "build", "check"):
            if stage in seconds:
                self._add(stage, seconds[stage])
        if "build" in seconds and deployment is not None:
            self._add(f"build {deployment}", seconds["build"])
        if "score" in seconds and items:
            for name in ["score alone"] if deployment is None else [f"score {deployment}", "score"]:
                self._add(name, seconds["score"] / items)
            if deployment is None:  # PyTorch scores some adapters without a merge or a build
                self._add("prepare alone", seconds.get("merge", 0.0) + seconds.get("build", 0.0))

    def training(self, work: float) -> float:
        """Return the expected seconds of a training, which are proportional to its work."""
        rate = self._trained_s / self._trained if self._trained else TRAIN_S / self._usual_work
        return work * rate

    def pair(self, deployment: str, items: int, timed: bool = False) -> float:
        """Return the expected seconds of building, timing and scoring a trained adapter; `timed`: the timing is there."""
        build = self._mean("merge", MERGE_S) + self._mean(f"build {deployment}", self._mean("build", BUILD_S))
        time = 0.0 if timed else self._mean("time", TIME_S)
        score = items * self._mean(f"score {deployment}", self._mean("score", ITEM_S))
        return build + self._mean("check", 0.0) + time + score

    def alone(self, items: int) -> float:
        """Return the expected seconds of scoring a trained adapter without a recipe."""
        default = self._mean("merge", MERGE_S) + self._mean("build", BUILD_S)
        return self._mean("prepare alone", default) + items * self._mean("score alone", self._mean("score", ITEM_S))
