"""The sweep file: what a user asks for, checked as a whole and spelled out.

`load_sweep` reads YAML, TOML or JSON, collects every mistake (file, line, key, rule, value, remedy) and returns a
frozen `Sweep`, or raises one `UsageError` with them all. Nothing here imports torch or touches the network.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from yaml import MarkedYAMLError
from yaml.reader import ReaderError
from yaml.scanner import ScannerError

from autotune.candidate import Session
from autotune.data import Dataset, DataSpec, HubDataset, hub_source, load_dataset
from autotune.errors import Problem, UsageError, did_you_mean
from autotune.metrics import (
    ENOUGH_FOR_P90,
    METRICS,
    PER_WORKLOAD,
    PRECISION,
    WORKLOAD,
    Direction,
    is_function,
    is_task,
    score_column,
)
from autotune.models import config_of, context_of, shape_of
from autotune.paths import is_folder
from autotune.providers import NVIDIA, PROVIDERS, Provider
from autotune.search.limits import Limit, parse_limit
from autotune.secrets import HIDDEN
from autotune.space import (
    LORA,
    PRESETS,
    Choice,
    ModelShape,
    Range,
    Space,
    check_served,
    parse_lora,
    parse_recipes,
    parse_sessions,
    resolve_lora,
    spell_options,
)
from autotune.tasks import direction_of, find_task
from autotune.usercode import find_function

T = TypeVar("T")

STRATEGIES = ("frontier", "tpe", "nsga2", "gp", "random", "grid")
DEFAULT_STEPS = 30


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Train(_Part):
    """How candidates are fine-tuned, where the space does not say otherwise."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    batch_size: int = Field(8, ge=1, le=4096)
    max_length: int = Field(256, ge=8, le=1_000_000)
    time_limit_s: float = Field(1800, gt=0)


class Workload(_Part):
    """What a timing generates: tokens of the prompt, new tokens, sequences at once. `data`: as long as the data's own."""

    prompt_tokens: Literal["data"] | Annotated[int, Field(ge=1, le=100_000)] = 32
    new_tokens: Literal["data"] | Annotated[int, Field(ge=2, le=100_000)] = 16
    batch: int = Field(1, ge=1, le=1024)

    @property
    def drawn(self) -> bool:
        """Whether a length comes from the data."""
        return "data" in (self.prompt_tokens, self.new_tokens)


class Timing(_Part):
    """How long a timing goes on: fresh processes at least and at most, and the half-width of its interval, as a share, at
    which it is narrow enough.
    """

    processes: int = Field(5, ge=2, le=1000)
    most: int = Field(12, ge=2, le=1000)
    precision: float = Field(PRECISION, gt=0, lt=1)

    @model_validator(mode="after")
    def _ordered(self) -> Timing:
        if self.most < self.processes:
            raise ValueError(f"most must be at least processes, {self.processes}, got {self.most}")
        return self


class Target(_Part):
    """Where the model is deployed, how it is served there, and what it is asked for."""

    provider: str = "cpu"
    threads: int | None = Field(None, ge=1, le=1024)
    arena: bool | None = None
    mem_pattern: bool | None = None
    provider_options: dict[str, Any] | None = None
    workload: Workload = Workload()
    workloads: dict[str, Workload] | None = None
    timing: Timing = Timing()

    @property
    def session(self) -> Session:
        """How a build is served, where the space does not say otherwise."""
        options = spell_options(self.provider_options or {})[0] or None
        return Session(
            threads=self.threads, arena=self.arena, mem_pattern=self.mem_pattern, provider_options=options
        )  # fmt: skip

    @property
    def timed(self) -> dict[str, Workload]:
        """The workloads, by what follows a metric's name in their columns: nothing for the first, `@name` for others."""
        named = self.workloads or {"": self.workload}
        return {f"@{name}" if place else "": workload for place, (name, workload) in enumerate(named.items())}


class Workers(_Part):
    """What the stages may take of this machine."""

    memory_mb: float | None = Field(None, gt=0, description="memory of one worker, 10^6 bytes")
    time_limit_s: dict[
        Literal["finetune", "merge", "build", "check", "score", "time"], Annotated[float, Field(gt=0)]
    ] = Field({}, description="seconds of a stage before it counts as hung; default: learned from what it took before")


