"""The `run` command: sweep file in, results folder out."""

from __future__ import annotations

import contextlib
import json
import math
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from autotune.artifacts.place import check_place
from autotune.artifacts.room import Room, budget_mb
from autotune.artifacts.store import Cache, default_root, too_deep
from autotune.candidate import Recipe
from autotune.costs.evidence import costs_of
from autotune.costs.model import CostModel
from autotune.costs.work import Subject, Work
from autotune.data.schema import Dataset
from autotune.durable import write_aside
from autotune.errors import Exit, MachineError, printable_lines
from autotune.execution.engines import Engine, EngineSettings, engine_of
from autotune.execution.host_lock import Interval
from autotune.execution.protocol import Blocking
from autotune.execution.stop import Stop, stop_on_signals
from autotune.machine import describe, name_full_disk
from autotune.paths import relative
from autotune.pipeline.devices import offered_devices
from autotune.pipeline.expected import Prices
from autotune.pipeline.graph import Graph
from autotune.pipeline.inputs import Inputs
from autotune.pipeline.measure import Pipeline
from autotune.pipeline.prepare import needs_network, prepare
from autotune.pipeline.subject import subject_of
from autotune.pipeline.timing_validity import Pace
from autotune.present.data import data_lines
from autotune.present.ended import ended_line
from autotune.present.explained import explain, explain_targets, tie_lines
from autotune.present.progress import Progress
from autotune.present.select import Selection, select, write_front
from autotune.present.so_far import SoFar
from autotune.present.tables import finalist_lines
from autotune.present.terminal import print_result
from autotune.report.refresh import ReportRefresher
from autotune.results.folder import read_results
from autotune.results.record import Record
from autotune.results.rows import Trial
from autotune.results.schema import VERSION
from autotune.results.texts import keep_texts
from autotune.scheduler.events import Events, StageAt, WorkersEmployed
from autotune.scheduler.first_estimates import priced
from autotune.scheduler.loop import Loop, Summary
from autotune.scheduler.search import Joined
from autotune.scheduler.shared import Shared
from autotune.scheduler.status_note import Running
from autotune.scheduler.targets import run_loops
from autotune.scheduler.timeline import Timeline
from autotune.secrets import redact, redacted
from autotune.strategies.frontier.cost_model import FirstCosts, first_costs, mean_of
from autotune.strategies.frontier.priors import prior_of
from autotune.strategies.frontier.transfer import TransferPrior, sweeps_for
from autotune.strategies.named import make_strategy, strategy_of
from autotune.strategies.several import make_for_targets
from autotune.sweepfile.resolve import load_sweep
from autotune.sweepfile.schema import Sweep
from autotune.trackers.listener import Trackers, Wanted, optuna_mirror, wanted_trackers
from autotune.trackers.study import study_of


@dataclass(frozen=True)
class RunOptions:
    """The options of the `run` command."""

    file: str
    out: Path | None = None
    sets: Sequence[str] = ()
    """Changes of the sweep file, KEY=VALUE."""
    trials: int | None = None
    hours: float | None = None
    report: bool = False
    """Whether the report is written while the sweep runs, see `autotune.report.refresh`."""
    optuna_storage: str | None = None
    """The URL of a storage in which the sweep is mirrored as a study."""
    address: str | None = None
    """The head of the cluster, for an engine that is one."""
    plain: bool = False
    """Whether progress is printed as plain lines, also in a terminal."""


def run_command(options: RunOptions) -> Exit:
    """Run a sweep, or go on with it. Prints progress to stderr and the choice to stdout; returns the exit code.

    Raises UsageError, MachineError, Interrupted, KeyboardInterrupt.
    """
    sweep = load_sweep(options.file, options.sets, options.trials, options.hours)
    folder = options.out or Path("results") / sweep.name
    trackers = Trackers(_trackers(sweep, options.optuna_storage), folder, lambda line: _say(f"autotune: {line}"))
    try:
        with stop_on_signals(_stopping) as stop:
            refresher = ReportRefresher(folder, lambda line: _say(f"autotune: {line}")) if options.report else None
            with trackers:
                summary = _sweep(sweep, folder, options, stop, trackers, refresher)
        _report(folder, sweep.score, summary)
        if refresher is not None and refresher.write():
            _say(f"The report is {folder / 'report.html'}")
    except OSError as error:
        name_full_disk(error, folder, default_root())
        place = f"{error.filename}: " if error.filename else ""
        remedy = "what has ended is kept: mend it, then run the same command again"
        raise MachineError(f"{place}{error.strerror or error}; {remedy}") from error
    return summary.exit_code


