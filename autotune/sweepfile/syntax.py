"""The text of a sweep file: YAML, TOML or JSON to plain data, with the line of each key, and back."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from yaml import MarkedYAMLError
from yaml.reader import ReaderError
from yaml.scanner import ScannerError

from autotune.data.encodings import marked
from autotune.errors import Problem, UsageError, did_you_mean, different_keys
from autotune.paths import is_folder
from autotune.sweepfile.syntax_remedies import TEXTS, json_remedy, named, spoilt_text, toml_remedy, yaml_remedy

DEEPEST, _MOST_ENTRIES, _LONGEST_KEY = 100, 100_000, 1000
"""The limits of a sweep file: levels, entries (those of aliases included), characters of a key with its parents."""


class _Loader(yaml.SafeLoader):
    """YAML where `1e-4` is a number, and `no`, `on`, `1:30` and `010` are texts.

    PyYAML follows YAML 1.1, in which they are a text, two truth values, 90 and 8.
    """

    def fetch_flow_collection_start(self, token: type[Any]) -> None:
        """Refuse deep nesting while reading: PyYAML's time grows with the square of the depth."""
        if self.flow_level >= DEEPEST:
            raise ScannerError(problem=f"nested deeper than {DEEPEST} levels", problem_mark=self.get_mark())
        super().fetch_flow_collection_start(token)


_REPLACED = {f"tag:yaml.org,2002:{kind}" for kind in ("bool", "int", "float", "timestamp", "value")}
_Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag not in _REPLACED]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


class _Dumper(yaml.SafeDumper):
    """YAML with the same meaning for our loader and PyYAML's: a text that either would read as a number is quoted."""


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


def _checked(
    node: yaml.Node, key: str, lines: dict[str, int], problems: list[Problem], above: tuple[int, ...] = ()
) -> None:
    """Collect the line of every key, and problems such as keys that are written twice.

    Raises YAMLError for tags, keys that are no texts, and aliases that multiply, which no sweep file needs.
    """
    if id(node) in above:  # an alias inside of what it names
        raise MarkedYAMLError(problem="a value holds itself", problem_mark=node.start_mark)
    inside = (*above, id(node))
    if len(above) > DEEPEST or len(lines) > _MOST_ENTRIES:  # or aliases that multiply
        raise yaml.YAMLError(f"nested deeper than {DEEPEST} levels, or more than {_MOST_ENTRIES:,} entries")
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
            problems += [replace(found, line=line) for found in _slips(here, key_node.value, value_node)]
            _checked(key_node, here, lines, problems, inside)
            _checked(value_node, here, lines, problems, inside)
    elif isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            lines[f"{key}[{index}]"] = child.start_mark.line + 1
            _checked(child, f"{key}[{index}]", lines, problems, inside)


_INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff"


def _slips(key: str, name: str, node: yaml.Node) -> Iterator[Problem]:
    """Yield a problem for each text that is valid YAML but probably means something else than was intended."""
    odd = next((c for c in name if c in _INVISIBLE or (c.isspace() and c not in " \t")), "")
    if odd:
        yield Problem(f"the key holds {named(odd)}", key, remedy="write plain spaces, and none within a key")
    last = key.rpartition(".")[2]
    if isinstance(node, yaml.CollectionNode) and node.flow_style and last in TEXTS:
        mark = node.start_mark
        written = mark.buffer[mark.pointer : node.end_mark.pointer] if mark is not None and mark.buffer else "{column}"
        kind = "mapping" if isinstance(node, yaml.MappingNode) else "list"
        rule = f"a text that begins with {written[0]} must stand in quotes, or it is a {kind}"
        remedy = f'write {last}: "{written}"' if "\n" not in written and '"' not in written else "put it in quotes"
        yield Problem(rule, key, remedy=remedy)
    if isinstance(node, yaml.ScalarNode) and not node.value and re.fullmatch(r"\w+:\S+", name):
        yield Problem("the key holds a colon, and has no value", key, remedy="write a space after the colon")
    if isinstance(node, yaml.ScalarNode):
        mark = node.end_mark
        after = mark.buffer[mark.pointer :].split("\n", 1)[0] if mark is not None and mark.buffer else ""
        if found := spoilt_text(key, node.style, node.value, after):
            yield Problem(found[0], key, value=node.value or None, remedy=found[1])


