"""Several targets in one sweep: a loop for each, and one search over all of them.

Each target has its own untouched model, front and winner, so it has a loop of its own. The strategy, the budget and the
workers are shared, and so is what is expensive: an adapter is trained and merged once, and a build that is the same is made once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from autotune.results.record import Record
from autotune.results.rows import Trial
from autotune.scheduler.loop import Loop, Summary
from autotune.scheduler.search import Search, run_loop
from autotune.scheduler.shared import Shared
from autotune.scheduler.under_way import Executor
from autotune.strategies.several import ForTargets


def run_loops(
    names: Sequence[str | None],
    record: Record,
    executor: Executor,
    loop_of: Callable[[str | None, Record, Shared | None], Loop],
    strategy: ForTargets | None = None,
    trouble: Callable[[str | None], str] = lambda _: "",
    missing: Callable[[str | None], str] = lambda _: "",
    away: Mapping[str | None, str] = MappingProxyType({}),
) -> tuple[Summary, list[Trial]]:
    """Run the loops of all targets, or the one of a sweep that has one (`names` is [None]).

    `strategy`: that of the loops, where there are several; `trouble` says why nothing runs on a target's device, and is empty
    where something does; `missing` and `away` are as in `Search`. Returns a summary of all, whose exit code is the worst of
    what each alone would have, and the rows that count. Raises as `Search.run`.
    """
    if strategy is None:
        loop = loop_of(None, record, None)
        return run_loop(loop), loop.ledger.ended()
    shared = Shared(executor)
    loops = [loop_of(name, record.for_target(name), shared) for name in names if name is not None]
    summaries = Search(loops, record.results.rows, strategy.leave_out, trouble, missing, away).run()
    remove_merged(loops)
    return together(summaries), [row for loop in loops for row in loop.ledger.ended()]


def remove_merged(loops: Sequence[Loop]) -> None:
    """Remove the merged models that were kept for other targets, those of earlier runs too."""
    for loop in loops:
        candidates = [loop.ledger.candidate_of(row) for row in loop.ledger.ended() if row.merged is not None]
        jobs = {job.key: job for job in map(loop.pipeline.graph.merge_job, candidates)}
        for job in jobs.values():
            if loop.pipeline.do.find(job) is not None:
                loop.pipeline.do.discard(job)


def together(summaries: dict[str | None, Summary]) -> Summary:
    """Return the summary of a sweep from those of its targets."""
    first = next(iter(summaries.values()))
    ends = list(dict.fromkeys(one.ended for one in summaries.values()))
    return Summary(
        first.choice,
        sum(one.trials for one in summaries.values()),
        max(one.wall_s for one in summaries.values()),
        sum(one.stages_s for one in summaries.values()),
        next((end for end in ends if end != "export"), ends[0]),
        max(one.exit_code for one in summaries.values()),
        [row for one in summaries.values() for row in one.finalists],
        kept=all(one.kept for one in summaries.values()),
        targets=summaries,
    )