def _trackers(sweep: Sweep, storage: str | None) -> list[Wanted]:
    """Return the trackers that a sweep asks for; `storage`: that of Optuna in which it is mirrored. Raises MachineError."""
    wanted = wanted_trackers(sweep.report_to)
    if storage is not None:
        studies = [study_of(sweep.name, one.aims, one.space) for one in sweep.by_target.values()]
        wanted.append(optuna_mirror(storage, studies))
    return wanted


def _say(line: str) -> None:
    sys.stderr.write(printable_lines(redact(line)) + "\n")


def _stopping() -> None:
    """Print what the first Ctrl-C does."""
    what = "stopping: a training keeps its checkpoint, any other stage ends first"
    sys.stderr.write(f"\nautotune: {what}; press Ctrl-C again to stop now\n")


@dataclass(frozen=True)
class _Parts:
    """The parts that a sweep is run with."""

    cache: Cache
    record: Record
    events: Events
    costs: CostModel
    engine: Engine

    @property
    def do(self) -> Blocking:
        """Does a job that belongs to no candidate, and waits for it."""
        return Blocking(self.engine.executor, self.record.log("prepare"))


@dataclass(frozen=True)
class _Study:
    """A sweep after its preparation."""

    sweep: Sweep
    """As it was loaded."""
    targets: dict[str | None, tuple[Sweep, Inputs]]
    """By target: its sweep, with the recipes that can run, and the inputs of its candidates. The name is None if there is one."""
    dataset: Dataset
    away: Mapping[str | None, str] = field(default_factory=dict)
    """Targets without a node of the cluster now, and the reason. Nothing is measured for them, only for the others."""

    @property
    def first(self) -> tuple[Sweep, Inputs]:
        """Sweep and inputs of the first target: model, data and settings of adapters are the same for all."""
        return next(iter(self.targets.values()))


def _sweep(
    sweep: Sweep, folder: Path, options: RunOptions, stop: Stop, trackers: Trackers, refresher: ReportRefresher | None
) -> Summary:
    """Put the parts together, prepare the sweep, and search."""
    cache = Cache(default_root())
    if deep := too_deep(cache.root):
        raise MachineError(deep)
    check_place(cache.root)
    costs, hours = costs_of(cache, Subject(sweep.model)), sweep.budget.hours
    with contextlib.ExitStack() as stack:
        record = stack.enter_context(Record(folder, sweep))
        stack.enter_context(stop.is_the_reason(lambda line: _say(f"autotune: {line}")))
        progress = stack.enter_context(Progress(_so_far(sweep, record), options.plain))
        trackers.start()
        intervals, waits = deque[Interval](), deque[Interval]()
        timeline = Timeline(record, intervals, waits)
        events = Events(progress, Running(record), timeline, trackers, *([] if refresher is None else [refresher]))
        settings = EngineSettings(
            cache=cache,
            model=sweep.model,
            workers=sweep.workers,
            offline=not needs_network(sweep.model, sweep.data, sweep.root),
            stop=stop,
            costs=costs,
            room=Room(cache, budget_mb()),
            log=record.log("prepare"),
            left_s=lambda: math.inf if hours is None else hours * 3600 - record.spent_s(),
            say=progress.note,
            still=events.still_at_work,
            intervals=intervals,
            waits=waits,
            at=lambda candidate, host: events(StageAt(candidate, host)),
            several=len(sweep.targets) > 1,
        )
        engine = stack.enter_context(engine_of(sweep.engine, settings, options.address))
        parts = _Parts(cache, record, events, costs, engine)
        with closing(engine.stages):
            events.note(
                f"{sweep.name}: {sweep.model} on {_providers(sweep)}, results in {folder}, cache in {cache.root}"
            )
            summary, fronts = _with_all_nodes(sweep, parts)
            alone = engine.executor.width == 1 and sweep.engine == "local"  # a cluster may have been wider before
            summary.waited_s = timeline.waited_s
            summary.own_s = summary.wall_s - (summary.stages_s if alone else timeline.busy_s) - summary.waited_s
            try:
                write_front(folder, fronts, sweep.objectives, record.results.columns)
            except OSError as error:  # a spreadsheet holds it open: it is derived, and the sweep is done
                why = error.strerror or error
                events.note(f"{folder / 'front.csv'} could not be written ({why}): run the same command again for it")
        wall_s = record.close(summary.stages_s, summary.trials)
        summary.own_s += wall_s - summary.wall_s
        costs.learn_work(Work("own", "", units=float(summary.trials)), summary.own_s)
        summary.wall_s = wall_s
    return summary