class Budget(_Part):
    """When to stop: candidates measured, or tried to be, and hours of wall-clock, both counted over resumes; whichever is
    first. What a strategy leaves on the way to a candidate counts in hours only."""

    trials: int | None = Field(None, ge=1, le=1_000_000_000)
    hours: float | None = Field(None, gt=0)


class _Document(_Part):
    """The sweep file as written, before the space is multiplied out."""

    name: str = Field("", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$|^$")
    model: str = Field(min_length=1)
    data: DataSpec
    train: Train = Train()
    target: Target = Target()
    workers: Workers = Workers()
    space: dict[str, Any]
    objectives: dict[str, Literal["maximize", "minimize"]] | None = None
    limits: list[str] = []
    strategy: str = STRATEGIES[0]
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
    workers: Workers
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
    lines: Mapping[str, int] = {}
    """The line of each key in the file."""

    @property
    def provider(self) -> Provider:
        """The target's provider."""
        return PROVIDERS[self.target.provider]

    @property
    def score(self) -> str:
        """The score column that `data.metric` fills."""
        return score_column(self.data.metric)

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
            plain.update({name: _plain_domain(name, domain) for name, domain in self.space.lora.items()})
            space["lora"] = {name: plain[name] for name in LORA if name in plain}
        if self.space.recipes:
            space["build"] = [recipe.model_dump(exclude_none=True) for recipe in self.space.recipes]
        if self.space.sessions:
            space["session"] = [_plain_session(session or Session()) for session in self.space.sessions]
        instead = {"workload"} if self.target.workloads else {"workloads"}
        return {
            "name": self.name,
            "model": self.model,
            "data": self.data.model_dump(mode="json", exclude_none=True),
            "train": self.train.model_dump(mode="json"),
            "target": self.target.model_dump(mode="json", exclude_none=True, exclude=instead),
            "workers": self.workers.model_dump(mode="json", exclude_none=True),
            "space": space,
            "objectives": dict(self.objectives),
            "limits": [str(limit) for limit in self.limits],
            "strategy": self.strategy,
            "engine": self.engine,
            "budget": self.budget.model_dump(mode="json", exclude_none=True),
            "seed": self.seed,
            "trust_remote_code": self.trust_remote_code,
        }


def _plain_session(session: Session) -> dict[str, Any]:
    plain = session.model_dump(exclude_none=True)
    return plain | ({"provider_options": session.options} if session.provider_options else {})


def _plain_domain(name: str, domain: Choice | Range) -> Any:
    if isinstance(domain, Choice):
        values: list[Any] = [list(value) if isinstance(value, tuple) else value for value in domain.values]
        if name == "target_modules":  # a list of one module is kept as its name
            values = [value if isinstance(value, list) or value in PRESETS else [value] for value in values]
        return values[0] if len(values) == 1 else {"choice": values}
    kind = ("log" if domain.log else "") + ("int" if domain.integer else "uniform")
    bounds = [int(domain.low), int(domain.high)] if domain.integer else [domain.low, domain.high]
    return {kind: bounds}


_DEEPEST, _MOST_ENTRIES, _LONGEST_KEY = 100, 100_000, 1000
"""Of a sweep file: levels, entries with those of aliases, characters of a key with its parents'."""

# --- reading -------------------------------------------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
    """YAML where `1e-4` is a number, and `no`, `on`, `1:30` and `010` are texts.

    PyYAML follows YAML 1.1, people do not: to it those are a text, two truth values, 90 and 8.
    """

    def fetch_flow_collection_start(self, token: type[Any]) -> None:
        """Refuse what is nested too deeply where it is read: PyYAML's time grows with the square of the depth."""
        if self.flow_level >= _DEEPEST:
            raise ScannerError(problem=f"nested deeper than {_DEEPEST} levels", problem_mark=self.get_mark())
        super().fetch_flow_collection_start(token)


_REPLACED = {f"tag:yaml.org,2002:{kind}" for kind in ("bool", "int", "float", "timestamp", "value")}
_Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag not in _REPLACED]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