def _parse_yaml(text: str, kind: type[Any] = _Loader) -> tuple[Any, dict[str, int], list[Problem]]:
    """Return the data of YAML, the line of each key, and the problems found. Raises SYNTAX_ERRORS."""
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
"""The most bytes of a sweep file."""
_SUFFIXES = (".yaml", ".yml", ".toml", ".json")


def read_resolved(text: str) -> Any:
    """Return the data of a resolved sweep's YAML, with libyaml where it is installed: there may be thousands of recipes.

    Raises SYNTAX_ERRORS.
    """
    kind = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    depth = 0
    for event in yaml.parse(text, kind):  # composing recurses as deep as the text, in C without a limit
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise yaml.YAMLError(f"nested deeper than {DEEPEST} levels")
    return _parse_yaml(text, kind)[0]


def parse_value(text: str) -> Any:
    """Return the value of `--set KEY=VALUE`, read as the YAML of a sweep file."""
    value, _, problems = _parse_yaml(text)
    if problems:
        raise ValueError(problems[0].rule)
    return value


def _json_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def read_file(path: Path, shown: str) -> tuple[dict[str, Any], dict[str, int]]:
    """Return a sweep file's mapping and the line of each key (YAML only). Raises UsageError."""
    suffix = path.suffix.lower()
    if suffix not in _SUFFIXES:
        raise UsageError(_no_format(path, shown))
    text = _read_text(path, shown)
    lines: dict[str, int] = {}
    problems: list[Problem] = []
    try:
        if suffix == ".toml":
            data: Any = tomllib.loads(text)
        elif suffix == ".json":
            data = json.loads(text, object_pairs_hook=different_keys, parse_constant=_json_constant)
        else:
            data, lines, problems = _parse_yaml(text)
    except SYNTAX_ERRORS as error:
        raise UsageError(replace(_syntax(error, suffix, text), file=shown)) from None
    if problems:
        raise UsageError([replace(problem, file=shown) for problem in problems])
    return _mapping(data, lines, shown), lines


def _no_format(path: Path, shown: str) -> Problem:
    """Return the problem of a file whose ending names no format of sweep files, or of a folder."""
    suffix = path.suffix.lower()
    rule = "a sweep file is YAML, TOML or JSON" + (", and this is a folder" if is_folder(path) else "")
    remedy = "name a .yaml, .toml or .json file"
    if is_folder(path) and (
        inside := sorted(one.name for one in path.glob("*") if one.suffix.lower() in _SUFFIXES[:3])
    ):
        remedy = f"name the sweep file in it: {path / ('sweep.yaml' if 'sweep.yaml' in inside else inside[0])}"
    if suffix == ".txt":
        remedy = f"rename it to {path.with_suffix('').name.removesuffix('.yaml')}.yaml"
    return Problem(rule, file=shown, value=suffix or None, remedy=remedy)


def _read_text(path: Path, shown: str) -> str:
    """Return the text of a sweep file, with line ends of one kind. Raises UsageError."""
    try:
        if path.exists() and not path.is_file():
            raise OSError("it is no file")
        with path.open("rb") as stream:
            content = stream.read(_LARGEST + 1)
        if len(content) > _LARGEST:
            raise OSError(f"it has more than {_LARGEST:,} bytes")
        encoding = marked(content) or "utf-8"
        return content.decode(encoding).removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    except FileNotFoundError:
        there = sorted(p.name for p in path.parent.glob("*") if p.suffix.lower() in _SUFFIXES)
        remedy = did_you_mean(path.name, there) if there else "check the path"
        remedy = "download it, and name the file: no address is fetched" if "://" in shown else remedy
        raise UsageError(Problem("no such sweep file", file=shown, remedy=remedy)) from None
    except UnicodeDecodeError as error:
        rule = f"a sweep file is UTF-8 text (byte {error.object[error.start]:#04x} at offset {error.start} is not)"
        line = error.object.count(b"\n", 0, error.start) + 1
        remedy = "save it as UTF-8 (Notepad: Save as, Encoding)"
        raise UsageError(Problem(rule, file=shown, line=line, remedy=remedy)) from None
    except (OSError, ValueError) as error:
        rule = f"cannot be read ({getattr(error, 'strerror', None) or error})"
        raise UsageError(Problem(rule, file=shown, remedy="check the path")) from None


