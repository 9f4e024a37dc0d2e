"""Draw the live view of `run` from the events of the committed example, without running a sweep.

python -m benchmarks.live_picture   # writes benchmarks/measured/live_view.svg
"""

from __future__ import annotations

import io
import sys
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI

from autotune.analysis.limits import Aims
from autotune.present.live import view_lines
from autotune.present.so_far import SoFar
from autotune.results.folder import read_results, read_sweep
from autotune.results.judge import base_of, candidate_of, front_of, judge
from autotune.scheduler.events import (
    BestSoFar,
    CandidateEnded,
    RowWritten,
    StageBegan,
    TimeLeft,
    WorkersEmployed,
)
from autotune.sweepfile.schema import Budget

ROOT = Path(__file__).parent.parent
EXAMPLE, PICTURE = ROOT / "results" / "example", ROOT / "benchmarks" / "measured" / "live_view.svg"
WIDTH, HEIGHT = 80, 24
DONE = 7
"""Trials that have ended in the picture; the two after them are under way, on two workers."""
# The template of rich without its web font: the picture asks nobody for anything.
_SVG = """<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: Menlo, Consolas, DejaVu Sans Mono, monospace; font-size: {char_height}px; line-height: {line_height}px; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal"><rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" /></clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def picture() -> str:
    """Return the live view as SVG, as it stood after `DONE` trials of the example."""
    sweep = read_sweep(EXAMPLE) or {}
    rows = read_results(EXAMPLE)
    now = [0.0]
    so_far = SoFar(sweep["name"], Budget(**sweep["budget"]), list(sweep["objectives"]), clock=lambda: now[0])
    so_far.hear(WorkersEmployed(2))
    base, trials = base_of(rows), [row for row in rows if row.trial]
    began = min(_seconds(row.started) for row in rows)
    aims = Aims(dict(sweep["objectives"]), ())
    for row in [row for row in rows if (row.trial or 0) <= DONE]:
        candidate = candidate_of(row, EXAMPLE / "results.csv")
        so_far.hear(StageBegan(row.trial or 0, candidate, "score"))
        now[0] = _seconds(row.ended) - began
        so_far.hear(CandidateEnded(row.trial or 0, candidate))
        so_far.hear(RowWritten(row, None))
    known = [row for row in rows if (row.trial or 0) <= DONE]
    best = judge(known, aims, base.candidate if base is not None else None).winner
    winner = next(row for row in known if best is not None and row.candidate == best.id)
    so_far.hear(BestSoFar(winner, tuple(front_of(known, aims.objectives))))
    so_far.hear(TimeLeft(180.0))
    for row, stage, seconds in zip(trials[DONE : DONE + 2], ("score", "finetune"), (4.0, 9.0), strict=True):
        so_far.hear(StageBegan(row.trial or 0, candidate_of(row, EXAMPLE / "results.csv"), stage))
        now[0] += seconds
    console = Console(file=io.StringIO(), record=True, force_terminal=True, width=WIDTH, _environ={})
    for line in view_lines(so_far.picture(), WIDTH, HEIGHT):
        console.print(line)
    return console.export_svg(
        title="autotune run search_spaces/phrase-tone-cpu.yaml", theme=MONOKAI, code_format=_SVG, unique_id="live"
    )


def _seconds(moment: str | None) -> float:
    return datetime.fromisoformat(str(moment)).timestamp()


def main() -> int:
    """Write the picture and print where it is."""
    PICTURE.write_text(picture(), encoding="utf-8")
    print(PICTURE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