class _Dumper(yaml.SafeDumper):
    """YAML that reads the same by our loader and by PyYAML's: a text that looks like a number to either is quoted."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int",
    re.compile(r"^[-+]?(?:0|[1-9][0-9_]*|0x[0-9a-fA-F]+|0b[01]+)$"),
    list("-+0123456789"),
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*|[0-9][0-9_]*(?=[eE]))(?:[eE][-+]?[0-9]+)?$"),
    list("-+0123456789."),
)
_Dumper.yaml_implicit_resolvers = {
    first: [*yaml.SafeDumper.yaml_implicit_resolvers.get(first, []), *_Loader.yaml_implicit_resolvers.get(first, [])]
    for first in {*yaml.SafeDumper.yaml_implicit_resolvers, *_Loader.yaml_implicit_resolvers}
}


def to_yaml(data: Mapping[str, Any]) -> str:
    """Return plain data as the YAML of a sweep file."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


_PLAIN_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null", "map", "seq", "merge")}


def _checked(node: yaml.Node, key: str, lines: dict[str, int], problems: list[Problem], depth: int = 0) -> None:
    """Collect the line of every key, and the keys that are written twice.

    Raises YAMLError for what no sweep file needs: tags, keys that are no texts, aliases that multiply.
    """
    if depth > _DEEPEST or len(lines) > _MOST_ENTRIES:  # an alias inside itself, or aliases that multiply
        raise yaml.YAMLError(f"nested deeper than {_DEEPEST} levels, or more than {_MOST_ENTRIES:,} entries")
    if node.tag not in _PLAIN_TAGS:
        raise MarkedYAMLError(problem=f"the tag {node.tag} is not taken", problem_mark=node.start_mark)
    if isinstance(node, yaml.MappingNode):
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise MarkedYAMLError(problem="a key must be a text", problem_mark=key_node.start_mark)
            here = f"{key}.{key_node.value}" if key else str(key_node.value)
            if len(here) > _LONGEST_KEY:
                raise MarkedYAMLError(problem="a key is too long", problem_mark=key_node.start_mark)
            line = key_node.start_mark.line + 1
            if here in lines:
                problems.append(
                    Problem(f"written twice, first in line {lines[here]}", here, line=line, remedy="keep one")
                )
            lines[here] = line
            _checked(key_node, here, lines, problems, depth + 1)
            _checked(value_node, here, lines, problems, depth + 1)
    elif isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            lines[f"{key}[{index}]"] = child.start_mark.line + 1
            _checked(child, f"{key}[{index}]", lines, problems, depth + 1)


def _parse_yaml(text: str, kind: type[Any] = _Loader) -> tuple[Any, dict[str, int], list[Problem]]:
    """Return what YAML holds, the line of each key, and the keys that are written twice. Raises SYNTAX_ERRORS."""
    lines: dict[str, int] = {}
    problems: list[Problem] = []
    loader = kind(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None, lines, problems
        _checked(node, "", lines, problems)
        return (None if problems else loader.construct_document(node)), lines, problems
    finally:
        loader.dispose()


SYNTAX_ERRORS = (yaml.YAMLError, ValueError, LookupError, RecursionError, TypeError)
_LARGEST = 1_000_000
"""Bytes of a sweep file."""
_SUFFIXES = (".yaml", ".yml", ".toml", ".json")


def read_resolved(text: str) -> Any:
    """Return what the YAML of a resolved sweep holds, by libyaml where it is there: recipes may be thousands.

    Raises SYNTAX_ERRORS.
    """
    kind = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    depth = 0
    for event in yaml.parse(text, kind):  # composing nests calls as deep as the text, in C without an end
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            raise yaml.YAMLError(f"nested deeper than {_DEEPEST} levels")
    return _parse_yaml(text, kind)[0]


def parse_value(text: str) -> Any:
    """Return the value of `--set KEY=VALUE`, read as the YAML of a sweep file."""
    value, _, problems = _parse_yaml(text)
    if problems:
        raise ValueError(problems[0].rule)
    return value


def _json_mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"'{next(name for name in names if names.count(name) > 1)}' is written twice")
    return mapping


