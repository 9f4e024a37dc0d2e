"""Puts a choice into words: the winner, and why this one; or why there is none."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from autotune.analysis.selection import Choice, Step
from autotune.errors import Exit, printable
from autotune.metrics import METRICS
from autotune.present.select import Selection
from autotune.present.tables import candidates, number, score_text, settings, verified_lines
from autotune.present.untouched import beside_untouched
from autotune.results.judge import base_of
from autotune.results.outcomes import MOST_NUMBERS
from autotune.results.rows import Trial
from autotune.results.trust import is_another_model, is_in_doubt

_SHOWN, _LONGEST = 3, 240
"""The most candidates of a kind that are named, and the most characters of an error."""


def explain(selection: Selection, found: Sequence[str] = ()) -> str:
    """Return the choice in words: the winner, what ties with it, which limits are uncertain, and the front.

    `found`: further lines about the winner, which are put before the reasons.
    """
    notes = [f"Note: {note}" for note in selection.notes]
    if selection.won is None:
        return "\n".join([*notes, *_without_winner(selection)])
    return "\n".join([*notes, *_winner(selection, selection.won, found), "", *_front(selection)])


def explain_targets(chosen: Mapping[str, Selection], found: Mapping[str, Sequence[str]] | None = None) -> str:
    """Return the choices of several targets in words; notes on the whole folder stand once, above them.

    `found`: by target, further lines about its winner.
    """
    first, *others = chosen.values()
    shared = [note for note in dict.fromkeys(first.notes) if all(note in other.notes for other in others)]
    parts = []
    for name, selection in chosen.items():
        own = replace(selection, notes=tuple(note for note in selection.notes if note not in shared))
        parts.append(f"Target {name}:\n{explain(own, (found or {}).get(name, ()))}")
    return "\n\n".join(["\n".join(f"Note: {note}" for note in shared)] * bool(shared) + parts)


def _winner(selection: Selection, row: Trial, found: Sequence[str]) -> list[str]:
    """Return the winner in lines, and how it was chosen."""
    choice, aims, base = selection.choice, selection.wanted, base_of(selection.rows)
    lines = [f"Winner: {row.candidate} (trial {row.trial})  {settings(row.settings)}"]
    lines.append("  " + ", ".join(score_text(row, name) for name in aims.objectives))
    compared = next((name for name in aims.objectives if METRICS[name].kind == "score"), None)
    if compared is not None:
        untouched = beside_untouched(row, base, compared, aims.objectives[compared])
        lines += [f"  {line}" for line in untouched]
    lines += [f"  {line}" for line in (*found, *verified_lines(selection.final))]
    if aims.limits:
        measured = sum(one.status == "ok" and one.trial != 0 for one in selection.rows)
        limits = ", ".join(map(str, aims.limits))
        lines.append(f"  {len(choice.feasible)} of {measured} measured candidates keep the limits: {limits}")
    lines += [f"  by {_said(step)}" for step in choice.steps if step.tied or step.beaten]
    lines += _leader(selection, row)
    if choice.uncertain:
        lines.append(
            "  uncertain, the interval straddles the threshold: " + "; ".join(str(limit) for limit in choice.uncertain)
        )
    lines += _in_doubt(base)
    ways = {way: step.metric for step in reversed(choice.steps) for way in step.method.split("+")}
    if {"unpaired", "intervals"} & set(ways):
        lines.append(
            f"  compared by unpaired intervals: the outcomes of single items are not at hand, or more than {MOST_NUMBERS:,} numbers"
        )
    if "face value" in ways:
        lines.append(
            f"  {ways['face value']} has no interval in these results: any difference counts, so that a worse one may be noise"
        )
    return lines


def _said(step: Step) -> str:
    """Return a line on how an objective decided among the candidates."""
    how = f" ({step.method})" if step.method else ""
    worse = f"{len(step.beaten)} {'is' if len(step.beaten) == 1 else 'are'} worse"
    if not step.tied:
        return f"{step.metric}{how}: the winner is the best, {worse}"
    alike = "equal" if step.method == "exact" else "tie"
    count = len(step.tied) + 1
    if not step.beaten:
        return f"{step.metric}{how}: all {count} {'are ' * (alike == 'equal')}{alike}"
    return f"{step.metric}{how}: {count} {'are ' * (alike == 'equal')}{alike}, {worse}"


def _leader(selection: Selection, row: Trial) -> list[str]:
    """Return a line on why the best in the first objective is not the winner; nothing if it is."""
    choice = selection.choice
    if choice.leader is None or choice.leader.id == row.candidate or not choice.steps:
        return []
    first = choice.steps[0].metric
    better, least = choice.leader.values.get(first), row.number(first)
    if better is None or better == least:
        return []
    decided = next((step.metric for step in choice.steps[1:] if choice.leader.id in step.beaten), None)
    then = f", and by {decided} the winner is better" if decided is not None else ""
    return [f"  {choice.leader.id[:8]} has {first} {number(better)}: the difference is within the noise{then}"]


def _front(selection: Selection) -> list[str]:
    aims = selection.wanted
    first = next(iter(aims.objectives))
    descending = aims.objectives[first] == "maximize"
    front = sorted(selection.front, key=lambda row: row.number(first) or 0.0, reverse=descending)
    head = f"Front of {', '.join(aims.objectives)} ({len(front)} of {len(selection.rows)}):"
    won = selection.won
    return [head, candidates(front, list(aims.objectives), won.candidate if won is not None else None)]


def _without_winner(selection: Selection) -> list[str]:
    """Return lines on why there is no winner: limits that the nearest candidates break, candidates given up, failures."""
    choice, aims, rows = selection.choice, selection.wanted, selection.rows
    lines = ["No candidate finished."]
    if selection.exit_code == Exit.NO_FEASIBLE:
        measured = any(row.status == "ok" and row.trial for row in rows)
        more = "" if measured else " None was measured: each was given up before, for a limit that it could not keep."
        lines = [f"No candidate keeps the limits.{more}"]
    base = base_of(rows)
    status = base.status if base is not None else None
    known = base.values if base is not None and status == "ok" else {}
    lines += _in_doubt(base)
    unknown = [limit for limit in aims.limits if limit.needs_base and limit.metric not in known]
    if unknown and rows:
        yet = "yet: it is, when the sweep ends" if status == "stopped" else ""
        lines.append(f"  '{unknown[0]}' cannot be judged: the untouched model was not measured {yet}".rstrip())
    for name, misses in choice.nearest:
        missed = "; ".join(f"misses '{limit}' by {number(gap)}" for limit, gap in misses)
        lines.append(f"  {name[:8]} {settings(selection.row(name).settings)}: {missed}")
    return [*lines, *given_up_lines(rows), *failure_lines(rows, logs=selection.in_folder)]


def given_up_lines(rows: Sequence[Trial]) -> list[str]:
    """Return lines about candidates that were given up for a limit before they were measured."""
    given_up = [row for row in rows if row.status == "over_limit" and row.trial]
    lines = [f"  {row.candidate[:8]} {settings(row.settings)}: {_error(row)}" for row in given_up[:_SHOWN]]
    more = len(given_up) - _SHOWN
    return [*lines, f"  and {more} more that were given up for a limit"] if more > 0 else lines


def failure_lines(rows: Sequence[Trial], logs: bool = False) -> list[str]:
    """Return lines with the number of failed candidates by status, and the error of one; `logs`: the folder of its log."""
    failed: dict[str, list[Trial]] = defaultdict(list)
    for row in rows:
        if row.trial and row.status not in ("ok", "over_limit", "stopped"):
            failed[row.status].append(row)
    lines = []
    for status, some in failed.items():
        row = some[-1]
        error = _error(row)
        log = f"; its log: logs/{row.candidate}.log" if logs else ""
        lines.append(
            f"  {len(some)} {status}"
            + (f", {'last ' * (len(some) > 1)}{row.candidate[:8]}: {error}{log}" if error else "")
        )
    return lines


def _error(row: Trial) -> str:
    text = printable(str(row.error or ""))
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


def _in_doubt(base: Trial | None) -> list[str]:
    """Return in words that the untouched model was not built as it is, and what follows from it."""
    if base is None or not is_in_doubt(base):
        return []
    name = base["build_precision"]
    if is_another_model(base):
        what = f"the untouched model at {name} computes something else once it is built, and so does every recipe that only rounds its weights"
    else:
        what = f"the untouched model at {name} could not be built and run"
    return [f"  {what}: {base.error}"]


def tie_lines(choices: Mapping[str, Choice], rows: Sequence[Trial]) -> list[str]:
    """Return lines that say whether one adapter wins, or ties with the winner, on every target."""
    adapters = {row.candidate: str(row.adapter) for row in rows if row.adapter}
    near: list[set[str]] = []
    for choice in choices.values():
        if choice.winner is None:
            return []
        tied = {choice.winner.id, *(choice.steps[0].tied if choice.steps else ())}
        near.append({adapters[name] for name in tied if name in adapters})
    common = set.intersection(*near) if near else set()
    if not common:
        return ["No adapter is the winner, or ties with it, on every target."]
    winners = [adapters.get(choice.winner.id) for choice in choices.values() if choice.winner is not None]
    if len(set(winners)) == 1:
        return [f"The same adapter ({str(winners[0])[:8]}) wins on every target."]
    named = ", ".join(sorted(name[:8] for name in common)[:5])
    return [
        f"One adapter would do for every target: {named} wins there, or ties with the winner in the first objective."
    ]
