"""The `run` command: sweep file in, results folder out."""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
from collections import deque
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from autotune.artifacts.room import Room, budget_mb
from autotune.artifacts.store import Cache, default_root, too_deep
from autotune.costs.evidence import costs_of
from autotune.costs.work import Subject, Work
from autotune.data.schema import Dataset
from autotune.durable import write_aside
from autotune.errors import Exit, MachineError, printable_lines, reader_gone
from autotune.execution.engines import Setting, engine_of
from autotune.execution.host_lock import Interval
from autotune.execution.protocol import Blocking
from autotune.execution.stop import Stop, stop_on_signals
from autotune.machine import describe
from autotune.pipeline.devices import ask
from autotune.pipeline.expected import Prices
from autotune.pipeline.graph import Graph
from autotune.pipeline.measure import Pipeline
from autotune.pipeline.pace import Pace
from autotune.pipeline.prepare import needs_network, prepare
from autotune.pipeline.subject import subject_of
from autotune.present.progress import Progress
from autotune.present.select import explain, select, tie_lines, write_front
from autotune.present.so_far import SoFar
from autotune.present.tables import duration, finalist_lines
from autotune.providers import NVIDIA
from autotune.report.fresh import Fresh
from autotune.results.folder import read_results
from autotune.results.record import Record
from autotune.results.schema import VERSION
from autotune.results.texts import keep_texts
from autotune.scheduler.events import Events, StageAt, WorkersEmployed
from autotune.scheduler.loop import Loop, Summary
from autotune.scheduler.opening import priced
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
from autotune.trackers.listener import Trackers, trackers_of


def run_command(
    file: str,
    out: Path | None,
    sets: Sequence[str] = (),
    trials: int | None = None,
    hours: float | None = None,
    report: bool = False,
    optuna_storage: str | None = None,
    address: str | None = None,
    plain: bool = False,
) -> Exit:
    """Run a sweep, or go on with it. Prints progress to stderr and the choice to stdout; returns the exit code.

    With `report` the folder has a report from the first row on, see `autotune.report.fresh`; `optuna_storage` is the URL of a
    storage in which the sweep is mirrored as a study; `address` is that of the cluster, where the engine is one; with `plain` progress is
    lines, in a terminal too.
    Raises UsageError, MachineError, Interrupted, KeyboardInterrupt.
    """
    sweep = load_sweep(file, sets, trials, hours)
    folder = out or Path("results") / sweep.name
    trackers = trackers_of(sweep, folder, optuna_storage, lambda line: _say(f"autotune: {line}"))
    try:
        with stop_on_signals(_stopping) as stop:
            fresh = Fresh(folder, lambda line: _say(f"autotune: {line}")) if report else None
            with trackers:
                summary = _sweep(sweep, folder, stop, fresh, trackers, address, plain)
        _report(folder, sweep.score, summary)
        if fresh is not None and fresh.write():
            _say(f"The report is {folder / 'report.html'}")
    except OSError as error:
        if reader_gone(error):
            raise
        place = f"{error.filename}: " if error.filename else ""
        remedy = "what has ended is kept: mend it, then run the same command again"
        raise MachineError(f"{place}{error.strerror or error}; {remedy}") from error
    return summary.exit_code


def _say(line: str) -> None:
    sys.stderr.write(printable_lines(redact(line)) + "\n")


def _stopping() -> None:
    """Say what the first Ctrl-C does."""
    what = "stopping: a training keeps its checkpoint, any other stage ends first"
    sys.stderr.write(f"\nautotune: {what}; press Ctrl-C again to stop now\n")


