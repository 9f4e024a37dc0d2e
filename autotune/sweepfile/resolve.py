"""A sweep file, checked as a whole and spelled out.

`load_sweep` reads YAML, TOML or JSON, collects every mistake (file, line, key, rule, value, remedy) and returns a
frozen `Sweep`, or raises one `UsageError` with them all. Nothing here imports torch or touches the network.
It is one module because the checks share the lines of the file and the list of what was found.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from autotune.analysis.limits import Limit, excludes, parse_limit, senseless
from autotune.candidate import Recipe, Session
from autotune.data.dataset import load_dataset, source_problems
from autotune.data.schema import Dataset, DataSpec, Remote, readable_parts
from autotune.data.sources import hub_source
from autotune.errors import Problem, UsageError, did_you_mean
from autotune.metrics import (
    ENOUGH_FOR_P90,
    METRICS,
    PER_WORKLOAD,
    WORKLOAD,
    Direction,
    is_function,
    is_task,
    score_column,
)
from autotune.models import check_export, config_of, context_of, shape_of
from autotune.paths import is_portable
from autotune.providers import NVIDIA, PROVIDERS, Provider
from autotune.space.adapters import parse_lora
from autotune.space.domains import Choice, Range
from autotune.space.own_stages import read_stage
from autotune.space.recipes import ModelShape, parse_recipes
from autotune.space.sessions import check_served, parse_sessions, spell_options
from autotune.space.space import Space
from autotune.sweepfile.olive.changed import give_way, refuse_keys_of_olive
from autotune.sweepfile.olive.reader import SEARCH, Imported, from_olive, import_olive, is_olive, settle
from autotune.sweepfile.overrides import apply_set, providers_set
from autotune.sweepfile.places import address_problems, in_workspace
from autotune.sweepfile.problems import FROM_SET, hidden_secrets, located, problems_of
from autotune.sweepfile.schema import STRATEGIES, Budget, Document, Sweep, Target, Train
from autotune.sweepfile.syntax import DEEPEST, read_file, too_deep
from autotune.sweepfile.targets import parse_targets
from autotune.sweepfile.trackers import parse_report_to
from autotune.tasks import direction_of, find_task
from autotune.usercode import STAGE, find_function

T = TypeVar("T")
DEFAULT_STEPS = 30


def load_sweep(
    path: str | Path, sets: Sequence[str] = (), trials: int | None = None, hours: float | None = None
) -> Sweep:
    """Read, check and resolve a sweep file, or an Olive configuration, which `SEARCH` among the sets widens.

    `sets` are KEY=VALUE changes, `trials` and `hours` replace the budget's. Raises UsageError with every problem.
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


def load_data(
    spec: DataSpec,
    root: Path,
    shown: str,
    lines: Mapping[str, int],
    fetch: Callable[[Remote], Path] | None = None,
) -> Dataset:
    """Read the data of a sweep, as `load_dataset` does; its problems carry the `lines` of the sweep file."""
    try:
        return load_dataset(spec, root, shown, fetch)
    except UsageError as error:
        raise UsageError([located(problem, shown, lines) for problem in error.problems]) from None