def _with_all_nodes(sweep: Sweep, parts: _Parts) -> tuple[Summary, list[Trial]]:
    """Prepare the sweep and search. Returns the summary and the rows that count.

    When a node joins that a target has waited for, both begin anew, from the rows so far.
    """
    trials, stages_s, stages, told = 0, 0.0, parts.engine.stages, set[str]()
    while True:
        before_s = stages.spent_s
        study = _prepared(sweep, parts)
        _keep_inputs(study, parts)
        _describe(study, parts, told)
        prior = _prior(study, parts)
        stages_s += stages.spent_s - before_s
        _employ(study, parts)
        try:
            summary, fronts = _search(study, prior, parts)
        except Joined as joined:
            trials, stages_s = trials + joined.trials, stages_s + joined.stages_s
            continue
        summary.trials += trials
        summary.stages_s += stages_s
        return summary, fronts


def _prepared(sweep: Sweep, parts: _Parts) -> _Study:
    """Prepare the sweep for each target. Raises MachineError where no target has a node, and as `prepare`."""
    parts.record.busy(stage="prepare")
    engine, sweeps = parts.engine, sweep.by_target
    missing = {name: engine.missing(*one.needs) for name, one in sweeps.items()}
    away = {name: why for name, why in missing.items() if why} if not all(missing.values()) else {}
    machines = {name: engine.machine_of(*one.needs) for name, one in sweeps.items() if name not in away}
    exact, elsewhere = _exact_before(parts.record), next(iter(machines.values()))
    prepared = {}
    for name, one in sweeps.items():
        seen = one.model_copy(update={"exact": exact.get(name)}) if name in away else one
        machine = machines.get(name, elsewhere)
        prepared[name] = prepare(seen, parts.do, parts.cache.root, *machine, away=name in away)
    _, dataset, _ = next(iter(prepared.values()))
    return _Study(sweep, {name: (one, inputs) for name, (one, _, inputs) in prepared.items()}, dataset, away)


def _exact_before(record: Record) -> dict[str | None, Recipe]:
    """Return, by target, the most exact recipe of the untouched model that its device runs, as earlier runs have noted it."""
    noted, found = record.inputs().get("exact"), dict[str | None, Recipe]()
    for name, said in noted.items() if isinstance(noted, dict) else ():
        with contextlib.suppress(ValueError):  # damaged
            found[name] = Recipe.model_validate(said)
    return found


def _keep_inputs(study: _Study, parts: _Parts) -> None:
    """Note the inputs of the rows in the results folder, and pass them to the engine and the cost model.

    Raises UsageError where earlier rows were measured with other inputs.
    """
    sweep, (_, inputs), record = study.sweep, study.first, parts.record
    digests = {split: key for split, (key, _) in inputs.items.items()}
    code = {inputs.code.file.name: inputs.code.digest} if inputs.code else {}
    if changed := record.check_inputs({"model": inputs.base, **digests, **code}):
        parts.events.note(changed)
    record.note_input("root", relative(sweep.root.resolve(), record.folder.resolve()))
    record.note_input("results_schema", VERSION)
    record.note_settings()
    if exact := {name: one.exact for name, (one, _) in study.targets.items() if name and one.exact}:
        record.note_input("exact", {name: recipe.model_dump(exclude_none=True) for name, recipe in exact.items()})
    parts.engine.stages.settle(inputs.files, inputs.model_mb, inputs.places)
    parameters, data = inputs.model_mb * 1e6 / 4, sweep.data
    subject = subject_of(sweep.model, parameters, study.dataset, digests, data.metric, data.max_new_tokens)
    parts.costs.about(subject, inputs.counts["train"])


def _describe(study: _Study, parts: _Parts, told: set[str]) -> None:
    """Send notes about data and model, and write texts and this machine's description into the results folder.

    `told`: lines that were sent already; new ones are added.
    """
    said = [line for _, inputs in study.targets.values() for line in inputs.notes]
    for line in dict.fromkeys((*data_lines(study.dataset), *said)):
        if line not in told:
            parts.events.note(line)
        told.add(line)
    folder = parts.record.folder
    keep_texts(folder, study.dataset)
    write_aside(folder / "machine.json", json.dumps(redacted(describe() | parts.engine.described), indent=1))


