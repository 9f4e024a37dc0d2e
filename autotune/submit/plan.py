"""Plans a job elsewhere: a checked sweep, the arguments of its command, and the files that the command reads."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from autotune.data.schema import SPLITS, HubDataset
from autotune.data.sources import hub_source, locate, part_of
from autotune.distribution import requirement
from autotune.errors import Problem, UsageError
from autotune.metrics import is_task
from autotune.models import BUILT_IN, local_folder
from autotune.paths import is_file
from autotune.providers import NVIDIA
from autotune.remote.addresses import is_address
from autotune.sweepfile.olive.reader import SEARCH
from autotune.sweepfile.resolve import load_sweep
from autotune.sweepfile.schema import Sweep
from autotune.sweepfile.submit import Submit
from autotune.sweepfile.syntax import parse_value

_STARTS, _LARGEST = (b"autotune run", b"autotune.in_job"), 1_000_000
"""What stands in each file that submit writes, and bytes in which it is looked for."""


@dataclass(frozen=True)
class Plan:
    """A sweep that runs elsewhere."""

    sweep: Sweep
    file: Path
    words: tuple[str, ...]
    """The arguments of `autotune run` after the sweep file, without --out."""
    addresses: dict[str, str]
    """Model and data that are addresses of Azure ML, by their key in the sweep file."""

    @property
    def submit(self) -> Submit:
        """The `submit:` part, or an empty one."""
        return self.sweep.submit or Submit()

    @property
    def needs_gpu(self) -> bool:
        """Whether a target, or the training, needs an NVIDIA GPU."""
        targets = self.sweep.by_target.values()
        return any(one.target.provider in NVIDIA for one in targets) or self.sweep.train.device == "cuda"

    @property
    def extras(self) -> tuple[str, ...]:
        """The extras of this tool that the sweep needs: its targets', then those of data, metric, strategy, engine, trackers."""
        sweep, data = self.sweep, self.sweep.data
        targets = dict.fromkeys(one.provider.extra for one in sweep.by_target.values())
        if "cuda" in targets:  # its wheel excludes the plain one, and runs on the CPU as well
            targets.pop("cpu", None)
        sources = [source for split in SPLITS if (source := getattr(data, split)) is not None]
        needed = {
            "hub": any(isinstance(hub_source(source, sweep.root), HubDataset) for source in sources),
            "lm-eval": is_task(data.metric),
            "rouge": data.metric == "rouge_l",
            "gp": sweep.strategy == "gp",
            "ray": sweep.engine == "ray",
        }
        return (*targets, *(extra for extra, needs in needed.items() if needs), *sorted(sweep.report_to))

    def install(self, named: str | None) -> str:
        """Return the requirement that pip installs in the job: `named` by the user, or this version of autotune."""
        return named or requirement(*self.extras)


def make_plan(file: Path, sets: Sequence[str]) -> Plan:
    """Check a sweep as the `plan` command does, without its model and data, which may lie elsewhere. Raises UsageError."""
    sweep = load_sweep(file, sets)
    places = {"model": sweep.model, **{f"data.{split}": getattr(sweep.data, split) for split in SPLITS}}
    addresses = {key: place for key, place in places.items() if is_address(place)}
    words = [f"--set={one}" for one in sets if one != SEARCH] + (["--search"] if SEARCH in sets else [])
    return Plan(sweep, file, tuple(words), addresses)


def find_local(plan: Plan) -> dict[str, tuple[Path, str]]:
    """Return model and data that lie on this machine, by their key in the sweep file: the path, and which rows are taken.

    Raises UsageError where a file is missing.
    """
    sweep = plan.sweep
    found: dict[str, tuple[Path, str]] = {}
    if sweep.model not in BUILT_IN and not is_address(sweep.model):
        folder = local_folder(sweep.model, sweep.root)
        if folder is not None:
            found["model"] = (folder, "")
    problems: list[Problem] = []
    for split in SPLITS:
        source = getattr(sweep.data, split)
        if not isinstance(source, str) or hub_source(source, sweep.root) is not None:
            continue
        whole, part = part_of(source, sweep.root)
        try:
            rows = source[len(str(whole)) :] if part is not None else ""
            found[f"data.{split}"] = (locate(whole, sweep.root, None), rows)
        except UsageError as error:
            problems += [replace(one, key=f"data.{split}", file=str(plan.file)) for one in error.problems]
    if problems:
        raise UsageError(problems)
    return found