def _json_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _read(path: Path, shown: str) -> tuple[dict[str, Any], dict[str, int]]:
    """Return a sweep file's mapping and the line of each key (YAML only). Raises UsageError."""
    suffix = path.suffix.lower()
    if suffix not in _SUFFIXES:
        rule = "a sweep file is YAML, TOML or JSON" + (", and this is a folder" if is_folder(path) else "")
        remedy = "name a .yaml, .toml or .json file"
        raise UsageError(Problem(rule, file=shown, value=suffix or None, remedy=remedy))
    try:
        if path.exists() and not path.is_file():
            raise OSError("it is no file")
        with path.open("rb") as stream:
            content = stream.read(_LARGEST + 1)
        if len(content) > _LARGEST:
            raise OSError(f"it has more than {_LARGEST:,} bytes")
        text = content.decode("utf-8").removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    except FileNotFoundError:
        there = sorted(p.name for p in path.parent.glob("*") if p.suffix.lower() in _SUFFIXES)
        remedy = did_you_mean(path.name, there) if there else "check the path"
        raise UsageError(Problem("no such sweep file", file=shown, remedy=remedy)) from None
    except UnicodeDecodeError as error:
        rule = f"a sweep file is UTF-8 text (byte {error.object[error.start]:#04x} at offset {error.start} is not)"
        raise UsageError(Problem(rule, file=shown, remedy="save it as UTF-8")) from None
    except (OSError, ValueError) as error:
        rule = f"cannot be read ({getattr(error, 'strerror', None) or error})"
        raise UsageError(Problem(rule, file=shown, remedy="check the path")) from None
    lines: dict[str, int] = {}
    problems: list[Problem] = []
    try:
        if suffix == ".toml":
            data: Any = tomllib.loads(text)
        elif suffix == ".json":
            data = json.loads(text, object_pairs_hook=_json_mapping, parse_constant=_json_constant)
        else:
            data, lines, problems = _parse_yaml(text)
    except SYNTAX_ERRORS as error:
        raise UsageError(replace(_syntax(error, suffix, text), file=shown)) from None
    if problems:
        raise UsageError([replace(problem, file=shown) for problem in problems])
    rule = "a sweep file is a mapping with the keys model, data and space"
    remedy = "see search_spaces/ for examples"
    if data is None:
        raise UsageError(Problem(f"{rule}, and this one is empty", file=shown, remedy=remedy))
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise UsageError(Problem(rule, file=shown, value=data, remedy=remedy))
    if "input_model" in data and "passes" in data:
        rule = "this is an Olive configuration, which autotune does not read yet"
        raise UsageError(Problem(rule, file=shown, remedy="write its model, data and passes as a sweep file"))
    return data, lines


def _syntax(error: Exception, suffix: str, text: str) -> Problem:
    """Return what a parser found, with its line."""
    name = suffix[1:].upper().replace("YML", "YAML")
    what = getattr(error, "problem", None) or (str(error).splitlines() or [type(error).__name__])[0]
    remedy = "mend the syntax"
    if "'\\t'" in what:
        remedy = "indent with spaces"
    elif what.endswith("is written twice"):
        remedy = "keep one"
    line: int | None = None
    if isinstance(error, RecursionError):
        what = "nested too deeply"
    elif isinstance(error, LookupError):
        what = "a value does not fit its tag"
    elif "integer string conversion" in what:
        what = "a number has thousands of digits"
    if isinstance(error, ReaderError):
        what, line = (
            f"the character {chr(int(error.character))!r} is not allowed",
            text.count("\n", 0, error.position) + 1,
        )
    elif isinstance(error, MarkedYAMLError) and error.problem_mark is not None:
        line = error.problem_mark.line + 1
        if error.context and error.context_mark is not None and error.context_mark.line + 1 != line:
            what += f" {error.context} that begins in line {error.context_mark.line + 1}"
    elif isinstance(error, json.JSONDecodeError):
        line, what = error.lineno, f"{error.msg} at column {error.colno}"
    elif isinstance(error, tomllib.TOMLDecodeError) and (found := re.search(r" \(at line (\d+), (.*)\)$", what)):
        line, what = int(found[1]), f"{what[: found.start()]} at {found[2]}"
    return Problem(f"is not valid {name}: {what}", line=line, remedy=remedy)


