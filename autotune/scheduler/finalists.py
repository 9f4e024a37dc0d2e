"""The end of a sweep: the winner is timed in turns with its rivals, scored once on test, and copied to `best/`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

from autotune.analysis.latency import Turns
from autotune.analysis.selection import Choice
from autotune.candidate import Candidate
from autotune.errors import StageError, printable
from autotune.metrics import METRICS
from autotune.pipeline.measure import Measurement, Pipeline
from autotune.pipeline.shipped import task_of, verify_job
from autotune.pipeline.steps import Steps, alone
from autotune.results.columns import TIMING, Cells
from autotune.results.judge import judge
from autotune.results.record import Record
from autotune.results.rows import Finalist, Trial
from autotune.results.trials import rounded
from autotune.scheduler.events import CandidateEnded, Events
from autotune.scheduler.ledger import Ledger
from autotune.shipping.about import about_model

MOST_IN_TURNS = 24
"""The most graphs that are timed in turns, besides the untouched model's: those nearest to the winner in latency."""


T = TypeVar("T")


class Complete(Protocol):
    """It runs steps to their end; the output of their stages goes to a log."""

    def __call__(self, steps: Steps[T], log: Path) -> T:
        """Return what the steps return. Raises the errors of their calls."""
        ...


@dataclass
class Final:
    """The result of the end of a sweep."""

    choice: Choice
    rows: list[Finalist] = field(default_factory=list)
    """The rows of finalists.csv."""
    turns: Turns | None = None
    """The latencies of the finalists relative to each other, where they were timed in turns."""
    kept: bool = False
    """Whether the winner is in `best/`."""
    seconds: float = 0.0
    """Seconds inside stages."""