def _sweep(
    sweep: Sweep, folder: Path, stop: Stop, fresh: Fresh | None, trackers: Trackers, address: str | None, plain: bool
) -> Summary:
    cache = Cache(default_root())
    if deep := too_deep(cache.root):
        raise MachineError(deep)
    offline = not needs_network(sweep.model, sweep.data, sweep.root)
    costs, hours = costs_of(cache, Subject(sweep.model)), sweep.budget.hours
    with contextlib.ExitStack() as stack:
        record = stack.enter_context(Record(folder, sweep))
        progress = stack.enter_context(Progress(_so_far(sweep, record), plain))
        trackers.start()
        intervals = deque[Interval]()
        timeline = Timeline(record, intervals)
        events = Events(progress, Running(record), timeline, trackers, *([] if fresh is None else [fresh]))
        setting = Setting(
            cache, sweep.model, sweep.workers, offline, stop, costs, Room(cache, budget_mb()), record.log("prepare"),
            (lambda: math.inf) if hours is None else (lambda: hours * 3600 - record.spent_s()), progress.note,
            events.still_at_work, intervals, lambda candidate, host: events(StageAt(candidate, host)), len(sweep.targets) > 1,
        )  # fmt: skip
        work = stack.enter_context(engine_of(sweep.engine, setting, address))
        executor, stages = work.executor, work.stages
        with closing(stages):
            events.note(
                f"{sweep.name}: {sweep.model} on {_providers(sweep)}, results in {folder}, cache in {cache.root}"
            )
            record.busy(stage="prepare")
            ready = Blocking(executor, record.log("prepare"))
            prepared = {
                name: prepare(one, ready, cache.root, *work.asked(one.target.label, _takes_gpu(one))) for name, one in sweep.by_target.items()
            }  # fmt: skip
            sweeps = {name: (one, inputs) for name, (one, _, inputs) in prepared.items()}
            shared, dataset, inputs = next(iter(prepared.values()))
            splits = {split: key for split, (key, _) in inputs.items.items() if split != "test"}
            code = {inputs.code.file.name: inputs.code.digest} if inputs.code else {}
            record.check_inputs({"model": inputs.base, **splits, **code})
            record.note_input("root", _root(sweep.root, folder))
            record.note_input("results_schema", VERSION)
            stages.settle(inputs.files, inputs.model_mb, inputs.places)
            digests = {split: key for split, (key, _) in inputs.items.items()}
            parameters, data = inputs.model_mb * 1e6 / 4, sweep.data
            subject = subject_of(sweep.model, parameters, dataset, digests, data.metric, data.max_new_tokens)
            costs.about(subject, inputs.counts["train"])
            said = [line for _, own in sweeps.values() for line in own.notes]
            for line in (*data_report(dataset), *dict.fromkeys(said)):
                events.note(line)
            keep_texts(folder, dataset)
            write_aside(folder / "machine.json", json.dumps(redacted(describe() | work.described), indent=1))
            items = inputs.counts["validation"]
            taught = sweep.strategy == "frontier" and sweep.earlier_sweeps
            earlier = sweeps_for(record, inputs.base, events.note) if taught else []
            prior = TransferPrior(shared.space, earlier, prior_of(inputs.width))
            prepare_s = stages.spent_s
            if said_of_workers := work.employ(inputs.device, inputs.gpus):
                events.note(said_of_workers)
            costs.width = executor.width
            events(WorkersEmployed(executor.width, sweep.engine == "local"))
            paces = {machine: Pace(cache.root, machine) for machine in {own.machine for _, own in sweeps.values()}}

            def first() -> FirstCosts:
                return mean_of([
                    priced(Prices(Graph(one, own), costs, one.target.timing, tuple(one.target.timed)), one.space, one.seed)
                    for one, own in sweeps.values()
                ])  # fmt: skip

            searching = strategy_of(sweep.strategy, shared.space, sweep.objectives) == "frontier"
            known = first_costs(record, first) if searching else None
            given = sweep.objectives, sweep.seed, items, prior, known
            spaces = [one.space for one, _ in sweeps.values()]
            several = make_for_targets(sweep.strategy, spaces, *given) if sweep.targets else None
            strategy = several or make_strategy(sweep.strategy, shared.space, *given)

            def loop_of(name: str | None, own: Record, beside: Shared | None) -> Loop:
                one, inputs = sweeps[name]
                pipeline = Pipeline(
                    one, inputs, stages, paces[inputs.machine], beside.others if beside is not None else None
                )
                return Loop(
                    one,
                    own,
                    pipeline,
                    strategy,
                    executor,
                    events,
                    costs=costs,
                    shared=beside,
                    foreign_cpu=lambda: work.foreign_cpu(one.target.label, _takes_gpu(one)),
                )

            def trouble(name: str | None) -> str:
                one = sweeps[name][0]
                if gone := work.missing(one.target.label):
                    return gone
                on_device = one.space.recipes and one.provider.name != "cpu"
                return ask(one.provider, one.target.device, ready, one.target.label).trouble if on_device else ""

            summary, fronts = run_loops(list(sweeps), record, executor, loop_of, several, trouble)
            summary.stages_s += prepare_s
            alone = executor.width == 1 and sweep.engine == "local"  # a cluster may have been wider before
            summary.own_s = summary.wall_s - (summary.stages_s if alone else timeline.busy_s)
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


