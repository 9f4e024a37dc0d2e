"""Several targets in one sweep: a loop for each, one after another, over the same adapters.

Each target has its own untouched model, front and winner, so its loop is that of a sweep of its own. What they share is
dear: a training, a merge, and a build that is the same come from the cache, and what one target's rows say of an adapter
is told to the strategies of those after it, so that they go on with adapters that are trained.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from autotune.candidate import Candidate
from autotune.pipeline.measure import Others
from autotune.results.judge import candidate_of
from autotune.results.record import Record
from autotune.results.rows import Trial
from autotune.scheduler.loop import Loop, Summary
from autotune.strategies.protocol import Strategy, Told


def run_loops(
    names: Sequence[str | None], record: Record, loop_of: Callable[[str | None, Record, Others | None], Loop]
) -> tuple[Summary, list[Trial]]:
    """Run the loop of each target, or the one of a sweep that has one (`names` is [None]).

    Returns a summary of all, whose exit code is the worst of what each alone would have, and the rows that count.
    """
    if list(names) == [None]:
        loop = loop_of(None, record, None)
        return loop.run(), loop.ledger.ended()
    others = Others()
    summaries: dict[str | None, Summary] = {}
    fronts: list[Trial] = []
    for place, name in enumerate(names):
        assert name is not None
        others.to_come = len(names) - place - 1
        loop = loop_of(name, record.for_target(name), others)
        teach(loop.strategy, [row for row in record.results.rows if row.target != name], loop)
        loop.events.note(f"target {name}")
        summaries[name] = loop.run()
        fronts += loop.ledger.ended()
        if not others.to_come:
            for merge in others.merged.values():
                loop.pipeline.do.discard(merge)
    return together(summaries), fronts


def teach(strategy: Strategy, rows: Sequence[Trial], loop: Loop) -> None:
    """Tell a strategy with lower fidelities what other targets' rows say of adapters: how far they are trained, and how well
    they score. A pair counts as its adapter alone: it was rounded for another target, which costs little.
    """
    if not strategy.rungs:
        return
    for row in rows:
        score = row.number(loop.ledger.score)
        if row.kind == "base" or score is None or row.status not in ("ok", "stopped"):
            continue
        lora = candidate_of(row, loop.ledger.file).lora
        told = Told(
            None, {}, measured={loop.ledger.score: score}, rung=row.rung or 1.0, items=row.behind(loop.ledger.score) or 0,
            status="stopped", probability=row.probability,
        )  # fmt: skip
        strategy.replay(Candidate(lora=lora, target=loop.ledger.untouched.target), told)


def together(summaries: dict[str | None, Summary]) -> Summary:
    """Return the summary of a sweep from those of its targets."""
    first = next(iter(summaries.values()))
    ends = list(dict.fromkeys(one.ended for one in summaries.values()))
    return Summary(
        first.choice,
        sum(one.trials for one in summaries.values()),
        sum(one.wall_s for one in summaries.values()),
        sum(one.stages_s for one in summaries.values()),
        ends[-1],
        max(one.exit_code for one in summaries.values()),
        [row for one in summaries.values() for row in one.finalists],
        kept=all(one.kept for one in summaries.values()),
        targets=summaries,
    )