class Finalists:
    """The end of a sweep: call `run` once."""

    def __init__(self, record: Record, pipeline: Pipeline, complete: Complete, events: Events, ledger: Ledger) -> None:
        """`complete` drives steps to their end, with what they print going to a log."""
        self.record, self.pipeline, self.events = record, pipeline, events
        self.complete, self.ledger = complete, ledger
        self.rows, self.base, self.base_id = ledger.rows, ledger.base_row, ledger.base_id
        self.seconds = 0.0

    def run(self) -> Final:
        """Choose the winner, time it in turns with its rivals, score it and the untouched model once on test, and keep it
        in `best/`. Raises MachineError, OSError.
        """
        choice = self._choose(None)
        turns, timed = self._in_turns(choice) if choice.winner is not None else (None, {})
        if turns is not None:
            choice = self._choose(turns)
        final = Final(choice, turns=turns)
        if choice.winner is not None:
            self._score(choice.winner.id, final, timed)
        elif self.record.best.exists():
            self.events.note(
                f"{self.record.best.relative_to(self.record.folder)}/ still holds an earlier winner, which does not keep these limits"
            )
        final.seconds = self.seconds
        return final

    def chosen(self) -> Final:
        """Choose the winner of a target whose device is gone: nothing can be timed, scored or tried there now."""
        final = Final(self._choose(None))
        if final.choice.winner is not None:
            later = "timed in turns, scored on test and kept when the same command is run again"
            self.events.note(f"target {self.ledger.untouched.target}: its device is gone, so its finalists are {later}")
        return final

    def _choose(self, turns: Turns | None) -> Choice:
        return judge(self.ledger.ended(), self.ledger.aims, self.base_id, self.record.folder, turns)

    def _candidate_of(self, row: Trial) -> Candidate:
        return self.ledger.candidate_of(row)

    def _in_turns(self, choice: Choice) -> tuple[Turns | None, dict[str, Cells]]:
        """Time in turns the winner so far, every candidate that could still win, and the untouched model.

        A candidate could still win if it ties with the winner in the objectives that are compared before latency. Its latency
        in the rows does not count, because it was measured at another time. A graph that is clearly slower leaves after a
        few rounds. Returns the turns, and the latency cells by candidate: those of its graph.
        """
        assert choice.winner is not None
        winner = self.rows[choice.winner.id]
        if winner.graph is None:
            return None, {}
        step = next((s for s in choice.steps if METRICS[s.metric].kind == "latency"), None)
        suffix = "".join(step.metric.partition("@")[1:]) if step is not None else ""
        entrants = {str(winner.served_as): winner}
        may_leave: set[str] = set()
        if step is not None:
            others = [self.rows[name] for name in (step.leader, *step.tied, *step.beaten)]
            away = {
                id(row): abs(math.log((row.number(step.metric) or 0.0) / (winner.number(step.metric) or 0.0)))
                for row in others
            }
            rivals = {str(row.served_as): row for row in sorted(others, key=lambda row: -away[id(row)])}
            nearest = sorted(rivals, key=lambda name: away[id(rivals[name])])
            if len(nearest) > MOST_IN_TURNS:
                self.events.note(f"{len(nearest)} graphs could win: the {MOST_IN_TURNS} nearest are timed in turns")
            for name in nearest[:MOST_IN_TURNS]:
                entrants.setdefault(name, rivals[name])
            if step.metric.partition("@")[0] not in (
                "ttft_ms_p50",
                "ttft_ms_p90",
            ):  # turns compare the time between tokens
                may_leave = set(entrants)
        if self.base is not None and self.base.status == "ok":
            entrants.setdefault(str(self.base.served_as), self.base)
            may_leave.discard(str(self.base.served_as))  # the ratios of all to it are reported
        candidates = {name: self._candidate_of(row) for name, row in entrants.items()}
        try:
            graphs = {name: str(row.graph) for name, row in entrants.items()}
            first = next(iter(candidates.values()))
            shown = self.events.stages_of(first)
            steps = self.pipeline.turns_steps(candidates, graphs, suffix, shown, may_leave)
            turns, cells, seconds = self.complete(steps, self.record.log("turns"))
            self.events(CandidateEnded(0, first))
        except StageError as error:
            self.events.note(f"the finalists could not be timed in turns: {error}")
            return None, {}
        finally:
            self.pipeline.rest()
        self.seconds += seconds
        self.record.keep_turns(turns.plain())
        named = {row.candidate: cells[name] for name, row in entrants.items()}
        if self.base is not None and str(self.base.served_as) in cells:
            named[self.base_id] = cells[str(self.base.served_as)]
        return turns, named

    def _score(self, winner: str, final: Final, timed: Mapping[str, Cells]) -> None:
        """Score the winner and the untouched model on test, and copy the winner to `best/`. `timed`: cells of the timing in turns."""
        split = "test" if "test" in self.pipeline.inputs.items else "validation"
        columns = {column.name for column in self.record.finalists}
        found: list[tuple[str, Cells]] = []
        for role, name, row in (("winner", winner, self.rows[winner]), ("base", self.base_id, self.base)):
            if row is None or row.status != "ok":
                continue
            candidate = self._candidate_of(row)
            shown = self.events.stages_of(candidate, scored=f" on {split}, {role}")
            steps = self.pipeline.steps(candidate, split, on_stage=shown, timed=False)
            measured = self.complete(steps, self.record.log(f"{name}.{split}"))
            self.events(CandidateEnded(0, candidate))
            self.seconds += measured.seconds
            checked: Cells = {}
            if role == "winner":
                final.kept = self._keep_best(candidate, measured)
                checked = self._verify(split, measured) if final.kept else {}
            if measured.status != "ok":
                self.events.note(f"{role} {name} could not be scored on {split}: {measured.error}")
            elif split == "test" and measured.outcomes is not None:
                self.record.keep_outcomes(name, split, self.pipeline.graph.data.metric, measured.outcomes)
            # It was timed in the sweep, and in turns.
            cells = {n: v for n, v in row.cells.items() if n in columns and n.partition("@")[0] in TIMING}
            cells |= {n: v for n, v in measured.cells.items() if n in columns}
            scored_on = split if measured.status == "ok" else None
            found.append((name, {"role": role, "candidate": name, "split": scored_on, **cells, **checked}))
        done = {name for name, _ in found}
        for name in [name for name in timed if name not in done]:
            row = self._row(name)
            footprint = {n: row[n] if row is not None else None for n in ("graph", "size_mb")}
            found.append((name, {"role": "rival", "candidate": name, **footprint}))
        for name, known in found:
            cells = known | timed.get(name, {}) | self._relation(name, final.turns)
            final.rows.append(Finalist(rounded({n: v for n, v in cells.items() if n in columns})))
        self.record.write_finalists(final.rows)

    def _row(self, name: str) -> Trial | None:
        """Return the row of a candidate; the untouched model's, where the strategy did not propose it."""
        return self.rows.get(name) or self.base

    def _relation(self, name: str, turns: Turns | None) -> Cells:
        """Return a finalist's cells of the timing in turns: the ratio of its time between tokens to the untouched model's, and noise."""
        if turns is None:
            return {}
        metric = next(metric for metric in turns.again if metric.startswith("itl_ms_p50"))
        base, own = (str(row.served_as if row is not None else None) for row in (self.base, self._row(name)))
        ratio = turns.ratio(metric, own, base)
        if ratio is None:
            return {}
        found: Cells = {"rounds": turns.rounds, "noise_floor": turns.noise_floor(metric)}
        if own != base:
            found |= {"itl_ratio": ratio.value, "itl_ratio_low": ratio.low, "itl_ratio_high": ratio.high}
        return found

    def _verify(self, split: str, measured: Measurement) -> Cells:
        """Verify `best/` by ONNX Runtime GenAI alone, from text. Returns the cells with the result."""
        if measured.outcomes is None or measured.build is None:
            return {}
        folder = self.record.best / "onnx"
        graph = self.pipeline.graph
        items = graph.inputs.items.get(split)
        job = verify_job(task_of(graph), items[1], measured.outcomes, folder) if items is not None else None
        if job is None:
            return {}
        try:
            job = job.model_copy(update={"label": graph.target.label})
            found = self.complete(alone(job), self.record.log("verify")).result
        except StageError as error:
            if error.status in ("lost", "timeout"):
                self.events.note(f"best/ could not be tried by ONNX Runtime GenAI alone: {error}")
                return {}
            found = {"items": 0, "wrong": [str(error)]}
        if not found["items"] and not found["wrong"]:  # every prompt was cut for the score
            return {}
        said = "; ".join(found["wrong"][:3])
        cells: Cells = {"verified": not found["wrong"], "verified_items": found["items"]}
        if found["wrong"]:
            cells["verify_error"] = printable(f"{len(found['wrong'])} of {max(1, found['items'])}: {said}")
            self.events.note(f"best/ does not do what is recorded, loaded by ONNX Runtime GenAI alone: {said}")
        return cells

    def _keep_best(self, candidate: Candidate, measured: Measurement) -> bool:
        """Copy the winner's build and adapter to `best/`. Returns whether both were available."""
        parts = {"onnx": measured.build, "adapter": measured.adapter}
        made = {name: stored.path for name, stored in parts.items() if stored is not None}
        if len(made) < (candidate.recipe is not None) + (candidate.lora is not None):
            self.events.note(f"the winner {candidate.id} could not be made again for best/: {measured.error}")
            return False
        graph = self.pipeline.graph
        about = about_model(candidate, graph.model, task_of(graph))
        self.record.keep_best(made, about, graph.session(candidate), graph.provider)
        return True
