"""trackio: a project with the sweep's name, and in it a run for each candidate, each adapter and the sweep.

The name identifies a run, so a resumed sweep continues it; only steps behind its last one are logged.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import trackio
from trackio.sqlite_storage import SQLiteStorage

from autotune.errors import MachineError
from autotune.results.rows import CurvePoint, Trial
from autotune.trackers.tracker import (
    About,
    Ending,
    adapter_params,
    adapter_title,
    flat,
    metrics_of,
    numbers_of,
    params_of,
    tags_of,
    title_of,
)


class TrackioTracker:
    """A sweep in trackio."""

    def __init__(self, about: About, options: Mapping[str, Any]) -> None:
        """`options`: `project`, `folder` and `space`, as in the sweep file."""
        self._about = about
        self._project = str(options.get("project") or about.name)
        self._space = options.get("space")
        self.place = f"{trackio.utils.TRACKIO_DIR} {self._project} {self._space or ''}"
        self.fresh = self._space is None and not SQLiteStorage.get_runs(self._project)
        # trackio's threads report lost data by a warning.
        warnings.showwarning = self._warned  # type: ignore[assignment] # it takes any arguments
        self._lost = ""

    def _warned(self, message: Warning | str, *_: Any) -> None:
        if "trackio" in str(message).lower() and "deprecated" not in str(message).lower():
            self._lost = self._lost or str(message)

    def _open(self, name: str, group: str, config: Mapping[str, Any]) -> Any:
        known = {key: value for key, value in config.items() if value is not None}
        return trackio.init(
            self._project, name=name, group=group, config=known, space_id=self._space, resume="allow", embed=False,
            auto_log_gpu=False, auto_log_cpu=False,
        )  # fmt: skip

    def _close(self, run: Any) -> None:
        run.finish()
        if self._lost:
            raise MachineError(self._lost)

    def _log(
        self, name: str, group: str, config: Mapping[str, Any], steps: Sequence[tuple[int, dict[str, Any]]]
    ) -> None:
        """Log the steps that a run does not have."""
        name = f"{name}-{self._about.key[:6]}"  # two folders may hold sweeps of the same name
        last = SQLiteStorage.get_max_step_for_run(self._project, name) if self._space is None else None
        new = [(step, numbers) for step, numbers in steps if last is None or step > last]
        if not new:
            return
        run = self._open(name, group, config)
        for step, numbers in new:
            run.log(numbers, step=step)
        self._close(run)

    def row(self, row: Trial) -> None:
        """Log a candidate: settings and texts as its config, numbers and status with the attempt as step."""
        config = {**params_of(row), **tags_of(row), "title": title_of(row), "results": self._about.key}
        numbers = {**metrics_of(row), "status": row.status, "trial": row.trial or 0}
        name = row.candidate if row.trial else f"{row.candidate}-base"
        self._log(name, "candidates", config, [(row.attempt or 1, numbers)])

    def curve(self, adapter: str, of: Trial, points: Sequence[CurvePoint], known: int) -> None:
        """Log points of an adapter's curve. The step is the place in the curve: one training step may have a loss and a score."""
        config = {**adapter_params(of), "adapter": adapter, "title": adapter_title(of)}
        steps = [
            (place, {"train_step": point.step or 0, **numbers_of(point)})
            for place, point in enumerate(points, start=known + 1)
        ]
        self._log(f"adapter-{adapter[:16]}", "adapters", config, steps)

    def end(self, ending: Ending) -> None:
        """Log the winners, the files, and references to the winners' folders."""
        about = {**flat(self._about.sweep), "best": " ".join(ending.best), "choice": ending.text[:4000]}
        numbers = {"ended": ending.ended, **ending.values()}
        name = f"sweep-{self._about.key[:6]}"
        last = SQLiteStorage.get_max_step_for_run(self._project, name) if self._space is None else None
        run = self._open(name, "sweep", about)
        run.log(numbers, step=0 if last is None else last + 1)
        artifact = trackio.Artifact(f"{self._about.name}-results", type="results")
        for file in ending.files:
            artifact.add_file(str(file))
        for place in ending.best:
            artifact.add_reference(place, name="best", checksum=False)
        run.log_artifact(artifact)
        self._close(run)
