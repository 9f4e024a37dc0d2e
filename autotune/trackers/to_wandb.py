"""Weights & Biases: a project with the sweep's name, and in it one group with a run for each candidate, each adapter and the
sweep. It is offline unless the user asks for more: `wandb sync` sends what was written.

The id of a run depends on what it logs, so a resumed sweep continues it: W&B joins files of the same id, in the order of
their times. Runs of adapters stay open, because an adapter may be trained further; `_MOST_OPEN` limits their number.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import wandb

from autotune.candidate import digest
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

_MOST_OPEN = 16
"""Runs of adapters that are open at once."""
_FAILED = ("diverged", "out_of_memory", "timeout", "failed", "unsupported", "lost")


class WandbTracker:
    """A sweep in Weights & Biases."""

    def __init__(self, about: About, options: Mapping[str, Any]) -> None:
        """`options`: `mode`, `project` and `entity`, as in the sweep file."""
        self._about = about
        self._mode = str(options.get("mode") or os.environ.get("WANDB_MODE") or "offline")
        self._project = str(options.get("project") or about.name)
        self._entity = options.get("entity")
        self._folder = about.place.resolve()
        self.place = f"{self._mode} {self._entity or ''} {self._project}"
        self.fresh = self._mode == "offline" and not any((self._folder / "wandb").glob("offline-run-*"))
        self._adapters: OrderedDict[str, Any] = OrderedDict()

    def _open(self, item: str, name: str, job: str, config: Mapping[str, Any]) -> Any:
        """Open the run of an item, a new or an earlier one."""
        Path(self._folder).mkdir(parents=True, exist_ok=True)
        quiet = wandb.Settings(
            console="off", disable_code=True, disable_git=True, disable_job_creation=True, save_code=False, silent=True,
            x_disable_machine_info=True, x_disable_meta=True, x_disable_stats=True, x_save_requirements=False,
        )  # fmt: skip
        return wandb.init(
            project=self._project,
            entity=self._entity,
            id=digest([self._about.key, item])[:16],
            name=name,
            group=f"{self._about.name}-{self._about.key[:6]}",
            job_type=job,
            config={key: value for key, value in config.items() if value is not None},
            dir=str(self._folder),
            mode=self._mode,
            resume="allow" if self._mode == "online" else None,
            reinit="create_new",
            settings=quiet,
        )

    def row(self, row: Trial) -> None:
        """Log a candidate: settings and texts as its config, numbers and status as its summary."""
        item = f"candidate {row.candidate}" + ("" if row.trial else " (measured first)")
        run = self._open(item, title_of(row), "candidate", {**params_of(row), **tags_of(row)})
        run.log(metrics_of(row), step=row.attempt or 1)
        run.summary.update({"status": row.status, "trial": row.trial or 0, "attempt": row.attempt or 1})
        run.finish(exit_code=1 if row.status in _FAILED else 0)

    def curve(self, adapter: str, of: Trial, points: Sequence[CurvePoint], known: int) -> None:
        """Log points of an adapter's curve. The step is the place in the curve: one training step may have a loss and a score."""
        run = self._adapters.pop(adapter, None)
        if run is None:
            config = {**adapter_params(of), "adapter": adapter}
            run = self._open(f"adapter {adapter}", adapter_title(of), "adapter", config)
            run.define_metric("*", step_metric="train_step")
        self._adapters[adapter] = run
        for place, point in enumerate(points, start=known + 1):
            run.log({"train_step": point.step or 0, **numbers_of(point)}, step=place)
        while len(self._adapters) > _MOST_OPEN:
            self._adapters.popitem(last=False)[1].finish()

    def end(self, ending: Ending) -> None:
        """Log the winners and the files, and references to the winners' folders."""
        for run in self._adapters.values():
            run.finish()
        self._adapters.clear()
        about = {**flat(self._about.sweep), "best": " ".join(ending.best), "choice": ending.text[:4000]}
        run = self._open("sweep", self._about.name, "sweep", about)
        run.summary.update({"ended": ending.ended, **ending.values()})
        artifact = wandb.Artifact(f"{self._about.name}-results", type="results")
        for file in ending.files:
            artifact.add_file(str(file))
        for place in ending.best:
            artifact.add_reference(place, name="best", checksum=False)
        run.log_artifact(artifact)
        run.finish(exit_code=0 if ending.ended == "done" else 1)
