"""The sweep file: what a user asks for, checked as a whole and spelled out.

`load_sweep` reads YAML, TOML or JSON, collects every mistake (file, line, key, rule, value, remedy) and returns a
frozen `Sweep`, or raises one `UsageError` with them all. Nothing here imports torch or touches the network.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from autotune.candidate import Lora
from autotune.data import DataSpec
from autotune.errors import Problem, UsageError, did_you_mean
from autotune.metrics import METRICS, SCORES, Direction
from autotune.models import shape_of
from autotune.providers import PROVIDERS, Provider
from autotune.search.limits import Limit, parse_limit
from autotune.space import (
    LORA,
    Choice,
    ModelShape,
    Range,
    Space,
    lora_impossible,
    parse_lora,
    parse_recipes,
    resolve_lora,
)

STRATEGIES = ("tpe", "nsga2", "gp", "random", "grid")
DEFAULT_STEPS = 30


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Train(_Part):
    """How candidates are fine-tuned, where the space does not say otherwise."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    batch_size: int = Field(8, ge=1, le=4096)
    max_length: int = Field(256, ge=8, le=1_000_000)
    time_limit_s: float = Field(1800, gt=0)


class Workload(_Part):
    """What a timing generates: tokens of the prompt, new tokens, sequences at once."""

    prompt_tokens: int = Field(32, ge=1, le=100_000)
    new_tokens: int = Field(16, ge=2, le=100_000)
    batch: int = Field(1, ge=1, le=1024)


class Target(_Part):
    """Where the model is deployed."""

    provider: str = "cpu"
    threads: int | None = Field(None, ge=1, le=1024)
    workload: Workload = Workload()


class Budget(_Part):
    """When to stop: candidates begun and hours of wall-clock, both counted over resumes; whichever is first."""

    trials: int | None = Field(None, ge=1)
    hours: float | None = Field(None, gt=0)


