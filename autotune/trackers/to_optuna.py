"""`--optuna-storage`: a sweep as a study in a storage of Optuna, for optuna-dashboard and other readers.

A trial is one attempt at a candidate. Optuna cannot change a trial that has ended: where a later attempt replaces it (a
repeated timing, an adapter that was trained further), the mirror rewrites the study when the command ends. The study then
has one trial for each candidate, with the attempt that counts.
"""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock, JournalRedisBackend
from optuna.trial import FrozenTrial, TrialState, create_trial

from autotune.analysis.limits import Limit, parse_limit
from autotune.metrics import METRICS, Direction
from autotune.results.judge import candidate_of
from autotune.results.rows import CurvePoint, Trial
from autotune.trackers.feed import Feed
from autotune.trackers.study import Plain, label, session_label
from autotune.trackers.tracker import About, Ending, metrics_of, seconds_of, tags_of, title_of

_STATES = {"ok": TrialState.COMPLETE, "stopped": TrialState.PRUNED, "over_limit": TrialState.PRUNED}
_KEY, _ROW = "autotune_sweep", "row"
"""User attributes: the id of the results folder that a study mirrors, and the name of a trial's row."""
Study = optuna.study.Study


class OptunaMirror:
    """A sweep in a storage of Optuna: a study for each of its targets."""

    def __init__(self, about: About, options: Mapping[str, Any]) -> None:
        """`options`: `storage`, a URL or the name of a file, and `studies`, each as `study.study_of` describes it."""
        storage = str(options["storage"])
        self.place = storage
        opened = open_storage(storage)
        feed = Feed(about.folder)
        feed.look()
        rows = list(feed.rows.values())
        self._mirrors = {
            one["target"]: _Mirror(opened, one, about, [row for row in rows if row.target == one["target"]])
            for one in options["studies"]
        }

    @property
    def fresh(self) -> bool:
        """Always true, so that every row is passed: each study knows which rows it has."""
        return True

    def row(self, row: Trial) -> None:
        """Add a row as a trial, unless it is there."""
        if row.target in self._mirrors:
            self._mirrors[row.target].row(row)

    def curve(self, adapter: str, of: Trial, points: Sequence[CurvePoint], known: int) -> None:
        """Do nothing: several trials share an adapter, and Optuna has no place for a curve that trials share."""

    def end(self, ending: Ending) -> None:  # noqa: ARG002 - a study has no end
        """Leave one trial for each candidate."""
        for mirror in self._mirrors.values():
            mirror.settle()


