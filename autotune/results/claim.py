"""Whether a folder may become the results folder of a sweep: what others have put there is never replaced."""

from __future__ import annotations

from pathlib import Path

from autotune.errors import Problem, UsageError
from autotune.paths import exists, is_file
from autotune.sweepfile.syntax import SYNTAX_ERRORS, read_resolved

_WRITTEN = (
    "sweep.yaml", "best", "results.csv", "finalists.csv", "front.csv", "curves.csv", "runs.csv", "inputs.json", "machine.json",
    "outcomes",
)  # fmt: skip
"""What a run writes into its folder, and would replace."""
_RESOLVED = {
    "name",
    "model",
    "data",
    "space",
    "objectives",
    "limits",
    "strategy",
    "budget",
    "seed",
    "trust_remote_code",
}
"""Keys that a resolved sweep always has, and a file that somebody wrote hardly ever."""


def check_folder(folder: Path, sweep_file: str, model: Path | None = None, who: str = "a run") -> None:
    """Raise UsageError where a run into `folder` would replace what no run has written there; `sweep_file`: what is run.

    `model`: the folder of the base model, which results would change. `who`: what would replace it.
    """
    if model is not None and folder.resolve().is_relative_to(model.resolve()):
        rule = "lies in the folder of the base model, which results would change: it would count as another model"
        raise UsageError(Problem(rule, "--out", str(folder), remedy="choose an --out outside of it"))
    if is_file(folder / "results.csv") and _is_ours(folder / "results.csv"):
        return
    kept = folder / "sweep.yaml"
    own = _same(kept, Path(sweep_file))
    if _is_resolved(kept) and not own:  # a run was killed while it began
        return
    there = [
        name for name in _WRITTEN if exists(folder / name) and not (name == "runs.csv" and _is_of_runs(folder / name))
    ]
    if not there:
        return
    what = f"{' and '.join(there[:3])}{' and others' * (len(there) > 3)}"
    rule = f"the folder holds {what}, which no sweep has written and {who} would replace"
    if own:
        rule = "the folder holds the sweep file itself, and a run would replace it by the sweep with all defaults spelled out"
    remedy = "choose another --out: a folder that is empty, or still to be made"
    raise UsageError(Problem(rule, "--out", str(folder), remedy=remedy))


def _is_ours(table: Path) -> bool:
    """Whether a file is a table of results, or empty: a run was killed while it began."""
    try:
        with table.open("rb") as stream:
            first = stream.readline(100_000).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return False
    return not first.strip() or "candidate" in first


def _is_of_runs(table: Path) -> bool:
    """Whether a file is the table of runs: a run whose folder was taken away leaves nothing else."""
    try:
        with table.open("rb") as stream:
            return stream.readline(1000).startswith(b"started,wall_s")
    except OSError:
        return False


def _is_resolved(file: Path) -> bool:
    try:
        found = read_resolved(file.read_text(encoding="utf-8"))
    except (OSError, *SYNTAX_ERRORS):
        return False
    return isinstance(found, dict) and set(found) >= _RESOLVED


def _same(one: Path, other: Path) -> bool:
    try:
        return Path(one).samefile(other)
    except (OSError, ValueError):
        return False