def _data_problems(raw: Any, root: Path, shown: str) -> tuple[Problem, ...]:
    """Return what is wrong in the data files, for a sweep file that is refused anyway: all problems at once."""
    try:
        spec = DataSpec.model_validate(raw)
        if not any(hub_source(source, root) for source in (spec.train, spec.validation, spec.test)):
            load_dataset(spec, root, shown)
    except ValidationError:  # said by the sweep's own check; what can be told of the files is told beside it
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
    target_name: str | None = None,
) -> Sweep:
    """Check a sweep given as plain data; `lines` and `shown` say where each key was read. Raises UsageError.

    `target_name`: the one of several targets that it is for.
    """
    if too_deep(data):
        rule = f"nested deeper than {DEEPEST} levels"
        raise UsageError(Problem(rule, file=shown, remedy="see search_spaces/ for examples"))
    if target_name is None and "targets" in data:
        return parse_targets(data, lines or {}, root, shown, trials, hours, parse_sweep)
    problems: list[Problem] = hidden_secrets(data)
    document: Document | None = None
    try:
        document = Document.model_validate(dict(data))
    except ValidationError as error:
        problems += problems_of(error, data)

    # What follows looks at the plain data, so that one wrong key does not hide the mistakes in others.
    provider_name = _given(data.get("target"), "provider", str, "cpu")
    provider = PROVIDERS.get(provider_name)
    if provider is None:
        problems.append(no_such_provider(provider_name, "target.provider"))

    problems += address_problems(data.get("model"), data.get("data"))
    model = _given(data, "model", str, "")
    shape: ModelShape | None = None
    if model:
        try:
            shape = shape_of(model, root, provider_name)
        except UsageError as error:
            problems += error.problems

    try:
        train = Train.model_validate(_given(data, "train", dict, {}))
    except ValidationError:
        train = Train()
    raw_space = _given(data, "space", dict, {})
    if data.get("space") == {}:
        problems.append(Problem("needs lora, build or both", "space", remedy="see search_spaces/ for examples"))
    builds = any(name not in ("lora", "session") for name in raw_space)
    if "session" in raw_space and not builds:
        rule = "a session is how a build is served, and without space.build nothing is built"
        problems.append(Problem(rule, "space.session", remedy="add space.build, or remove space.session"))
    target = _target(
        data.get("target"), provider or PROVIDERS["cpu"], _given(data.get("data"), "metric", str, ""), problems
    )
    space = _parse_space(
        raw_space, provider or PROVIDERS["cpu"], shape, train, target.session, problems, target_name
    )  # fmt: skip
    problems += _too_long(model, root, train, space)
    problems += _not_exported(model, root, provider_name) if builds and shape is not None else []
    score = _score(data.get("data"), root, problems)
    first = _direction(score, data.get("data"), root)
    problems += _own_stages(space.recipes, root)
    usable = _usable(score, builds, target)
    objectives = _objectives(data.get("objectives"), score, first, builds, usable, problems)
    limits = _limits(_given(data, "limits", list, []), usable, problems)
    report_to = parse_report_to(data.get("report_to"), problems)
    strategy = _given(data, "strategy", str, STRATEGIES[0])
    if strategy not in STRATEGIES:
        remedy = did_you_mean(strategy, STRATEGIES)
        problems.append(Problem("no such strategy", "strategy", value=strategy, remedy=remedy))
    ranges = [name for name, domain in space.searched.items() if isinstance(domain, Range)]
    if strategy == "grid":
        rule = "strategy grid needs choices, not a range"
        problems += [
            Problem(rule, f"space.lora.{name}", remedy=f"write {name}: {{ choice: [...] }}") for name in ranges
        ]
    if data.get("trust_remote_code") is True:
        rule = "no model's own code is ever run, and the architectures that are taken need none"
        problems.append(Problem(rule, "trust_remote_code", value=True, remedy="remove the key"))
    budget = document.budget if document else Budget(trials=1)
    for option, value in (("--trials", trials), ("--hours", hours)):
        if value is not None and not 0 < value < math.inf:
            problems.append(Problem("must be a number above 0", option, "command line", value=value))
    budget = budget.model_copy(update={n: v for n, v in (("trials", trials), ("hours", hours)) if v is not None})
    if ranges and budget.trials is None and budget.hours is None:
        rule = f"{ranges[0]} is a range, so that the sweep would never end"
        problems.append(Problem(rule, "budget", remedy="set budget.trials or budget.hours"))

    if problems or document is None:
        raise UsageError([located(problem, shown, lines or {}) for problem in problems])
    model, texts = in_workspace(document.model, document.data, document.submit)
    return Sweep(
        name=document.name or _name_of(shown),
        model=model, data=texts, train=document.train, target=document.target,
        workers=document.workers, space=space,
        objectives=objectives, limits=limits, strategy=strategy,
        earlier_sweeps=document.earlier_sweeps, engine=document.engine, budget=budget,
        seed=document.seed, trust_remote_code=document.trust_remote_code, root=root, file=shown,
        lines=lines or {}, report_to=report_to, submit=document.submit,
    )  # fmt: skip


def no_such_provider(name: str, key: str) -> Problem:
    """Return what is wrong with the name of a provider that nobody knows."""
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