def refuse_own_file(plan: Plan, output: Path) -> None:
    """Raise UsageError if writing `output`, a file or a folder, would overwrite the sweep file."""
    sweep = plan.file.resolve()
    if output.resolve() in (sweep, *sweep.parents):
        rule = "would be written over the sweep file, or over a folder that holds it"
        raise UsageError(Problem(rule, file=str(output), remedy="name another file with -o"))


def refuse_others_file(output: Path) -> None:
    """Raise UsageError where `output` is a file that starts no sweep: submit has not written it."""
    if not is_file(output):
        return
    with output.open("rb") as stream:
        content = stream.read(_LARGEST)
    if content.strip() and not any(word in content for word in _STARTS):
        rule = "is there already, and is no file that submit has written"
        raise UsageError(Problem(rule, file=str(output), remedy="name another file with -o"))


def words_of_a_copy(plan: Plan) -> list[str]:
    """Return the arguments of `autotune run` for a place that gets a copy of the working directory, and nothing else.

    The sweep file, and model and data that the sweep names by whole paths, are named by their paths from there. An absolute
    path that is not on this machine stays: it may be one of a bucket there. Raises UsageError where a file is missing, or
    outside the working directory.
    """
    here = Path.cwd().resolve()
    sweep, problems, words = plan.sweep, list[Problem](), list[str]()

    def below(key: str, place: Path) -> str:
        if place.resolve().is_relative_to(here):
            return place.resolve().relative_to(here).as_posix()
        rule = "is outside the working directory, which is all that is copied to an instance of SkyPilot"
        remedy = "go to a folder that holds it as well, or copy it below this one"
        problems.append(Problem(rule, key, str(plan.file), value=str(place), remedy=remedy))
        return ""

    file = below("", plan.file)
    folder = None if sweep.model in BUILT_IN or is_address(sweep.model) else local_folder(sweep.model, sweep.root)
    if folder is not None:
        named = below("model", folder)
        words += [f"--set=model={_as_value(named)}"] if _is_whole(sweep.model) else []
    for split in SPLITS:
        source = getattr(sweep.data, split)
        if not isinstance(source, str) or hub_source(source, sweep.root) is not None:
            continue
        whole = str(part_of(source, sweep.root)[0])
        try:
            named = below(f"data.{split}", locate(whole, sweep.root, None))
        except UsageError as error:
            if not Path(whole).is_absolute():
                problems += [replace(one, key=f"data.{split}", file=str(plan.file)) for one in error.problems]
            continue
        words += [f"--set=data.{split}={_as_value(named + source[len(whole) :])}"] if _is_whole(whole) else []
    if problems:
        raise UsageError(problems)
    return [file, *plan.words, *words]


def _as_value(text: str) -> str:
    """Return a text as the value of --set, which is YAML: in quotes where that would read another text, a number, or a list."""
    plain = re.fullmatch(r"[\w./%:\[\]-]+", text) and parse_value(text) == text
    return text if plain else "'" + text.replace("'", "''") + "'"


def _is_whole(path: str) -> bool:
    return Path(path).is_absolute() or path.startswith("~")


def refuse_addresses(plan: Plan, where: str) -> None:
    """Raise UsageError where a sweep names addresses that only a job of Azure ML can read."""
    if plan.addresses:
        rule = f"is an address of Azure ML, which {where} does not have"
        remedy = "use --to azureml, or name a file, a folder or a name on the hub with --set"
        raise UsageError([Problem(rule, key, str(plan.file), remedy=remedy) for key in plan.addresses])