def _prior(study: _Study, parts: _Parts) -> TransferPrior:
    """Return the prior of adapters' scores: by the model's width, and by earlier sweeps if the sweep uses them."""
    shared, inputs = study.first
    taught = study.sweep.strategy == "frontier" and study.sweep.earlier_sweeps
    earlier = sweeps_for(parts.record, inputs.base, parts.events.note) if taught else []
    return TransferPrior(shared.space, earlier, prior_of(inputs.width))


def _employ(study: _Study, parts: _Parts) -> None:
    """Start as many workers as the sweep asks for, and note how many there are."""
    (_, inputs), engine = study.first, parts.engine
    if said := engine.employ(inputs.device, inputs.gpus):
        parts.events.note(said)
    parts.costs.imports.workers = engine.executor.width
    parts.events(WorkersEmployed(engine.executor.width, study.sweep.engine == "local"))


def _search(study: _Study, prior: TransferPrior, parts: _Parts) -> tuple[Summary, list[Trial]]:
    """Search with the strategy that the sweep names. Returns the summary and the rows that count."""
    sweep, (shared, inputs) = study.sweep, study.first
    given = sweep.objectives, sweep.seed, inputs.counts["validation"], prior, _first_costs(study, parts)
    spaces = [one.space for one, _ in study.targets.values()]
    several = make_for_targets(sweep.strategy, spaces, *given) if sweep.targets else None
    strategy = several or make_strategy(sweep.strategy, shared.space, *given)
    machines = {inputs.machine for _, inputs in study.targets.values()}
    paces = {machine: Pace(parts.cache.root, machine) for machine in machines}
    engine, do = parts.engine, parts.do

    def loop_of(name: str | None, own: Record, beside: Shared | None) -> Loop:
        one, inputs = study.targets[name]
        others = beside.others if beside is not None else None
        pipeline = Pipeline(Graph(one, inputs), one.aims, engine.stages, paces[inputs.machine], others)
        return Loop(
            pipeline, sweep.budget, own, strategy, engine.executor, parts.events, costs=parts.costs, shared=beside,
            foreign_cpu=lambda: engine.foreign_cpu(*one.needs),
        )  # fmt: skip

    def missing(name: str | None) -> str:
        one, _ = study.targets[name]
        return engine.missing(*one.needs)

    def trouble(name: str | None) -> str:
        one, _ = study.targets[name]
        on_device = one.space.recipes and one.provider.name != "cpu"
        return offered_devices(one.provider, one.target.device, do, one.target.label).trouble if on_device else ""

    return run_loops(list(study.targets), parts.record, engine.executor, loop_of, several, trouble, missing, study.away)


def _first_costs(study: _Study, parts: _Parts) -> FirstCosts | None:
    """Return the expected costs of stages with which `frontier` begins a new sweep; None for another strategy."""
    sweep, (shared, _), sweeps = study.sweep, study.first, study.targets.values()

    def first() -> FirstCosts:
        return mean_of([priced(Prices(Graph(one, own), parts.costs)) for one, own in sweeps])

    searching = strategy_of(sweep.strategy, shared.space, sweep.objectives) == "frontier"
    return first_costs(parts.record, first) if searching else None


def _so_far(sweep: Sweep, record: Record) -> SoFar:
    rows, targets = record.results.rows, tuple(sweep.targets)
    return SoFar(sweep.name, sweep.budget, list(sweep.objectives), rows, record.spent_s(), targets)


def _providers(sweep: Sweep) -> str:
    """Return the providers of a sweep's targets, for a message."""
    named = [f"{one.target.provider} ({name})" for name, one in sweep.targets.items()]
    return " and ".join(named) or sweep.target.provider


def _report(folder: Path, score: str, summary: Summary) -> None:
    """Print the choice and the finalists to stdout, and the run's own cost to stderr."""
    chosen, said = dict[str, Selection](), dict[str, list[str]]()
    for target, one in (summary.targets or {None: summary}).items():
        name = target or ""
        kept = [f"The winner is in {folder / 'best' / name}"] if one.kept else []
        chosen[name] = select(folder, target=target)
        said[name] = [*kept, *finalist_lines(one.finalists, score, chosen[name].won)]
    lines = [explain_targets(chosen, said) if summary.targets else explain(chosen[""], said[""])]
    if summary.targets:
        lines += [
            "",
            *tie_lines({name: one.choice for name, one in summary.targets.items() if name}, read_results(folder)),
        ]
    print_result(printable_lines(redact("\n".join(lines))))
    sys.stderr.write(ended_line(summary.ended, summary.trials, summary.wall_s, summary.own_s, summary.waited_s) + "\n")
