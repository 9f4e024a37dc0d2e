"""Find a user's own metric or stage, and read its source, without running it.

`plan` and `select` must be safe on a sweep from anywhere, so a module is only parsed as text. The score stage runs it, in a
worker process (`stages/own_metric.py`).
"""

from __future__ import annotations

import ast
import hashlib
import importlib
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import NamedTuple

from autotune.errors import Problem, UsageError, did_you_mean

ARGUMENTS = ("prediction", "reference", "item")
SIGNATURE = "def metric(prediction: str, reference: str, item: Mapping[str, object]) -> float"


class Kind(NamedTuple):
    """A kind of user's function: the key that names it, its positional arguments, and its signature."""

    key: str
    arguments: tuple[str, ...]
    signature: str


METRIC = Kind("data.metric", ARGUMENTS, SIGNATURE)
STAGE = Kind("space.build", ("source", "out"), "def stage(source: Path, out: Path, **options) -> None")


@dataclass(frozen=True)
class Code:
    """The source of a metric or stage."""

    file: Path
    """The module that the sweep names."""
    root: Path | None
    """The folder that it is imported from: the sweep file's; None: it is installed."""
    digest: str
    """SHA-256 of the module and of those beside the sweep file that it imports."""
    files: tuple[Path, ...]
    """The module and those that it imports from beside the sweep file."""


def find_function(metric: str, root: Path, kind: Kind = METRIC) -> Code:
    """Find `module:function` beside the sweep file (`root`) or among the installed packages, without importing it.

    Raises UsageError: no such module or function, syntax errors, arguments that do not fit.
    """
    root = root.absolute()
    name, _, function = metric.partition(":")
    importlib.invalidate_caches()  # the file may be younger than the folder's listing
    beside = _find(name, [str(root)])
    spec = beside or _find(name, None)
    if spec is None or spec.origin is None:
        near = sorted(path.stem for path in root.glob("*.py"))
        remedy = f"write {name.replace('.', '/')}.py beside the sweep file, or install it"
        if near and did_you_mean(name, near).startswith("did you mean"):
            remedy = did_you_mean(name, near)
        rule = f"there is no module {name} beside the sweep file, nor among the installed packages"
        raise UsageError(Problem(rule, kind.key, value=metric, remedy=remedy))
    file = Path(spec.origin)
    _check(_tree(file, kind.key), file, function, metric, kind)
    folder = root if beside else None
    return Code(file, folder, digest_code(file, folder), tuple(sources(file, folder)))


def sources(file: Path, root: Path | None) -> list[Path]:
    """Return a module's file, and those below `root` that it imports. Raises UsageError, OSError."""
    found: list[Path] = []
    waiting = [file]
    while waiting:
        source = waiting.pop()
        if source not in found:
            found.append(source)
            waiting += _imported(_tree(source), source, root) if root is not None else []
    return found


def digest_code(file: Path, root: Path | None) -> str:
    """Return the digest of a module's source, and of what it imports from below `root`. Raises UsageError, OSError."""
    content = {
        source.relative_to(root).as_posix() if root else source.name: hashlib.sha256(source.read_bytes()).hexdigest()
        for source in sources(file, root)
    }
    return hashlib.sha256("\n".join(f"{k} {v}" for k, v in sorted(content.items())).encode()).hexdigest()


def _find(name: str, folders: list[str] | None) -> ModuleSpec | None:
    """Return the spec of a dotted module name, in `folders` or on Python's path, without importing its packages."""
    spec: ModuleSpec | None = None
    for part in name.split("."):
        try:
            spec = PathFinder.find_spec(part, folders)
        except (ImportError, ValueError):
            return None
        if spec is None:
            return None
        folders = list(spec.submodule_search_locations or [])
    return spec


def _tree(file: Path, key: str = METRIC.key) -> ast.Module:
    """Return the syntax tree of a module. Raises UsageError where it is no Python."""
    try:
        return ast.parse(file.read_bytes(), str(file))
    except SyntaxError as error:
        rule = f"is not valid Python: {error.msg}"
        raise UsageError(Problem(rule, key, str(file), error.lineno, remedy="mend the syntax")) from None
    except (OSError, ValueError, RecursionError, MemoryError) as error:
        raise UsageError(Problem(f"cannot be read as Python ({error})", key, str(file))) from None


def _check(tree: ast.Module, file: Path, function: str, metric: str, kind: Kind) -> None:
    """Raise UsageError where the module does not define the function, or its arguments do not fit, as far as the text shows."""
    defined = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    if function in defined:
        if _fits(defined[function].args, kind) or defined[function].decorator_list:
            return
        rule = f"{function} must take {', '.join(kind.arguments)}"
        raise UsageError(Problem(rule, kind.key, str(file), defined[function].lineno, remedy=f"write {kind.signature}"))
    # A name may be bound in many ways: refuse it only where the module shows none of them.
    named = {name for node in ast.walk(tree) for name in _names(node)}
    if not named & {function, "*", "__getattr__", "exec", "globals"}:
        remedy = did_you_mean(function, sorted(defined)) if defined else f"write {kind.signature}"
        raise UsageError(Problem(f"defines no function {function}", kind.key, str(file), value=metric, remedy=remedy))


def _names(node: ast.AST) -> list[str]:
    """Return the names that a node may bind."""
    match node:
        case ast.Import() | ast.ImportFrom():
            return [alias.asname or alias.name for alias in node.names]
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            return [node.name]
        case ast.Name():
            return [node.id]
    return []


def _fits(arguments: ast.arguments, kind: Kind) -> bool:
    """Whether a function can be called with the positional arguments of its kind; a stage also has options by name."""
    places = [*arguments.posonlyargs, *arguments.args]
    enough = len(places) >= len(kind.arguments) or arguments.vararg is not None
    if kind is STAGE:
        return enough
    needed = len(places) - len(arguments.defaults)
    keywords = any(default is None for default in arguments.kw_defaults)
    return needed <= len(kind.arguments) and enough and not keywords


def _imported(tree: ast.Module, file: Path, root: Path) -> list[Path]:
    """Return the files below `root` that a module imports."""
    package = file.parent.relative_to(root).parts
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parents = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*parents, *([node.module] if node.module else [])])
            names |= {base, *(f"{base}.{alias.name}".strip(".") for alias in node.names)} - {""}
    whole = {".".join(name.split(".")[:end]) for name in names for end in range(1, name.count(".") + 2)}
    specs = [_find(name, [str(root)]) for name in sorted(whole)]
    return [Path(spec.origin) for spec in specs if spec and spec.origin and spec.origin.endswith(".py")]