def open_storage(storage: str) -> BaseStorage:
    """Open a storage of Optuna: a database by its URL, Redis, or a journal's file. Raises whatever Optuna raises."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if storage.startswith(("redis:", "rediss:", "unix:")):
        return JournalStorage(JournalRedisBackend(storage))
    if "://" in storage:
        return RDBStorage(storage)
    # The default lock is a symbolic link, for which ordinary users of Windows have no right.
    lock = JournalFileOpenLock(storage) if sys.platform == "win32" else None
    return JournalStorage(JournalFileBackend(storage, lock_obj=lock))


class _Mirror:
    """One target's study."""

    def __init__(self, storage: BaseStorage, said: Mapping[str, Any], about: About, rows: Sequence[Trial]) -> None:
        self._storage, self._about = storage, about
        self._objectives: dict[str, Direction] = dict(said["objectives"])
        self._limits: list[Limit] = [parse_limit(text, METRICS) for text in said["limits"]]
        self._rows: dict[str, Trial] = {}
        self._base: Trial | None = None
        for row in rows:
            self._learn(row)
        self._domains: dict[str, dict[str, Any]] = {name: dict(domain) for name, domain in said["domains"].items()}
        for row in self._rows.values():  # earlier runs may have searched elsewhere
            self._widen(row)
        self._name = self._free_name(str(said["name"]))
        self._study = self._opened()
        self._known: set[str] = set()
        self._stale = False
        self._adopt()

    def _learn(self, row: Trial) -> None:
        if row.trial:
            before = self._rows.get(row.candidate)
            if before is None or (row.attempt or 1) >= (before.attempt or 1):
                self._rows[row.candidate] = row
        elif row.kind == "base" and (self._base is None or self._base.candidate == row.candidate):
            self._base = row

    def _free_name(self, name: str) -> str:
        """Return the study's name; it ends with the id of the results folder if another folder's sweep has the same name."""
        for study in self._storage.get_all_studies():
            if study.study_name == name and study.user_attrs.get(_KEY) != self._about.key:
                return f"{name}-{self._about.key[:8]}"
        return name

    def _opened(self) -> Study:
        directions = list(self._objectives.values())
        study = optuna.create_study(
            storage=self._storage, study_name=self._name, directions=directions, load_if_exists=True
        )
        if study.metric_names != list(self._objectives):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                study.set_metric_names(list(self._objectives))
        about = {_KEY: self._about.key, "results": self._about.folder.name, "limits": list(map(str, self._limits))}
        for name, value in about.items():
            if study.user_attrs.get(name) != value:
                study.set_user_attr(name, value)
        return study

    def _adopt(self) -> None:
        """Read which rows the study has; rewrite it if it contradicts the rows, or the domains of the present search."""
        counted = {_row_name(row) for row in self._rows.values()}
        for trial in self._study.get_trials(deepcopy=False):
            name = str(trial.user_attrs.get(_ROW))
            now = self._distributions(trial.distributions)
            same = now == trial.distributions
            self._stale |= not same or name not in counted or name in self._known
            self._known.add(name)
        if self._stale:
            self._write_anew()

    def row(self, row: Trial) -> None:
        """Add a row as a trial, unless it is there."""
        before = self._rows.get(row.candidate) if row.trial else self._base
        self._learn(row)
        name = _row_name(row)
        if not row.trial:
            # Limits may refer to the untouched model: a new measurement of it changes the constraints of every trial.
            self._stale |= before is not None and _row_name(before) != name and bool(self._known)
        elif name not in self._known and _row_name(self._rows[row.candidate]) == name:
            self._stale |= before is not None and _row_name(before) in self._known
            if self._widen(row):
                self._write_anew()
            else:
                self._add(row)

    def settle(self) -> None:
        """Leave one trial for each candidate, with what counts."""
        if self._stale:
            self._write_anew()

    def _write_anew(self) -> None:
        optuna.delete_study(study_name=self._name, storage=self._storage)
        self._study, self._known, self._stale = self._opened(), set(), False
        for row in sorted(self._rows.values(), key=lambda row: row.trial or 0):
            self._add(row)

    def _add(self, row: Trial) -> None:
        values = [row.number(name) for name in self._objectives]
        state = _STATES.get(row.status, TrialState.FAIL)
        if state is TrialState.COMPLETE and any(value is None for value in values):
            state = TrialState.FAIL
        params = self._params(row)
        gaps = self._gaps(row)
        trial = create_trial(
            state=state,
            values=[float(value) for value in values if value is not None] if state is TrialState.COMPLETE else None,
            params=params,
            distributions=self._distributions(params),
            user_attrs={_ROW: _row_name(row), "title": title_of(row), **tags_of(row), **metrics_of(row)},
            constraints=gaps,
            # optuna-dashboard 0.21 reads the list that constraints were before Optuna 5.
            system_attrs={"constraints": list(gaps.values())} if gaps else {},
            intermediate_values=self._seen(row, values) if state is TrialState.PRUNED else {},
        )
        self._study.add_trial(_timed(trial, row))
        self._known.add(_row_name(row))

    def _seen(self, row: Trial, values: Sequence[float | None]) -> dict[int, float]:
        """Return the score of a stopped training by step; empty with several objectives, for which Optuna takes none."""
        if len(values) != 1 or values[0] is None or row.train_steps is None:
            return {}
        return {row.train_steps: float(values[0])}

    def _gaps(self, row: Trial) -> dict[str, float]:
        """Return, by limit, how far a row is from keeping it (above 0: broken); limits without a measured value are left out."""
        base = self._base.values if self._base is not None else {}
        gaps = {str(limit): limit.gap(row.values.get(limit.metric), base.get(limit.metric)) for limit in self._limits}
        return {name: gap for name, gap in gaps.items() if gap is not None}

    # --- parameters --------------------------------------------------------------------------------------------------

    def _params(self, row: Trial) -> dict[str, Any]:
        """Return the values of the searched parameters that a row's candidate has."""
        candidate = candidate_of(row, self._about.folder / "results.csv")
        settings: dict[str, Any] = dict(candidate.lora.settings()) if candidate.lora is not None else {}
        if candidate.lora is not None:
            settings["alpha_over_r"] = candidate.lora.alpha / candidate.lora.r
        settings["recipe"] = str(candidate.recipe) if candidate.recipe is not None else None
        settings["session"] = session_label(candidate.session) if candidate.recipe is not None else None
        return {
            name: _value(domain, label(settings[name]))
            for name, domain in self._domains.items()
            if settings.get(name) is not None
        }

    def _widen(self, row: Trial) -> bool:
        """Widen the domains until they hold a row's settings. Returns whether any domain changed."""
        found = [_widened(self._domains[name], value) for name, value in self._params(row).items()]
        return any(found)

    def _distributions(self, names: Iterable[str]) -> dict[str, BaseDistribution]:
        return {name: _distribution(self._domains[name]) for name in names if name in self._domains}


