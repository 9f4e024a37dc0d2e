"""Check a sweep file as a whole, and fill in every default.

`load_sweep` reads YAML, TOML or JSON, collects every mistake (file, line, key, rule, value, remedy) and returns a
frozen `Sweep`, or raises one `UsageError` with them all. Nothing here imports torch or touches the network.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from autotune.candidate import Recipe, Session
from autotune.data.dataset import load_dataset, source_problems
from autotune.data.schema import DataSpec, readable_parts
from autotune.data.sources import hub_source
from autotune.errors import Problem, UsageError, did_you_mean
from autotune.models import check_export, config_of, context_of, shape_of
from autotune.paths import is_portable
from autotune.providers import PROVIDERS, Provider
from autotune.space.adapters import parse_lora
from autotune.space.domains import Choice, Range
from autotune.space.own_stages import read_stage
from autotune.space.recipes import ModelShape, parse_recipes
from autotune.space.sessions import parse_sessions
from autotune.space.space import Space
from autotune.sweepfile.aims import direction_of_score, parse_limits, parse_objectives, parse_score, usable_metrics
from autotune.sweepfile.azure_addresses import address_problems, in_workspace
from autotune.sweepfile.olive.changed import give_way, refuse_keys_of_olive
from autotune.sweepfile.olive.reader import SEARCH, Imported, from_olive, import_olive, is_olive, settle
from autotune.sweepfile.overrides import apply_set, providers_set
from autotune.sweepfile.problems import FROM_SET, hidden_secrets, located, problems_of
from autotune.sweepfile.schema import STRATEGIES, Budget, Document, Sweep, Train
from autotune.sweepfile.syntax import DEEPEST, read_file, too_deep
from autotune.sweepfile.targets import Source, given, parse_target, parse_targets
from autotune.sweepfile.trackers import parse_report_to
from autotune.usercode import STAGE, find_function

T = TypeVar("T")
DEFAULT_STEPS = 30


def load_sweep(
    path: str | Path, sets: Sequence[str] = (), trials: int | None = None, hours: float | None = None
) -> Sweep:
    """Read, check and resolve a sweep file, or an Olive configuration.

    `sets`: KEY=VALUE changes; `SEARCH` among them widens an Olive configuration to a search. `trials` and `hours` replace
    those of the budget. Raises UsageError with every problem.
    """
    file = Path(path)
    shown = str(path)
    data, lines = read_file(file, shown)
    imported: Imported | None = None
    search, sets = SEARCH in sets, [one for one in sets if one != SEARCH]
    if is_olive(data):
        imported = import_olive(data, shown, search, providers_set(sets))
        data = imported.sweep
    elif search:
        rule = "--search is for Olive configurations: a sweep file says itself what is searched"
        raise UsageError(Problem(rule, file=shown, remedy="leave --search out"))
    changed = []
    for assignment in sets:
        key = apply_set(data, assignment)
        changed.append(key)
        lines = {k: line for k, line in lines.items() if not k.startswith((f"{key}.", f"{key}["))} | {key: FROM_SET}
        parents = [key[: found.start()] for found in re.finditer(r"\.", key)]
        lines = {parent: FROM_SET for parent in parents if parent not in lines} | lines
    told: list[str] = []
    if imported is not None:
        refuse_keys_of_olive(changed, imported.ledger, shown)
        told = give_way(data, changed, imported.origins)
        kept = {
            key: why
            for key, why in imported.origins.items()
            if not any(f"{key}.".startswith(f"{one}.") for one in changed)
        }
        told += settle(data, file.parent, kept, imported.joined)[1]
    try:
        sweep = parse_sweep(data, lines, root=file.parent, shown=shown, trials=trials, hours=hours)
    except UsageError as error:
        wrong = _data_problems(data.get("data"), file.parent, shown)
        problems = [*error.problems, *(located(problem, shown, lines) for problem in wrong)]
        if imported is not None:
            problems = [from_olive(problem, imported.origins) for problem in problems]
        raise UsageError(problems) from None
    return sweep if imported is None else sweep.model_copy(update={"notes": (*imported.notes, *told)})


def _data_problems(raw: Any, root: Path, shown: str) -> tuple[Problem, ...]:
    """Return the problems of the data files of a sweep file that has other mistakes, so that all are told at once."""
    try:
        spec = DataSpec.model_validate(raw)
        if not any(hub_source(source, root) for source in (spec.train, spec.validation, spec.test)):
            load_dataset(spec, root, shown)
    except ValidationError:  # told by `parse_sweep`; files and columns can still be checked
        sources, needed, encoding = readable_parts(raw)
        local = {split: source for split, source in sources.items() if hub_source(source, root) is None}
        return tuple(source_problems(local, needed, root, shown, encoding))
    except UsageError as error:
        return error.problems
    return ()


def parse_sweep(
    data: Mapping[str, Any],
    lines: Mapping[str, int] | None = None,
    root: Path = Path(),
    shown: str = "",
    trials: int | None = None,
    hours: float | None = None,
) -> Sweep:
    """Check a sweep given as plain data, and fill in its defaults. Raises UsageError with every problem.

    `lines`: the line of each key in the file `shown`; `root`: the folder of that file; `trials` and `hours`: see `load_sweep`.
    """
    return _parse(data, Source(shown, root, lines or {}, trials, hours))


def _parse(data: Mapping[str, Any], source: Source, target_name: str | None = None) -> Sweep:
    """Check a sweep, or that of one of several targets. Raises UsageError with every problem."""
    root = source.root
    if too_deep(data):
        rule = f"nested deeper than {DEEPEST} levels"
        raise UsageError(Problem(rule, file=source.shown, remedy="see search_spaces/ for examples"))
    if target_name is None and "targets" in data:
        return parse_targets(data, source, _parse)
    problems: list[Problem] = hidden_secrets(data)
    document: Document | None = None
    try:
        document = Document.model_validate(dict(data))
    except ValidationError as error:
        problems += problems_of(error, data)

    # The following checks read the plain data, so that one wrong key does not hide the mistakes in others.
    provider_name = given(data.get("target"), "provider", str, "cpu")
    provider = PROVIDERS.get(provider_name)
    if provider is None:
        problems.append(no_such_provider(provider_name, "target.provider"))
        provider = PROVIDERS["cpu"]
    problems += address_problems(data.get("model"), data.get("data"))
    model = given(data, "model", str, "")
    shape = _shape(model, root, provider_name, problems)
    train = _train(data)
    raw_space = given(data, "space", dict, {})
    builds = _builds(data, raw_space, problems)
    metric = given(data.get("data"), "metric", str, "choice")
    target = parse_target(data.get("target"), provider, metric, problems)
    space = _parse_space(raw_space, provider, shape, train, target.session, problems, target_name)
    problems += _too_long(model, root, train, space)
    problems += _not_exported(model, root, provider_name) if builds and shape is not None else []
    score = parse_score(metric, root, problems)
    problems += _own_stages(space.recipes, root)
    usable = usable_metrics(score, builds, target)
    first = direction_of_score(score, metric, root)
    objectives = parse_objectives(data.get("objectives"), score, first, builds, usable, problems)
    limits = parse_limits(given(data, "limits", list, []), usable, problems)
    report_to = parse_report_to(data.get("report_to"), problems)
    strategy = _strategy(data, space, problems)
    if data.get("trust_remote_code") is True:
        rule = "no model's own code is ever run, and the architectures that are taken need none"
        problems.append(Problem(rule, "trust_remote_code", value=True, remedy="remove the key"))
    budget = _budget(document.budget if document else Budget(trials=1), source, space, problems)

    if problems or document is None:
        raise UsageError([located(problem, source.shown, source.lines) for problem in problems])
    model, texts = in_workspace(document.model, document.data, document.submit)
    return Sweep(
        name=document.name or _name_of(source.shown),
        model=model, data=texts, train=document.train, target=document.target,
        workers=document.workers, space=space,
        objectives=objectives, limits=limits, strategy=strategy,
        earlier_sweeps=document.earlier_sweeps, engine=document.engine, budget=budget,
        seed=document.seed, trust_remote_code=document.trust_remote_code, root=root, file=source.shown,
        lines=source.lines, report_to=report_to, submit=document.submit,
    )  # fmt: skip


def _shape(model: str, root: Path, provider_name: str, problems: list[Problem]) -> ModelShape | None:
    """Return the shape of a model; None where it is not known yet, or the model is refused."""
    try:
        return shape_of(model, root, provider_name) if model else None
    except UsageError as error:
        problems += error.problems
        return None


def _train(data: Mapping[str, Any]) -> Train:
    """Return the settings of training, or the defaults where they are refused."""
    try:
        return Train.model_validate(given(data, "train", dict, {}))
    except ValidationError:  # told by the check of the whole document
        return Train()


def _builds(data: Mapping[str, Any], raw_space: Mapping[str, Any], problems: list[Problem]) -> bool:
    """Return whether models are built; `raw_space`: the space of `data`, if it is a mapping."""
    if data.get("space") == {}:
        problems.append(Problem("needs lora, build or both", "space", remedy="see search_spaces/ for examples"))
    builds = any(name not in ("lora", "session") for name in raw_space)
    if "session" in raw_space and not builds:
        rule = "a session is how a build is served, and without space.build nothing is built"
        problems.append(Problem(rule, "space.session", remedy="add space.build, or remove space.session"))
    return builds


def _strategy(data: Mapping[str, Any], space: Space, problems: list[Problem]) -> str:
    """Return the name of the strategy; a name that is unknown, or does not fit the space, goes to `problems`."""
    strategy = given(data, "strategy", str, STRATEGIES[0])
    if strategy not in STRATEGIES:
        remedy = did_you_mean(strategy, STRATEGIES)
        problems.append(Problem("no such strategy", "strategy", value=strategy, remedy=remedy))
    if strategy == "grid":
        rule = "strategy grid needs choices, not a range"
        problems += [
            Problem(rule, f"space.lora.{name}", remedy=f"write {name}: {{ choice: [...] }}") for name in space.ranges
        ]
    return strategy


def _budget(budget: Budget, source: Source, space: Space, problems: list[Problem]) -> Budget:
    """Return the budget with what the command line gives; a space with a range needs a bound."""
    given = {"trials": source.trials, "hours": source.hours}
    for name, value in given.items():
        if value is not None and not 0 < value < math.inf:
            problems.append(Problem("must be a number above 0", f"--{name}", "command line", value=value))
    budget = budget.model_copy(update={name: value for name, value in given.items() if value is not None})
    if space.ranges and budget.trials is None and budget.hours is None:
        rule = f"{space.ranges[0]} is a range, so that the sweep would never end"
        problems.append(Problem(rule, "budget", remedy="set budget.trials or budget.hours"))
    return budget


def no_such_provider(name: str, key: str) -> Problem:
    """Return the problem of an unknown provider."""
    plain = name.casefold().removesuffix("executionprovider")
    plain = {
        "directml": "dml",
        "tensorrt": "nvtensorrtrtx",
        "trt": "nvtensorrtrtx",
        "tensorrt-rtx": "nvtensorrtrtx",
    }.get(plain, plain)
    known = next((one for one in PROVIDERS if one.casefold() == plain), name)
    remedy = did_you_mean(known, list(PROVIDERS))
    remedy += (
        f" (a provider in a vendor's library is named on the command line: --provider-library {name or 'NAME'}=PATH)"
    )
    return Problem("no such execution provider", key, value=name, remedy=remedy)


def _parse_space(
    raw: Mapping[str, Any],
    provider: Provider,
    shape: ModelShape | None,
    train: Train,
    session: Session,
    problems: list[Problem],
    target: str | None = None,
) -> Space:
    parts = ("lora", "build", "session")
    problems.extend(
        Problem("unknown key", f"space.{name}", remedy=did_you_mean(str(name), parts))
        for name in raw
        if name not in parts
    )
    domains = parse_lora(raw["lora"], problems) if "lora" in raw else None
    several = target is not None
    found = parse_recipes(raw["build"], provider, shape, problems, several=several) if "build" in raw else ((), ())
    recipes, left_out = found
    if left_out and not recipes:
        reasons = "; ".join(f"{item.settings}: {item.reason}" for item in left_out[:3])
        problems.append(Problem(f"no recipe can run here ({reasons})", "space.build", remedy="change or add one"))
    defaults: dict[str, Any] = {
        "batch_size": train.batch_size, "max_length": train.max_length, "loss_on": train.loss_on,
    }  # fmt: skip
    if domains is not None and "steps" not in domains and "epochs" not in domains:
        defaults["steps"] = DEFAULT_STEPS
    dtype = (domains or {}).get("dtype")
    if train.device == "cpu" and isinstance(dtype, Choice) and "fp16" in dtype.values:
        rule = "fp16 does not train on a CPU, and train.device is cpu"
        problems.append(Problem(rule, "space.lora.dtype", value="fp16", remedy="use fp32 or bf16"))
    sessions = parse_sessions(raw["session"], session, provider, problems) if "session" in raw else ()
    return Space(domains, recipes, left_out, defaults, train.device, sessions, target, provider.builds_as)


def _name_of(file: str) -> str:
    """Return the name of a sweep that has none: that of its file."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(file).stem).strip("-._")[:64].rstrip(".")
    return name if name and is_portable(name) else f"sweep-{name}"[:64].rstrip("-")


