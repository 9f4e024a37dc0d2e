"""MLflow: an experiment with the sweep's name, in it a parent run for the results folder, and a child run for each candidate
and each adapter.

Tags identify a run, so a resumed sweep continues it. MLflow keeps one of two numbers with the same name, step and time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mlflow.entities import Metric, Param, RunTag, ViewType
from mlflow.tracking import MlflowClient

from autotune import __version__
from autotune.results.columns import Cell
from autotune.results.rows import CurvePoint, Trial
from autotune.trackers.tracker import (
    ABOUT_CANDIDATE,
    About,
    Ending,
    adapter_params,
    adapter_title,
    flat,
    metrics_of,
    numbers_of,
    params_of,
    seconds_of,
    tags_of,
    title_of,
)

_SWEEP, _ITEM = "autotune.sweep", "autotune.item"
"""Tags of a run: the id of its results folder, and what it logs (the sweep, a candidate, an adapter)."""
_BATCH, _PARAMS, _LONGEST = 1000, 100, 500
"""The most metrics and parameters that MLflow takes in one request, and the most characters of a text."""
_ENDED = {"ok": "FINISHED", "stopped": "KILLED", "over_limit": "KILLED"}
_RUN_ENDED = {"done": "FINISHED", "interrupted": "KILLED", "stopped": "FAILED"}


class MlflowTracker:
    """A sweep in MLflow."""

    def __init__(self, about: About, options: Mapping[str, Any]) -> None:
        """`options`: `uri` and `experiment`, as in the sweep file."""
        self._about = about
        here = about.place / "mlflow"
        uri = options.get("uri") or _from_environment()
        if uri is None:
            here.mkdir(parents=True, exist_ok=True)
            uri = f"sqlite:///{(here / 'mlflow.db').resolve().as_posix()}"
        self.place = uri
        self._client = MlflowClient(tracking_uri=uri)
        name = str(options.get("experiment") or about.name)
        found = self._client.get_experiment_by_name(name)
        if found is not None and found.lifecycle_stage == "deleted":
            self._client.restore_experiment(found.experiment_id)
        # A server has a place of its own for files; with a database MLflow would use the working directory.
        files = None if uri.startswith(("http:", "https:", "databricks")) else (here / "artifacts").resolve().as_uri()
        self._experiment = (
            found.experiment_id if found is not None else self._client.create_experiment(name, artifact_location=files)
        )
        self._runs = self._known()
        self.fresh = not self._runs
        self._sweep = self._run("sweep", about.name, {k: v for k, v in flat(about.sweep).items() if v is not None}, {})
        self._client.update_run(self._sweep, status="RUNNING")

    def _known(self) -> dict[str, str]:
        """Return the ids of this results folder's runs, by what they log."""
        found: dict[str, str] = {}
        token: str | None = None
        while True:
            page = self._client.search_runs(
                [self._experiment],
                f"tags.`{_SWEEP}` = '{self._about.key}'",
                ViewType.ACTIVE_ONLY,
                max_results=1000,
                page_token=token,
            )
            found |= {run.data.tags[_ITEM]: run.info.run_id for run in page if _ITEM in run.data.tags}
            token = page.token
            if not token:
                return found

    def _run(self, item: str, title: str, params: Mapping[str, Cell], tags: Mapping[str, str], start: int = 0) -> str:
        """Return the id of an item's run, and create the run if there is none. `start`: milliseconds since 1970."""
        if item in self._runs:
            return self._runs[item]
        known = {_SWEEP: self._about.key, "mlflow.runName": title, "mlflow.source.name": f"autotune {__version__}"}
        if item != "sweep":
            known["mlflow.parentRunId"] = self._sweep
        run = self._client.create_run(self._experiment, start_time=start or None, tags=known | _cut(tags))
        made = str(run.info.run_id)
        settings = [Param(name, str(value)[:_LONGEST]) for name, value in params.items()]
        for place in range(0, len(settings), _PARAMS):
            self._client.log_batch(made, params=settings[place : place + _PARAMS])
        # Last: a run without this tag was left half made, and the next start makes it anew.
        self._client.set_tag(made, _ITEM, item)
        self._runs[item] = made
        return made

    def row(self, row: Trial) -> None:
        """Log a candidate: settings as parameters, numbers as metrics with the attempt as step, texts as tags."""
        began, ended = (round(1000 * (seconds_of(time) or 0.0)) for time in (row.started, row.ended))
        item = f"candidate {row.candidate}" + (" (measured first)" if not row.trial else "")
        texts = tags_of(row)
        named = {name: texts[name] for name in ABOUT_CANDIDATE if name in texts}
        run = self._run(item, title_of(row), params_of(row), named, began)
        step = row.attempt or 1
        self._metrics(run, [Metric(name, value, ended, step) for name, value in metrics_of(row).items()])
        self._client.log_batch(run, tags=[RunTag(name, value) for name, value in _cut(texts).items()])
        self._client.set_terminated(run, _ENDED.get(row.status, "FAILED"), ended or None)

    def curve(self, adapter: str, of: Trial, points: Sequence[CurvePoint], known: int) -> None:  # noqa: ARG002 - steps say it
        """Log points of an adapter's curve in the adapter's own run, by training step."""
        began = round(1000 * (seconds_of(of.started) or 0.0))
        run = self._run(
            f"adapter {adapter}", adapter_title(of), adapter_params(of), {"adapter": adapter, "kind": "curve"}, began
        )
        self._metrics(
            run,
            [Metric(n, value, began, point.step or 0) for point in points for n, value in numbers_of(point).items()],
        )
        self._client.set_terminated(run, "FINISHED")

    def _metrics(self, run: str, metrics: Sequence[Metric]) -> None:
        for place in range(0, len(metrics), _BATCH):
            self._client.log_batch(run, metrics=metrics[place : place + _BATCH])

    def end(self, ending: Ending) -> None:
        """Log the winners and the files, and the places of the winners' folders in a tag."""
        for winner in ending.winners:
            suffix = f".{winner.target}" if winner.target else ""
            self._client.set_tag(self._sweep, f"winner{suffix}", winner.candidate)
            ended = round(1000 * (seconds_of(winner.ended) or 0.0))
            values = {f"winner{suffix}.{name}": value for name, value in winner.values.items()}
            self._metrics(
                self._sweep, [Metric(n.replace("@", "/"), v, ended, winner.attempt or 1) for n, v in values.items()]
            )
        self._client.set_tag(self._sweep, "best", " ".join(ending.best))
        self._client.set_tag(self._sweep, "mlflow.note.content", f"```\n{ending.text[:4000]}\n```")
        for file in ending.files:
            self._client.log_artifact(self._sweep, str(file))
        self._client.set_terminated(self._sweep, _RUN_ENDED.get(ending.ended, "FINISHED"))


def _from_environment() -> str | None:
    from mlflow.environment_variables import MLFLOW_TRACKING_URI

    return MLFLOW_TRACKING_URI.get() or None


def _cut(tags: Mapping[str, str]) -> dict[str, str]:
    return {name: value[:_LONGEST] for name, value in tags.items()}