def _row_name(row: Trial) -> str:
    return f"{row.candidate} {row.attempt or 1}"


def _value(domain: Mapping[str, Any], value: Plain) -> Plain:
    """Return the domain's value that equals `value` within rounding: a ratio of settings may differ in the last digit."""
    if "choices" in domain:
        return next((choice for choice in domain["choices"] if _same(choice, value)), value)
    ends = (domain["low"], domain["high"])
    number = next((end for end in ends if math.isclose(float(value), end, rel_tol=1e-9)), float(value))
    return int(number) if domain["integer"] else number


def _same(choice: Plain, value: Plain) -> bool:
    if isinstance(choice, bool) or isinstance(value, bool) or isinstance(choice, str) or isinstance(value, str):
        return choice == value and isinstance(choice, bool) == isinstance(value, bool)
    return math.isclose(choice, value, rel_tol=1e-9)


def _widened(domain: dict[str, Any], value: Plain) -> bool:
    """Widen a domain until it holds a value. Returns whether the domain changed."""
    if "choices" in domain:
        if any(_same(choice, value) for choice in domain["choices"]):
            return False
        domain["choices"] = [*domain["choices"], value]
        return True
    if domain["low"] <= float(value) <= domain["high"]:
        return False
    domain |= {"low": min(domain["low"], float(value)), "high": max(domain["high"], float(value))}
    return True


def _distribution(domain: Mapping[str, Any]) -> BaseDistribution:
    if "choices" in domain:
        return CategoricalDistribution(tuple(domain["choices"]))
    if domain["integer"]:
        return IntDistribution(int(domain["low"]), int(domain["high"]), log=domain["log"])
    return FloatDistribution(domain["low"], domain["high"], log=domain["log"])


def _timed(trial: FrozenTrial, row: Trial) -> FrozenTrial:
    """Set a trial's times to those of its row, and return it."""
    began, ended = seconds_of(row.started), seconds_of(row.ended)
    if began is not None and ended is not None:
        trial.datetime_start, trial.datetime_complete = (
            datetime.fromtimestamp(began),
            datetime.fromtimestamp(ended),
        )  # local times, as Optuna keeps them
    return trial