def _mapping(data: Any, lines: Mapping[str, int], shown: str) -> dict[str, Any]:
    """Return parsed data, which must be a mapping whose keys are texts. Raises UsageError."""
    rule = "a sweep file is a mapping with the keys model, data and space"
    remedy = "see search_spaces/ for examples"
    if data is None:
        raise UsageError(Problem(f"{rule}, and this one is empty", file=shown, remedy=remedy))
    if isinstance(data, dict) and (odd := [key for key in data if not isinstance(key, str)]):
        raise UsageError(Problem("its keys must be texts", str(odd[0]), shown, lines.get(str(odd[0])), odd[0], remedy))
    if not isinstance(data, dict):
        raise UsageError(Problem(rule, file=shown, value=data, remedy=remedy))
    return data


def _syntax(error: Exception, suffix: str, text: str) -> Problem:
    """Return the problem of a parser's error, with its line and a remedy."""
    name = suffix[1:].upper().replace("YML", "YAML")
    what = getattr(error, "problem", None) or (str(error).splitlines() or [type(error).__name__])[0]
    remedy = "mend the syntax"
    line: int | None = None
    if isinstance(error, RecursionError):
        what = "nested too deeply"
    elif what.endswith("is written twice"):
        remedy = "keep one"
    elif "no JSON number" in what:
        remedy = "write null, or a number"
    elif isinstance(error, LookupError):
        what = "a value does not fit its tag"
    elif "integer string conversion" in what:
        what = "a number has thousands of digits"
    if isinstance(error, ReaderError):
        what = f"the character {chr(int(error.character))!r} is not allowed"
        line, remedy = text.count("\n", 0, error.position) + 1, "remove the character"
    elif isinstance(error, MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        line = mark.line + 1
        lines = text.split("\n")
        there = mark.line < len(lines) and lines[mark.line].strip()
        at = mark.line if there else max(0, len(text.rstrip().split("\n")) - 1)
        begun = error.context_mark.line if error.context_mark is not None else None
        rule, remedy, blamed = yaml_remedy(what, lines, at, begun if begun is not None and begun <= at else None)
        what, line = rule or what, blamed + 1 if there or blamed in (begun, at - 1) else line
        if not rule and error.context and error.context_mark is not None and error.context_mark.line + 1 != line:
            what += f" {error.context} that begins in line {error.context_mark.line + 1}"
    elif isinstance(error, json.JSONDecodeError):
        line, remedy = error.lineno, json_remedy(error.msg, text, error.pos)
        what = f"{error.msg} at column {error.colno}"
    elif isinstance(error, tomllib.TOMLDecodeError) and (found := re.search(r" \(at line (\d+), (.*)\)$", what)):
        line, what = int(found[1]), what[: found.start()]
        remedy = toml_remedy(what, text.split("\n")[line - 1])
        what += f" at {found[2]}"
    elif isinstance(error, tomllib.TOMLDecodeError):
        remedy = toml_remedy(what, text.rstrip().rsplit("\n", 1)[-1])
    return Problem(f"is not valid {name}: {what}", line=line, remedy=remedy)


def too_deep(value: Any) -> bool:
    """Return whether plain data has more levels than a sweep needs: TOML, JSON and `--set` have no limit of their own."""
    level = [value]
    for _ in range(DEEPEST):
        level = [
            part
            for outer in level
            if isinstance(outer, (Mapping, list))
            for part in (outer.values() if isinstance(outer, Mapping) else outer)
        ]
    return bool(level)