def _own_stages(recipes: Sequence[Recipe], root: Path) -> list[Problem]:
    """Return the problems of the functions that recipes name."""
    problems: list[Problem] = []
    for function in dict.fromkeys(read_stage(text).function for one in recipes for text in one.own_stages.values()):
        try:
            find_function(function, root, STAGE)
        except UsageError as error:
            problems += error.problems
    return problems


def _not_exported(model: str, root: Path, provider: str) -> list[Problem]:
    """Return the problems of a local model whose builds do not run; none where the model is still to be fetched."""
    try:
        check_export(config_of(model, root) or {}, model, provider)
    except UsageError as error:
        return list(error.problems)
    return []


def _too_long(model: str, root: Path, train: Train, space: Space) -> list[Problem]:
    """Return the lengths that exceed the context of a model; none where the model is still to be fetched."""
    try:
        config = config_of(model, root) if model and space.lora is not None else None
    except UsageError:
        return []
    context = context_of(config or {})
    if context is None:
        return []
    problems = []
    domain = (space.lora or {}).get("max_length")
    lengths = {"train.max_length": train.max_length}
    if domain is not None:
        longest = (
            domain.high
            if isinstance(domain, Range)
            else max(value for value in domain.values if isinstance(value, int))
        )
        lengths = {"space.lora.max_length": int(longest)}
    for key, length in lengths.items():
        if length > context:
            rule = f"must be at most {context}, the context of the model (max_position_embeddings in its config.json)"
            problems.append(Problem(rule, key, value=length, remedy=f"set {key} to {context} or less"))
    return problems