def _set(data: dict[str, Any], assignment: str) -> str:
    """Apply one `--set a.b=value`; return its key. Raises UsageError."""
    key, equals, text = assignment.partition("=")
    key = key.strip()
    if not equals or not key:
        raise UsageError(Problem("--set takes KEY=VALUE", value=assignment, remedy="e.g. --set budget.trials=4"))
    *parents, last = key.split(".")
    here: Any = data
    for name in parents:
        here = here.setdefault(name, {})
        if not isinstance(here, dict):
            rule = f"--set {key}: '{name}' is not a mapping, and has no keys to set"
            raise UsageError(Problem(rule, value=assignment, remedy=f"set {name} as a whole"))
    try:
        here[last] = parse_value(text)
    except SYNTAX_ERRORS:
        raise UsageError(Problem(f"--set {key}: not a YAML value", value=text, remedy="quote it")) from None
    return key


def _model_at(path: Sequence[str | int]) -> type[BaseModel] | None:
    """Return the model that holds the key at the end of `path`."""
    current: Any = _Document
    for step in path[:-1]:
        fields = getattr(current, "model_fields", {})
        if current is Workload and step not in fields:  # a workload's name
            continue
        annotation = fields[step].annotation if step in fields else None
        options = [annotation, *getattr(annotation, "__args__", ())]
        options += [inner for option in options for inner in getattr(option, "__args__", ())]
        current = next((o for o in options if isinstance(o, type) and issubclass(o, BaseModel)), None)
    return current if isinstance(current, type) else None


def _remedy(kind: str, path: Sequence[str | int], key: str, value: Any) -> str:
    """Return what to do about an error of pydantic's."""
    if not path or kind in ("value_error", "invalid_key"):
        return ""
    model = _model_at(path)
    fields = model.model_fields if model is not None else {}
    field = fields.get(str(path[-1]))
    if kind == "extra_forbidden":
        return did_you_mean(str(path[-1]), list(fields))
    if kind == "missing" or (field is not None and field.is_required()):
        return "add it; see search_spaces/ for examples" if kind == "missing" else "see search_spaces/ for examples"
    if value is None:
        return "give one, or remove the key"
    if kind in ("model_type", "dict_type"):
        return f"write {key}: {{ ... }}"
    if kind in ("list_type", "tuple_type"):
        return f"write {key}: [...]"
    default = field.default if field is not None else None
    return f"the default is {default}" if isinstance(default, int | float | str) and default != "" else ""


# Pydantic's kinds of errors in the words of a sweep file.
_RULES = {
    "missing": "is missing",
    "extra_forbidden": "unknown key",
    "model_type": "must be a mapping",
    "dict_type": "must be a mapping",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "string_type": "must be a text",
    "string_unicode": "must be a text without halves of characters",
    "bool_type": "must be true or false",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "string_too_short": "must not be empty",
    "greater_than_equal": "must be at least {ge:g}",
    "greater_than": "must be more than {gt:g}",
    "less_than_equal": "must be at most {le:g}",
    "less_than": "must be less than {lt:g}",
    "literal_error": "must be {expected}",
}
_PATTERNS = {
    "name": "must be letters, digits, '.', '-' and '_', 64 at most, since it names the results folder",
    "dataset": "must be owner/name",
}


def _path(loc: Sequence[int | str], data: Any, missing: bool) -> list[int | str]:
    """Return the keys of a pydantic location, without the names of union members that it holds too.

    `missing`: the last of them is not in the data.
    """
    path: list[int | str] = []
    for place, step in enumerate(loc, start=1):
        last = missing and place == len(loc)
        if isinstance(data, Mapping) and isinstance(step, str) and (step in data or last):
            path.append(step)
            data = data.get(step)
        elif isinstance(data, list) and isinstance(step, int) and step < len(data):
            path.append(step)
            data = data[step]
    return path


