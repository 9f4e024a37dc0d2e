"""The expected seconds of a candidate, stage by stage: the graph gives its jobs, and the cost model prices them."""

from __future__ import annotations

from collections.abc import Sequence

from autotune.candidate import Candidate
from autotune.costs.estimate import Estimate
from autotune.costs.imports import Imports
from autotune.costs.model import CostModel, Expected
from autotune.costs.work import Work, processes_of
from autotune.metrics import is_task
from autotune.pipeline.graph import Graph
from autotune.pipeline.shipped import MOST as MOST_VERIFIED
from autotune.stages.jobs import ScoreJob, TimeJob, TurnsJob


class Prices:
    """The expected seconds of the jobs of one target. Nothing is run or looked up."""

    def __init__(self, graph: Graph, costs: CostModel, cold: int = 0) -> None:
        """`cold`: the number of new workers, which import the packages of a stage when they first do it."""
        self.graph, self.costs = graph, costs
        self.timing, self.suffixes = graph.target.timing, tuple(graph.target.timed)
        self.first = Imports(cold).first
        """Counts a job of a stage that is priced. Returns whether its worker still has to import the stage's packages."""

    def training(self, candidate: Candidate, rung: float = 1.0, reached: float = 0.0) -> tuple[Expected, float]:
        """Return the cost of training from the rung `reached` to `rung`, and the number of sequences that it trains on."""
        lora = candidate.lora
        assert lora is not None
        sequences = self.graph.horizon(lora) * lora.batch_size * lora.accumulation * (rung - reached)
        return self.costs.expect(self.graph.finetune_job(candidate, rung), self.first("finetune"), sequences), sequences

    def scoring(self, candidate: Candidate, split: str, items: float, rung: float = 1.0) -> Expected:
        """Return the cost of scoring a candidate on `items` items."""
        return self.costs.expect(self.score_job(candidate, split, rung), self.first("score"), items)

    def score_job(self, candidate: Candidate, split: str, rung: float = 1.0) -> ScoreJob:
        """Return the job that scores a candidate, which is taken to be built."""
        scored = self.graph.scored_as(candidate)
        if scored.recipe is not None:
            self.costs.note(self.graph.build_job(scored, rung))
        return self.graph.score_job(scored, split, rung)

    def time_job(self, candidate: Candidate, suffix: str = "", signature: str | None = None) -> TimeJob:
        """Return the job that times a candidate; the recipe stands for its graph until the `signature` is known."""
        build = self.graph.build_job(candidate)
        self.costs.note(build)
        return self.graph.time_job(candidate, build.key, signature or str(candidate.recipe), suffix)

    def whole(self, candidate: Candidate, timed: bool = False) -> Estimate:
        """Return the estimate of measuring one candidate in full, with nothing in the cache; `timed`: without its timing."""
        estimate, graph, costs = Estimate(), self.graph, self.costs
        items = graph.inputs.counts["validation"]
        if candidate.lora is not None:
            estimate.add("train", *self.training(candidate))
        served = graph.scored_as(candidate)
        if served.recipe is not None:
            if candidate.lora is not None:
                estimate.add("merge", costs.expect(graph.merge_job(candidate), self.first("merge")))
            estimate.add("build", costs.expect(graph.build_job(served), self.first("build")))
        if candidate.recipe is not None:
            estimate.add("check", costs.expect(graph.check_job(candidate), self.first("check")))
            for suffix in () if timed else self.suffixes:
                estimate.add("time", costs.expect(self.time_job(candidate, suffix)))
        estimate.add("score", self.scoring(candidate, "validation", items), items)
        return estimate

    def finale(self, winner: Candidate | None, base: Candidate, graphs: Sequence[Candidate]) -> Estimate:
        """Return the estimate of the end of a sweep. `graphs`: candidates whose graphs are timed in turns, the winner first.

        The untouched model takes part in the turns. The winner and the untouched model are scored on test, and `best/` is
        verified.
        """
        estimate, counts = Estimate(), self.graph.inputs.counts
        if winner is None:
            return estimate
        if winner.recipe is not None:
            jobs = [self.time_job(one) for one in graphs or (winner,)]
            if base.recipe is not None and base.recipe not in {one.recipe for one in graphs or (winner,)}:
                jobs.append(self.time_job(base))
            turns = TurnsJob(graphs=(*jobs, jobs[0]), **self.timing.model_dump())
            estimate.add("turns", self.costs.expect(turns))
        if "test" in self.graph.inputs.items:
            for one in (winner, base):
                estimate.add("score", self.scoring(one, "test", counts["test"]), counts["test"])
        if winner.recipe is not None and not is_task(self.graph.data.metric):
            work = Work("verify", "", units=MOST_VERIFIED, parameters=self.costs.subject.parameters)
            estimate.add("verify", self.costs.expect_work(work))
        return estimate

    def completed(self, candidate: Candidate) -> Estimate:
        """Return the estimate of completing a timing that so far has the least number of processes."""
        estimate, timing = Estimate(), self.timing
        more = processes_of(timing.processes, timing.most) - timing.processes
        if candidate.recipe is not None and more > 0:
            for suffix in self.suffixes:
                estimate.add("time", self.costs.expect(self.time_job(candidate, suffix), units=more))
        return estimate
