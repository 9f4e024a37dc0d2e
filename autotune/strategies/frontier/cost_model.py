"""What steps of a search take, in seconds: learned from what was done, guessed until then."""

from __future__ import annotations

from collections.abc import Mapping

from autotune.candidate import Lora

_TRAIN_S, _BUILD_S, _MERGE_S, _TIME_S, _ITEM_S = 100.0, 12.0, 2.0, 15.0, 0.04
"""Seconds of a whole training of usual length, a build, a merge, a timing, and an item scored: until one was done (a model of 100 million parameters on two cores)."""


def work_of(lora: Lora) -> float:
    """Return what an adapter is trained on: items where `steps` says so, passes where `epochs` does."""
    return lora.epochs or 1.0 if lora.steps is None else float(lora.steps * lora.batch_size * lora.accumulation)


class Prices:
    """Means of what was done, by kind of step. A recipe that was not used yet takes what others took."""

    def __init__(self, usual_work: float) -> None:
        """`usual_work`: what adapters of this space are trained on, as in `work_of`."""
        self._usual_work = usual_work
        self._trained_s = self._trained = 0.0
        self._known: dict[str, tuple[float, int]] = {}

    def _of(self, what: str, otherwise: float) -> float:
        known = self._known.get(what)
        return otherwise if known is None else known[0]

    def _took(self, what: str, seconds: float) -> None:
        mean, count = self._known.get(what, (0.0, 0))
        self._known[what] = mean + (seconds - mean) / (count + 1), count + 1

    def learn(self, seconds: Mapping[str, float], recipe: str | None, work: float, items: int) -> None:
        """Take in what a candidate took, by stage. `recipe`: None where the adapter was scored alone; `work`: what it was
        trained on; `items`: so many were scored.
        """
        if "train" in seconds and work > 0:
            self._trained_s, self._trained = self._trained_s + seconds["train"], self._trained + work
        for stage in ("merge", "time", "build", "check"):
            if stage in seconds:
                self._took(stage, seconds[stage])
        if "build" in seconds and recipe is not None:
            self._took(f"build {recipe}", seconds["build"])
        if "score" in seconds and items:
            for name in ["score alone"] if recipe is None else [f"score {recipe}", "score"]:
                self._took(name, seconds["score"] / items)
            if recipe is None:  # where it is scored as trained, there is neither
                self._took("before it is scored alone", seconds.get("merge", 0.0) + seconds.get("build", 0.0))

    def training(self, work: float) -> float:
        """Return the seconds of a training on so much: they go by that."""
        rate = self._trained_s / self._trained if self._trained else _TRAIN_S / self._usual_work
        return work * rate

    def pair(self, recipe: str, items: int, timed: bool = False) -> float:
        """Return the seconds of an adapter that is trained, in a recipe, scored on so many items."""
        build = self._of("merge", _MERGE_S) + self._of(f"build {recipe}", self._of("build", _BUILD_S))
        time = 0.0 if timed else self._of("time", _TIME_S)
        score = items * self._of(f"score {recipe}", self._of("score", _ITEM_S))
        return build + self._of("check", 0.0) + time + score

    def alone(self, items: int) -> float:
        """Return the seconds of scoring an adapter on so many items that no recipe builds."""
        before = self._of("before it is scored alone", self._of("merge", _MERGE_S) + self._of("build", _BUILD_S))
        return before + items * self._of("score alone", self._of("score", _ITEM_S))