def _problems_of(error: ValidationError, data: Mapping[str, Any]) -> list[Problem]:
    """Turn what pydantic found in `data` into problems: one for each key."""
    found: dict[str, Problem] = {}
    for item in error.errors(include_url=False):
        kind, value, loc = item["type"], item["input"], item["loc"]
        path = _path(loc, data, kind == "missing")
        steps = [f"[{step}]" if isinstance(step, int) else f".{step or repr(step)}" for step in path]
        key = "".join(steps).removeprefix(".")
        rule = item["msg"].removeprefix("Value error, ")
        if kind in _RULES:
            rule = _RULES[kind].format(**item.get("ctx", {}))
        elif kind == "string_pattern_mismatch":
            rule = _PATTERNS.get(str(path[-1]), rule)
        if kind == "invalid_key" or (loc[-1:] == ("[key]",) and path[-1:] != ["[key]"]):
            rule, kind = "its keys must be texts", "invalid_key"
        elif value is None and kind not in ("extra_forbidden", "value_error"):
            rule = f"has no value, and {rule}"
        remedy = _remedy(kind, path, key, value)
        if kind in ("missing", "extra_forbidden", "value_error"):
            value = None
        before = found.get(key)
        if before is not None and before.rule != rule and kind.endswith("_type"):  # members of a union
            rule = f"{before.rule} or {rule.removeprefix('must be ')}"
        found[key] = Problem(rule, key, value=value, remedy=remedy)
    # A member of a union that looks inside knows more than the one that wants a text.
    return [p for k, p in found.items() if not any(other.startswith((f"{k}.", f"{k}[")) for other in found)]


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
        key = _set(data, assignment)
        lines = {k: line for k, line in lines.items() if not k.startswith((f"{key}.", f"{key}["))} | {key: _FROM_SET}
    try:
        return parse_sweep(data, lines, root=file.parent, shown=shown, trials=trials, hours=hours)
    except UsageError as error:
        wrong = _data_problems(data.get("data"), file.parent, shown)
        raise UsageError([*error.problems, *(_located(problem, shown, lines) for problem in wrong)]) from None


def load_data(sweep: Sweep, fetch: Callable[[HubDataset], Path] | None = None) -> Dataset:
    """Read the data of a sweep, as `load_dataset` does; its problems carry the lines of the sweep file."""
    try:
        return load_dataset(sweep.data, sweep.root, sweep.file, fetch)
    except UsageError as error:
        raise UsageError([_located(problem, sweep.file, sweep.lines) for problem in error.problems]) from None


def _data_problems(raw: Any, root: Path, shown: str) -> tuple[Problem, ...]:
    """Return what is wrong in the data files, for a sweep file that is refused anyway: all problems at once."""
    try:
        spec = DataSpec.model_validate(raw)
        if not any(hub_source(source, root) for source in (spec.train, spec.validation, spec.test)):
            load_dataset(spec, root, shown)
    except ValidationError:
        pass  # said by the sweep's own check
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
    """Check a sweep given as plain data; `lines` and `shown` say where each key was read. Raises UsageError."""
    if _too_deep(data):
        rule = f"nested deeper than {_DEEPEST} levels"
        raise UsageError(Problem(rule, file=shown, remedy="see search_spaces/ for examples"))
    problems: list[Problem] = _left_out(data)
    document: _Document | None = None
    try:
        document = _Document.model_validate(dict(data))
    except ValidationError as error:
        problems += _problems_of(error, data)

    # What follows looks at the plain data, so that one wrong key does not hide the mistakes in others.
    provider_name = _given(data.get("target"), "provider", str, "cpu")
    provider = PROVIDERS.get(provider_name)
    if provider is None:
        remedy = did_you_mean(provider_name, list(PROVIDERS))
        problems.append(Problem("no such execution provider", "target.provider", value=provider_name, remedy=remedy))

    model = _given(data, "model", str, "")
    shape: ModelShape | None = None
    if model:
        try:
            shape = shape_of(model, root)
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
    space = _parse_space(raw_space, provider or PROVIDERS["cpu"], shape, train, target.session, problems)
    problems += _too_long(model, root, train, space)
    score = _score(data.get("data"), root, problems)
    first = _direction(score, data.get("data"), root)
    usable = _usable(score, builds, target)
    objectives = _objectives(data.get("objectives"), score, first, builds, usable, problems)
    limits = _limits(_given(data, "limits", list, []), usable, problems)
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
        raise UsageError([_located(problem, shown, lines or {}) for problem in problems])
    return Sweep(
        name=document.name or re.sub(r"[^A-Za-z0-9._-]+", "-", Path(shown).stem).strip("-._")[:64] or "sweep",
        model=document.model, data=document.data, train=document.train, target=document.target,
        workers=document.workers, space=space,
        objectives=objectives, limits=limits, strategy=strategy, engine=document.engine, budget=budget,
        seed=document.seed, trust_remote_code=document.trust_remote_code, root=root, file=shown,
        lines=lines or {},
    )  # fmt: skip