class _Document(_Part):
    """The sweep file as written, before the space is multiplied out."""

    name: str = Field("", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$|^$")
    model: str = Field(min_length=1)
    data: DataSpec
    train: Train = Train()
    target: Target = Target()
    space: dict[str, Any]
    objectives: dict[str, Literal["maximize", "minimize"]] | None = None
    limits: list[str] = []
    strategy: str = "tpe"
    engine: Literal["local"] = "local"
    budget: Budget = Budget(trials=20)
    seed: int = Field(0, ge=0, lt=2**31)
    trust_remote_code: bool = False


class Sweep(BaseModel):
    """A checked sweep: every default spelled out, the recipes multiplied out."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    name: str
    model: str
    data: DataSpec
    train: Train
    target: Target
    space: Space
    objectives: dict[str, Direction]
    limits: tuple[Limit, ...]
    strategy: str
    engine: str
    budget: Budget
    seed: int
    trust_remote_code: bool
    root: Path
    file: str

    @property
    def provider(self) -> Provider:
        """The target's provider."""
        return PROVIDERS[self.target.provider]

    @property
    def score(self) -> str:
        """The score column that `data.metric` fills."""
        return SCORES[self.data.metric]

    def identity(self) -> dict[str, Any]:
        """What may not change between two runs into one folder: with another value it is another sweep."""
        return {
            "model": self.model,
            "data": self.data.model_dump(mode="json"),
            "target": self.target.model_dump(mode="json"),
            "objectives": dict(self.objectives),
        }

    def resolved(self) -> dict[str, Any]:
        """The sweep as plain data with every default spelled out; loading it again gives the same sweep."""
        space: dict[str, Any] = {}
        if self.space.lora is not None:
            defaults = resolve_lora(self.space.defaults).model_dump(exclude_none=True)
            named = set(self.space.lora)
            if "alpha_over_r" in named:
                defaults.pop("alpha", None)
            if "epochs" in named:
                defaults.pop("steps", None)
            if "alpha" not in named and "alpha_over_r" not in named:
                defaults.pop("alpha", None)
                defaults["alpha_over_r"] = LORA["alpha_over_r"].default
            plain: dict[str, Any] = {name: value for name, value in defaults.items() if name not in named}
            plain.update({name: _plain_domain(domain) for name, domain in self.space.lora.items()})
            space["lora"] = {name: plain[name] for name in LORA if name in plain}
        if self.space.recipes:
            space["build"] = [recipe.model_dump(exclude_none=True) for recipe in self.space.recipes]
        return {
            "name": self.name,
            "model": self.model,
            "data": self.data.model_dump(mode="json", exclude_none=True),
            "train": self.train.model_dump(mode="json"),
            "target": self.target.model_dump(mode="json", exclude_none=True),
            "space": space,
            "objectives": dict(self.objectives),
            "limits": [str(limit) for limit in self.limits],
            "strategy": self.strategy,
            "engine": self.engine,
            "budget": self.budget.model_dump(mode="json", exclude_none=True),
            "seed": self.seed,
            "trust_remote_code": self.trust_remote_code,
        }


def _plain_domain(domain: Choice | Range) -> Any:
    if isinstance(domain, Choice):
        values = [list(value) if isinstance(value, tuple) else value for value in domain.values]
        return values[0] if len(values) == 1 else {"choice": values}
    kind = ("log" if domain.log else "") + ("int" if domain.integer else "uniform")
    bounds = [int(domain.low), int(domain.high)] if domain.integer else [domain.low, domain.high]
    return {kind: bounds}


# --- reading -------------------------------------------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
    """YAML where `1e-4` is a number and `no`, `on`, `yes` are texts (PyYAML follows YAML 1.1, people do not)."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag not in ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:float",
                                                                      "tag:yaml.org,2002:timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}  # fmt: skip
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*|[0-9][0-9_]*(?=[eE]))(?:[eE][-+]?[0-9]+)?$"),
    list("-+0123456789."),
)


def _yaml_lines(node: yaml.Node, key: str, lines: dict[str, int], problems: list[Problem], depth: int = 0) -> None:
    """Collect the line of every key, and the keys that are written twice."""
    if depth > 100:
        raise yaml.YAMLError("nested deeper than 100 levels")
    if isinstance(node, yaml.MappingNode):
        for key_node, value_node in node.value:
            here = f"{key}.{key_node.value}" if key else str(key_node.value)
            line = key_node.start_mark.line + 1
            if here in lines:
                problems.append(
                    Problem(f"written twice, first in line {lines[here]}", here, line=line, remedy="keep one")
                )
            lines[here] = line
            _yaml_lines(value_node, here, lines, problems, depth + 1)
    elif isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            lines[f"{key}[{index}]"] = child.start_mark.line + 1
            _yaml_lines(child, f"{key}[{index}]", lines, problems, depth + 1)


def parse_value(text: str) -> Any:
    """Return the value of `--set KEY=VALUE`, read as the YAML of a sweep file."""
    return yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader


def _read(path: Path, shown: str) -> tuple[dict[str, Any], dict[str, int]]:
    """Return a sweep file's mapping and the line of each key (YAML only). Raises UsageError."""
    suffix = path.suffix.lower()
    if suffix not in (".yaml", ".yml", ".toml", ".json"):
        remedy = "name a .yaml, .toml or .json file"
        raise UsageError(
            Problem("a sweep file is YAML, TOML or JSON", file=shown, value=suffix or path.name, remedy=remedy)
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        there = sorted(p.name for p in path.parent.glob("*") if p.suffix in (".yaml", ".yml", ".toml", ".json"))
        remedy = did_you_mean(path.name, there) if there else "check the path"
        raise UsageError(Problem("no such sweep file", file=shown, remedy=remedy)) from None
    except (OSError, UnicodeDecodeError) as error:
        rule = f"cannot be read as UTF-8 text ({error})"
        raise UsageError(Problem(rule, file=shown, remedy="check the path and the encoding")) from None
    lines: dict[str, int] = {}
    problems: list[Problem] = []
    try:
        if suffix == ".toml":
            data: Any = tomllib.loads(text)
        elif suffix == ".json":
            data = json.loads(text)
        else:
            node = yaml.compose(text, _Loader)
            if node is not None:
                _yaml_lines(node, "", lines, problems)
            data = yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError, TypeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark is not None else getattr(error, "lineno", None)
        what = getattr(error, "problem", None) or (str(error).splitlines() or [type(error).__name__])[0]
        name = suffix[1:].upper().replace("YML", "YAML")
        raise UsageError(
            Problem(f"is not valid {name}: {what}", file=shown, line=line, remedy="mend the syntax")
        ) from None
    if problems:
        raise UsageError([Problem(p.rule, p.key, shown, p.line, p.value, p.remedy) for p in problems])
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        rule = "a sweep file is a mapping with the keys model, data and space"
        raise UsageError(Problem(rule, file=shown, value=type(data).__name__, remedy="see search_spaces/ for examples"))
    if "input_model" in data and "passes" in data:
        rule = "this is an Olive configuration, which autotune does not read yet"
        raise UsageError(Problem(rule, file=shown, remedy="write its model, data and passes as a sweep file"))
    return data, lines


def _set(data: dict[str, Any], assignment: str) -> None:
    """Apply one `--set a.b=value`. Raises UsageError."""
    key, equals, text = assignment.partition("=")
    key = key.strip()
    if not equals or not key:
        raise UsageError(Problem("--set takes KEY=VALUE", value=assignment, remedy="e.g. --set budget.trials=4"))
    *parents, last = key.split(".")
    here: Any = data
    for name in parents:
        here = here.setdefault(name, {})
        if not isinstance(here, dict):
            raise UsageError(
                Problem(f"--set {key}: '{name}' is not a mapping", value=assignment, remedy="name a deeper key")
            )
    try:
        here[last] = parse_value(text)
    except yaml.YAMLError:
        raise UsageError(Problem(f"--set {key}: not a YAML value", value=text, remedy="quote it")) from None


def _known(model: type[BaseModel], path: Sequence[str | int]) -> list[str]:
    """Return the right keys beside the unknown one at the end of `path`."""
    current: Any = model
    for step in path[:-1]:
        fields = getattr(current, "model_fields", {})
        current = fields[step].annotation if step in fields else None
        options = [current, *getattr(current, "__args__", ())]
        current = next((o for o in options if isinstance(o, type) and issubclass(o, BaseModel)), None)
    return list(getattr(current, "model_fields", {}))


_RULES = {
    "missing": "is missing",
    "extra_forbidden": "unknown key",
}


def _problems_of(error: ValidationError) -> list[Problem]:
    """Turn what pydantic found into problems."""
    found: dict[tuple[str, str], Problem] = {}
    for item in error.errors(include_url=False):
        path = [
            step
            for step in item["loc"]
            if not (isinstance(step, str) and re.fullmatch(r"[A-Za-z]+\[.*|str|HubDataset|tuple.*|function.*", step))
        ]
        key = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).lstrip(".")
        kind = item["type"]
        rule = _RULES.get(kind, item["msg"].removeprefix("Value error, "))
        rule = re.sub(r"^Input should be", "must be", rule)
        value = None if kind in ("missing", "extra_forbidden") or isinstance(item["input"], dict) else item["input"]
        remedy = ""
        if kind == "extra_forbidden":
            remedy = did_you_mean(str(path[-1]), _known(_Document, path))
        elif kind == "missing":
            remedy = "add it; see search_spaces/ for examples"
        elif kind == "value_error":
            value = None
        found.setdefault((key, rule), Problem(rule, key, value=value, remedy=remedy))
    return list(found.values())


def load_sweep(
    path: str | Path, sets: Sequence[str] = (), trials: int | None = None, hours: float | None = None
) -> Sweep:
    """Read, check and resolve a sweep file.

    `sets` are KEY=VALUE changes, `trials` and `hours` replace the budget's. Raises UsageError with every problem.
    """
    file = Path(path)
    shown = str(path)
    data, lines = _read(file, shown)
    for assignment in sets:
        _set(data, assignment)
    return parse_sweep(data, lines, root=file.parent, shown=shown, trials=trials, hours=hours)


def parse_sweep(
    data: Mapping[str, Any],
    lines: Mapping[str, int] | None = None,
    root: Path = Path(),
    shown: str = "",
    trials: int | None = None,
    hours: float | None = None,
) -> Sweep:
    """Check a sweep given as plain data; `lines` and `shown` say where each key was read. Raises UsageError."""
    problems: list[Problem] = []
    document: _Document | None = None
    try:
        document = _Document.model_validate(dict(data))
    except ValidationError as error:
        problems += _problems_of(error)

    raw_target = data.get("target")
    provider_name = raw_target.get("provider", "cpu") if isinstance(raw_target, dict) else "cpu"
    provider = PROVIDERS.get(provider_name) if isinstance(provider_name, str) else None
    if provider is None and isinstance(provider_name, str):
        remedy = did_you_mean(provider_name, list(PROVIDERS))
        problems.append(Problem("no such execution provider", "target.provider", value=provider_name, remedy=remedy))

    model = data.get("model")
    shape: ModelShape | None = None
    if isinstance(model, str) and model:
        try:
            shape = shape_of(model, root)
        except UsageError as error:
            problems += error.problems

    train = document.train if document else Train()
    space = _parse_space(data.get("space"), provider or PROVIDERS["cpu"], shape, train, problems)
    metric = document.data.metric if document else "choice"
    score = SCORES.get(metric)
    if score is None:
        remedy = did_you_mean(metric, list(SCORES))
        problems.append(Problem("no such metric", "data.metric", value=metric, remedy=remedy))
    score = score or "accuracy"
    objectives = _objectives(document, score, bool(space.recipes), problems)
    limits = _limits(document, score, bool(space.recipes), problems)
    strategy = document.strategy if document else "tpe"
    if strategy not in STRATEGIES:
        remedy = did_you_mean(strategy, STRATEGIES)
        problems.append(Problem("no such strategy", "strategy", value=strategy, remedy=remedy))
    if strategy == "grid":
        for name, domain in space.searched.items():
            if isinstance(domain, Range):
                rule = "strategy grid needs choices, not a range"
                problems.append(Problem(rule, f"space.lora.{name}", remedy=f"write {name}: {{ choice: [...] }}"))
    budget = document.budget if document else Budget()
    if trials is not None or hours is not None:
        for option, value in (("--trials", trials), ("--hours", hours)):
            if value is not None and value <= 0:
                problems.append(Problem("must be more than 0", option, value=value))
        budget = Budget.model_construct(trials=trials or budget.trials, hours=hours or budget.hours)

    if problems or document is None:
        raise UsageError([_located(problem, shown, lines or {}) for problem in problems])
    return Sweep(
        name=document.name or Path(shown).stem or "sweep",
        model=document.model, data=document.data, train=document.train, target=document.target, space=space,
        objectives=objectives, limits=limits, strategy=strategy, engine=document.engine, budget=budget,
        seed=document.seed, trust_remote_code=document.trust_remote_code, root=root, file=shown,
    )  # fmt: skip


def _located(problem: Problem, shown: str, lines: Mapping[str, int]) -> Problem:
    """Add the file, and the line of the key or of its nearest parent that is there."""
    if problem.file:
        return problem
    key = problem.key
    while key and key not in lines:
        key = re.sub(r"(\.[^.\[\]]*|\[\d+\]|^[^.\[]*)$", "", key)
    return Problem(problem.rule, problem.key, shown, lines.get(key), problem.value, problem.remedy)


def _parse_space(
    raw: Any, provider: Provider, shape: ModelShape | None, train: Train, problems: list[Problem]
) -> Space:
    if not isinstance(raw, dict):
        return Space(lora=None, recipes=())  # missing or no mapping: the document's own check says so
    parts = ("lora", "build")
    problems.extend(
        Problem("unknown key", f"space.{n}", remedy=did_you_mean(str(n), parts)) for n in raw if n not in parts
    )
    if "lora" not in raw and "build" not in raw:
        problems.append(Problem("needs lora, build or both", "space", remedy="see search_spaces/ for examples"))
    domains = parse_lora(raw["lora"], problems) if "lora" in raw else None
    recipes, left_out = parse_recipes(raw["build"], provider, shape, problems) if "build" in raw else ((), ())
    if "build" in raw and left_out and not recipes:
        reasons = "; ".join(f"{item.settings}: {item.reason}" for item in left_out[:3])
        problems.append(Problem(f"no recipe can run here ({reasons})", "space.build", remedy="change or add one"))
    defaults: dict[str, Any] = {"batch_size": train.batch_size, "max_length": train.max_length}
    if domains is not None and "steps" not in domains and "epochs" not in domains:
        defaults["steps"] = DEFAULT_STEPS
    space = Space(domains, recipes, left_out, defaults, train.device)
    if domains and all(isinstance(d, Choice) and len(d.values) == 1 for d in domains.values()):
        fixed = {name: domain.values[0] for name, domain in domains.items() if isinstance(domain, Choice)}
        try:
            lora: Lora = resolve_lora({**defaults, **fixed})
        except (ValidationError, TypeError):
            return space
        reason = lora_impossible(lora, train.device)
        if reason:
            problems.append(Problem(reason, "space.lora.dtype", value=lora.dtype))
    return space


def _objectives(document: _Document | None, score: str, builds: bool, problems: list[Problem]) -> dict[str, Direction]:
    """Return the objectives in order, each in its built-in direction."""
    if document is None or document.objectives is None:
        objectives: dict[str, Direction] = {score: METRICS[score].direction}
        if builds:
            objectives |= {"itl_ms_p50": "minimize", "size_mb": "minimize"}
        return objectives
    if not document.objectives:
        problems.append(Problem("needs at least one objective", "objectives", remedy=f"e.g. {score}: maximize"))
    for name, direction in document.objectives.items():
        key = f"objectives.{name}"
        _check_metric(name, key, score, builds, problems)
        if name in METRICS and direction != METRICS[name].direction:
            right = METRICS[name].direction
            problems.append(
                Problem(f"{name} is {right}d, by its meaning", key, value=direction, remedy=f"write {right}")
            )
    return dict(document.objectives)


def _check_metric(name: str, key: str, score: str, builds: bool, problems: list[Problem]) -> None:
    usable = [n for n, m in METRICS.items() if (m.kind == "score" and n == score) or (m.kind != "score" and builds)]
    if name not in METRICS:
        problems.append(Problem("no such metric", key, value=name, remedy=did_you_mean(name, usable)))
    elif name not in usable:
        rule = f"{name} is not measured in this sweep"
        remedy = f"data.metric gives {score}" if METRICS[name].kind == "score" else "add space.build"
        problems.append(Problem(rule, key, value=name, remedy=remedy))


def _limits(document: _Document | None, score: str, builds: bool, problems: list[Problem]) -> tuple[Limit, ...]:
    limits: list[Limit] = []
    for index, text in enumerate(document.limits if document else ()):
        key = f"limits[{index}]"
        try:
            limit = parse_limit(text, METRICS)
        except ValueError as error:
            problems.append(Problem(str(error), key))
            continue
        _check_metric(limit.metric, key, score, builds, problems)
        limits.append(limit)
    return tuple(limits)