def _given(data: Any, key: str, kind: type[T], otherwise: T) -> T:
    """Return what a mapping holds under `key`, or `otherwise` where there is nothing of that type."""
    value = data.get(key) if isinstance(data, Mapping) else None
    return value if isinstance(value, kind) else otherwise


def _parse_space(
    raw: Mapping[str, Any],
    provider: Provider,
    shape: ModelShape | None,
    train: Train,
    served: Session,
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
    sessions = parse_sessions(raw["session"], served, provider, problems) if "session" in raw else ()
    return Space(domains, recipes, left_out, defaults, train.device, sessions, target, provider.builds_as)


def _name_of(file: str) -> str:
    """Return what a sweep without a name is called: as its file."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(file).stem).strip("-._")[:64].rstrip(".")
    return name if name and is_portable(name) else f"sweep-{name}"[:64].rstrip("-")


def _own_stages(recipes: Sequence[Recipe], root: Path) -> list[Problem]:
    """Return what is wrong with the functions that recipes name."""
    problems: list[Problem] = []
    for function in dict.fromkeys(read_stage(text).function for one in recipes for text in one.own_stages.values()):
        try:
            find_function(function, root, STAGE)
        except UsageError as error:
            problems += error.problems
    return problems


def _target(raw: Any, provider: Provider, metric: str, problems: list[Problem]) -> Target:
    """Return the target, or a plain one where it is refused; what only makes sense together is checked here."""
    key = "target.provider_options"
    options = _given(raw, "provider_options", dict, None)
    if options is not None and check_served("provider_options", provider, key, problems):
        rule = spell_options(options)[1]
        if rule:
            remedy = "see the provider's options in ONNX Runtime's documentation"
            problems.append(Problem(rule, key, remedy=remedy))
    if _given(raw, "device", int, None) is not None and not (provider.plugged or provider.device_options[0]):
        rule = f"device means something on providers with devices to choose from, and {provider.name} has none"
        problems.append(Problem(rule, "target.device", value=_given(raw, "device", int, None), remedy="remove it"))
    workloads = _given(raw, "workloads", dict, None)
    if workloads is not None:
        key = "target.workloads"
        if "workload" in raw:
            remedy = "keep one: what was workload may be the first of workloads"
            problems.append(Problem("workload and workloads exclude one another", key, remedy=remedy))
        if not workloads:
            problems.append(Problem("needs at least one workload", key, remedy=f"write {key}: {{ long: {{ ... }} }}"))
        problems.extend(
            Problem("must be a-z, 0-9, '_' and '-', 32 at most: it names columns", f"{key}.{name}", remedy="rename it")
            for name in workloads
            if not WORKLOAD.fullmatch(str(name))
        )
    try:
        target = Target.model_validate(raw if isinstance(raw, dict) else {})
    except ValidationError:  # said by the sweep's own check
        return Target()
    if is_task(metric) and any(workload.drawn for workload in target.timed.values()):
        rule = f"no lengths can be drawn from the data: {metric} brings its own items"
        key = "target.workloads" if target.workloads else "target.workload"
        problems.append(Problem(rule, key, remedy="write prompt_tokens and new_tokens as numbers"))
    return target


def _not_exported(model: str, root: Path, provider: str) -> list[Problem]:
    """Return what is wrong with a model at hand of which no build runs."""
    try:
        check_export(config_of(model, root) or {}, model, provider)
    except UsageError as error:
        return list(error.problems)
    return []


def _too_long(model: str, root: Path, train: Train, space: Space) -> list[Problem]:
    """Return which lengths are beyond the context of a model that is at hand."""
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


def _score(raw: Any, root: Path, problems: list[Problem]) -> str | None:
    """Return the score that `data.metric` fills; None where that is wrong."""
    metric = _given(raw, "metric", str, "choice")
    try:
        if is_function(metric):
            find_function(metric, root)
        if is_task(metric):
            find_task(metric, root)
        return score_column(metric)
    except UsageError as error:
        problems += error.problems
        return score_column(metric)
    except KeyError:  # refused with the rest of `data`
        return None


def _direction(score: str | None, raw: Any, root: Path) -> Direction:
    """Return which way the score is better, where no objective says so."""
    if score == "lm_eval":
        with contextlib.suppress(UsageError):
            return direction_of(_given(raw, "metric", str, ""), root)
    return METRICS[score].direction if score else "maximize"


def _objectives(
    raw: Any, score: str | None, first: Direction, builds: bool, usable: Mapping[str, str], problems: list[Problem]
) -> dict[str, Direction]:
    """Return the objectives in order, each in its built-in direction; `first` is the score's."""
    if not isinstance(raw, dict):
        objectives: dict[str, Direction] = {score: first} if score else {}
        if builds:
            objectives |= {"itl_ms_p50": "minimize", "size_mb": "minimize"}
        return objectives
    if not raw:
        remedy = f"e.g. {score or 'accuracy'}: {METRICS[score or 'accuracy'].direction}"
        problems.append(Problem("needs at least one objective", "objectives", remedy=remedy))
    for name, direction in raw.items():
        key = f"objectives.{name}"
        _check_metric(name, key, usable, problems)
        right = METRICS[name].direction if name in METRICS and not METRICS[name].turns else direction
        if direction in ("maximize", "minimize") and direction != right:
            problems.append(
                Problem(f"{name} is {right}d, by its meaning", key, value=direction, remedy=f"write {right}")
            )
    return dict(raw)


def _usable(score: str | None, builds: bool, target: Target) -> dict[str, str]:
    """Return every metric that might be meant; with it, where this sweep does not measure it, what to do."""
    usable: dict[str, str] = {}
    for metric in METRICS.values():
        if metric.kind == "score":
            usable[metric.name] = "" if score in (metric.name, None) else f"data.metric gives {score}"
        elif metric.name == "gpu_memory_mb" and target.provider not in NVIDIA:
            usable[metric.name] = f"it is measured on {' and '.join(NVIDIA)}"
        else:
            usable[metric.name] = "" if builds else "add space.build"
    first = next(iter(target.workloads or {}), None)
    for suffix, workload in target.timed.items() if builds else ():
        # A process times tokens until there are enough for a percentile, and with them so many sequences.
        gaps = ENOUGH_FOR_P90 if workload.drawn else int(workload.new_tokens) - 1
        sequences = max(2, math.ceil(ENOUGH_FOR_P90 / gaps))
        more = math.ceil(ENOUGH_FOR_P90 / sequences)
        few = not workload.drawn and target.timing.processes < more
        needs = f"it needs {ENOUGH_FOR_P90} sequences: set target.timing.processes, and most, to {more}"
        usable[f"ttft_ms_p90{suffix}"] = needs if few else ""
    for plain in sorted(PER_WORKLOAD):
        usable = {f"{plain}{suffix}": usable[plain] for suffix in target.timed if suffix} | usable
        if first is not None:
            usable[f"{plain}@{first}"] = f"write {plain}: {first} is the first of target.workloads"
    return usable


def _check_metric(name: Any, key: str, usable: Mapping[str, str], problems: list[Problem]) -> None:
    measured = [metric for metric, instead in usable.items() if not instead]
    if name not in METRICS:
        problems.append(Problem("no such metric", key, value=name, remedy=did_you_mean(str(name), measured)))
    elif name not in measured:
        remedy = usable.get(name) or did_you_mean(name, [m for m in measured if "@" in m] or measured)
        problems.append(Problem(f"{name} is not measured in this sweep", key, remedy=remedy))


def _limits(raw: list[Any], usable: Mapping[str, str], problems: list[Problem]) -> tuple[Limit, ...]:
    limits: list[Limit] = []
    for index, text in enumerate(raw):
        if not isinstance(text, str):
            continue
        key = f"limits[{index}]"
        try:
            limit = parse_limit(" ".join(text.split()), METRICS)
        except ValueError as error:
            problems.append(Problem(str(error), key))
            continue
        _check_metric(limit.metric, key, usable, problems)
        problems += [Problem(rule, key, value=text, remedy=remedy) for rule, remedy in senseless(limit)]
        for other in limits:
            if excludes(limit, other) or excludes(other, limit):
                rule = f"no candidate could keep this limit and {other.text!r}"
                problems.append(Problem(rule, key, value=text, remedy="change or remove one of them"))
        limits.append(limit)
    return tuple(limits)