def _too_deep(value: Any) -> bool:
    """Return whether plain data has more levels than a sweep needs: TOML, JSON and `--set` have no end of their own."""
    level = [value]
    for _ in range(_DEEPEST):
        level = [
            part
            for outer in level
            if isinstance(outer, (Mapping, list))
            for part in (outer.values() if isinstance(outer, Mapping) else outer)
        ]
    return bool(level)


def _left_out(value: Any, key: str = "") -> list[Problem]:
    """Return the texts from which a secret was taken when the sweep was recorded: run so, it would be another sweep."""
    if isinstance(value, Mapping):
        return [p for name, part in value.items() for p in _left_out(part, f"{key}.{name}" if key else str(name))]
    if isinstance(value, list):
        return [p for index, part in enumerate(value) for p in _left_out(part, f"{key}[{index}]")]
    if not isinstance(value, str) or HIDDEN not in value:
        return []
    rule = f"a secret stood where it says {HIDDEN}, and was left out of the record"
    return [Problem(rule, key, remedy="write it again, or run the sweep file that the record was made from")]


def _given(data: Any, key: str, kind: type[T], otherwise: T) -> T:
    """Return what a mapping holds under `key`, or `otherwise` where there is nothing of that type."""
    value = data.get(key) if isinstance(data, Mapping) else None
    return value if isinstance(value, kind) else otherwise


_FROM_SET = 0
"""The line of a key that `--set` gave."""


def _located(problem: Problem, shown: str, lines: Mapping[str, int]) -> Problem:
    """Add the file, and the line of the key or of its nearest parent that is there."""
    if problem.file and (problem.file != shown or problem.line is not None):  # in a data file, or located already
        return problem
    key = problem.key
    while key and key not in lines:
        key = key[: max(key.rfind("."), key.rfind("["), 0)]
    line = lines.get(key)
    return replace(problem, file="--set", line=None) if line == _FROM_SET else replace(problem, file=shown, line=line)


def _parse_space(
    raw: Mapping[str, Any],
    provider: Provider,
    shape: ModelShape | None,
    train: Train,
    served: Session,
    problems: list[Problem],
) -> Space:
    parts = ("lora", "build", "session")
    problems.extend(
        Problem("unknown key", f"space.{name}", remedy=did_you_mean(str(name), parts))
        for name in raw
        if name not in parts
    )
    domains = parse_lora(raw["lora"], problems) if "lora" in raw else None
    recipes, left_out = parse_recipes(raw["build"], provider, shape, problems) if "build" in raw else ((), ())
    if left_out and not recipes:
        reasons = "; ".join(f"{item.settings}: {item.reason}" for item in left_out[:3])
        problems.append(Problem(f"no recipe can run here ({reasons})", "space.build", remedy="change or add one"))
    defaults: dict[str, Any] = {"batch_size": train.batch_size, "max_length": train.max_length}
    if domains is not None and "steps" not in domains and "epochs" not in domains:
        defaults["steps"] = DEFAULT_STEPS
    dtype = (domains or {}).get("dtype")
    if train.device == "cpu" and isinstance(dtype, Choice) and "fp16" in dtype.values:
        rule = "fp16 does not train on a CPU, and train.device is cpu"
        problems.append(Problem(rule, "space.lora.dtype", value="fp16", remedy="use fp32 or bf16"))
    sessions = parse_sessions(raw["session"], served, provider, problems) if "session" in raw else ()
    return Space(domains, recipes, left_out, defaults, train.device, sessions)


def _target(raw: Any, provider: Provider, metric: str, problems: list[Problem]) -> Target:
    """Return the target, or a plain one where it is refused; what only makes sense together is checked here."""
    key = "target.provider_options"
    options = _given(raw, "provider_options", dict, None)
    if options is not None and check_served("provider_options", provider, key, problems):
        rule = spell_options(options)[1]
        if rule:
            remedy = "see the provider's options in ONNX Runtime's documentation"
            problems.append(Problem(rule, key, remedy=remedy))
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
        limits.append(limit)
    return tuple(limits)