def _takes_gpu(sweep: Sweep) -> bool:
    """Whether a sweep's builds run on a GPU that a cluster hands out."""
    return bool(sweep.space.recipes) and sweep.target.provider in NVIDIA


def _so_far(sweep: Sweep, record: Record) -> SoFar:
    rows, targets = record.results.rows, tuple(sweep.targets)
    return SoFar(sweep.name, sweep.budget, list(sweep.objectives), rows, record.spent_s(), targets)


def _providers(sweep: Sweep) -> str:
    """Return where a sweep's models are deployed, in words."""
    named = [f"{one.target.provider} ({name})" for name, one in sweep.targets.items()]
    return " and ".join(named) or sweep.target.provider


def _root(root: Path, folder: Path) -> str:
    """Return where the sweep file lies, seen from the results folder: where the paths in it may start."""
    try:
        return Path(os.path.relpath(root.resolve(), folder.resolve())).as_posix()
    except ValueError:  # on another drive
        return root.resolve().as_posix()


def data_report(dataset: Dataset) -> list[str]:
    """Return in lines what the data holds, and which rows were left out and why."""
    splits = ("train", "validation", "test") if dataset.validation else ("train",)  # a task brings its own items
    counts = ", ".join(f"{len(getattr(dataset, split))} {split}" for split in splits)
    lines = [f"data: {counts}" + (f"; {len(dataset.labels)} labels" if dataset.labels else "")]
    for left in dataset.left_out:
        more = ", ..." if left.rows > len(left.examples) else ""
        examples = ", ".join(left.examples) + more
        lines.append(f"data: {left.rows} rows of {left.split} left out: {left.reason} ({examples})")
    lines += [f"data: {note}" for note in dataset.notes]
    return lines


def _report(folder: Path, score: str, summary: Summary) -> None:
    """Print the choice and the finalists to stdout, and what the run cost to stderr."""
    lines: list[str] = []
    for name, one in (summary.targets or {None: summary}).items():
        lines += [f"Target {name}:"] if name is not None else []
        kept = [f"The winner is in {folder / 'best' / (name or '')}"] if one.kept else []
        lines.append(explain(select(folder, target=name), [*kept, *finalist_lines(one.finalists, score)]))
    if summary.targets:
        lines += tie_lines({name: one.choice for name, one in summary.targets.items() if name}, read_results(folder))
    print(printable_lines(redact("\n".join(lines))))  # noqa: T201
    own = summary.own_s
    share = own / summary.wall_s if summary.wall_s else 0.0
    reason = {
        "trials": "budget.trials is reached",
        "kept": "the rest of the budget is kept for targets whose device is gone",
        "hours": "budget.hours is reached",
        "space": "every candidate is done",
        "export": "no recipe builds the model as it is, so nothing was trained",
        "front": "no candidate that is left promises to move the front",
        "lost": "the device of every target is gone",
    }
    sys.stderr.write(
        f"{summary.trials} trials in {duration(summary.wall_s)} ({reason[summary.ended]}); the tuner's own cost: "
        f"{own:.1f} s, {share:.1%} of the wall-clock\n"
    )
