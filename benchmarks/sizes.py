"""How large is the package, and how many of its functions are long or take many parameters? One column for each checkout.

git worktree add ../before 718160a
python -m benchmarks.sizes ../before . --out benchmarks/measured/sizes.md

Read from the source alone, so that a checkout need not be installed. A module that another program wrote (its docstring
begins with "Made by") counts in a row of its own and nowhere else.
"""

from __future__ import annotations

import argparse
import ast
import statistics
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.rooms import read_modules

LONG = 400
"""Lines above which a module says at its head why it is one."""
WIDE = 6
"""Parameters above which a function is called wide."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Module:
    """A module of the package: its name below the package, its code, its lines."""

    name: str
    tree: ast.Module
    lines: int

    @property
    def generated(self) -> bool:
        """Whether a program wrote it."""
        return (ast.get_docstring(self.tree) or "").startswith("Made by")

    def functions(self) -> Iterator[tuple[str, Function]]:
        """Yield its functions and methods, those inside others too, by their name in the module."""

        def inside(node: ast.AST, path: tuple[str, ...]) -> Iterator[tuple[str, Function]]:
            for child in ast.iter_child_nodes(node):
                named = isinstance(child, Function | ast.ClassDef)
                own = (*path, child.name) if isinstance(child, Function | ast.ClassDef) else path
                if isinstance(child, Function):
                    yield ".".join(own), child
                yield from inside(child, own if named else path)

        return inside(self.tree, ())


def modules_of(checkout: Path) -> list[Module]:
    """Return the modules of a checkout's package. Raises SystemExit where it has none."""
    package = checkout / "autotune"
    found = []
    for name, tree in read_modules(package).items():
        file = package.joinpath(*name.split("."))
        file = file / "__init__.py" if file.is_dir() else file.with_suffix(".py")
        found.append(Module(name, tree, file.read_text(encoding="utf-8").count("\n")))
    if not found:
        raise SystemExit(f"{checkout}: no package autotune/ in it; give the folder of a checkout")
    return found


def public_names(module: Module) -> tuple[int, int]:
    """Return how many functions, classes and constants a module defines without an underscore, and how many such methods."""
    names: set[str] = set()
    methods = 0
    for node in module.tree.body:
        if isinstance(node, Function | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            methods += sum(isinstance(part, Function) and not part.name.startswith("_") for part in node.body)
    return sum(not name.startswith("_") for name in names), methods


def parameters(function: Function) -> list[ast.arg]:
    """Return the parameters of a function that its callers give: without `self` and `cls`."""
    given = function.args
    every = [*given.posonlyargs, *given.args, *given.kwonlyargs, *filter(None, (given.vararg, given.kwarg))]
    return [one for one in every if one.arg not in ("self", "cls")]


def _annotations(function: Function) -> Iterator[ast.expr]:
    yield from (one.annotation for one in parameters(function) if one.annotation is not None)
    if function.returns is not None:
        yield function.returns


def _names(annotation: ast.expr) -> set[str]:
    """Return the names in an annotation, those inside quotes too."""
    found: set[str] = set()
    for node in ast.walk(annotation):
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isidentifier():
            found.add(node.value)
    return found


def dict_names(modules: Iterable[Module], name: str = "Row") -> dict[str, str]:
    """Return by module the name under which it knows an alias of a dict, such as `Row = dict[str, Cell]`."""
    modules = list(modules)
    known = {
        module.name: name
        for module in modules
        for node in module.tree.body
        if isinstance(node, ast.Assign)
        and any(isinstance(target, ast.Name) and target.id == name for target in node.targets)
        and "dict" in _names(node.value)
    }
    for module in modules:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").removeprefix("autotune.") in set(known):
                for alias in node.names:
                    if alias.name == name:
                        known.setdefault(module.name, alias.asname or alias.name)
    return known


def _takes(function: Function, alias: str | None, named: Sequence[str]) -> bool:
    """Whether a function is annotated with an alias, or has a parameter of one of these names that is a dict or mapping."""
    if any(alias in _names(annotation) for annotation in _annotations(function)):
        return True
    given = (one.annotation for one in parameters(function) if one.arg in named and one.annotation)
    return any(_names(annotation) & {"dict", "Mapping"} for annotation in given)


def functions_with_rows(modules: Iterable[Module]) -> list[str]:
    """Return the functions that take or return a row of a results table as a dict, by their annotations."""
    return _functions_with(list(modules), "Row", ("row", "rows"))


def functions_with_cells(modules: Iterable[Module]) -> list[str]:
    """Return the functions that take or return some cells of a row as a dict: what was measured, or settings."""
    return _functions_with(list(modules), "Cells", ("cells",))


def _functions_with(modules: Sequence[Module], alias: str, named: Sequence[str]) -> list[str]:
    known = dict_names(modules, alias)
    return [
        f"{module.name}.{name}"
        for module in modules
        for name, function in module.functions()
        if _takes(function, known.get(module.name), named)
    ]


def takes_sweep(function: Function) -> bool:
    """Whether a function takes the whole sweep, by its annotations."""
    return any("Sweep" in _names(one.annotation) for one in parameters(function) if one.annotation is not None)


def lines_below(folder: Path) -> int:
    """Return the lines of all Python files below a folder."""
    return sum(file.read_text(encoding="utf-8").count("\n") for file in folder.rglob("*.py"))


def sizes(checkout: Path) -> dict[str, str]:
    """Return what is counted of a checkout, by what it is."""
    every = modules_of(checkout)
    modules = [module for module in every if not module.generated]
    functions = [
        (f"{module.name}.{name}", module, function) for module in modules for name, function in module.functions()
    ]
    widths = {name: len(parameters(function)) for name, _, function in functions}
    widest = max(widths, key=lambda name: widths[name])
    names, methods = (sum(counts) for counts in zip(*map(public_names, modules), strict=True))
    swept = [module.name for _, module, function in functions if takes_sweep(function)]
    long = sorted((module for module in modules if module.lines > LONG), key=lambda module: -module.lines)
    return {
        "lines of the package": f"{sum(module.lines for module in modules):,}",
        "lines that a program wrote": f"{sum(module.lines for module in every if module.generated):,}",
        "modules, `__init__` too": str(len(modules)),
        "lines of a module, median": f"{statistics.median(module.lines for module in modules):.0f}",
        f"modules over {LONG} lines": str(len(long)),
        "which": ", ".join(f"`{module.name}` {module.lines}" for module in long) or "none",
        "public names (functions, classes, constants)": f"{names:,}",
        "public methods of public classes": f"{methods:,}",
        "functions and methods": f"{len(functions):,}",
        "parameters of the widest function": f"{widths[widest]} (`{widest}`)",
        f"functions with more than {WIDE} parameters": str(sum(width > WIDE for width in widths.values())),
        "functions that take or return a row as a dict": str(len(functions_with_rows(modules))),
        "functions that take or return some cells of a row as a dict": str(len(functions_with_cells(modules))),
        "functions that take the whole sweep": str(len(swept)),
        "modules with such a function": str(len(set(swept))),
        "lines of the tests": f"{lines_below(checkout / 'tests'):,}",
        "lines of the benchmarks": f"{lines_below(checkout / 'benchmarks'):,}",
    }


def commit_of(checkout: Path) -> str:
    """Return the short name of a checkout's commit, or its folder's name where Git does not know it."""
    found = subprocess.run(
        ["git", "-C", str(checkout), "rev-parse", "--short", "HEAD"],
        capture_output=True, text=True, encoding="utf-8", check=False,
    )  # fmt: skip
    return found.stdout.strip() or checkout.resolve().name


def as_markdown(columns: Mapping[str, Mapping[str, str]]) -> str:
    """Return the sizes as a table, a column for each checkout."""
    rows = [["", *columns], ["---"] * (len(columns) + 1)]
    rows += [[name, *(column[name] for column in columns.values())] for name in next(iter(columns.values()))]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


HEAD = """# Sizes

Made by `python -m benchmarks.sizes` with two checkouts, the older one first; a column is named by its commit. It reads
`autotune/*.py` with Python's `ast`. A row as a dict is one that is annotated `Row`, or a parameter `row` or `rows` that is
annotated as a dict or mapping; some cells of a row (what a stage measured, the settings of a candidate) are those
annotated `Cells`, or a parameter `cells` that is a dict or mapping; the whole sweep is a parameter annotated `Sweep`. Nested functions count; `self` and `cls`
do not. What a program wrote (`probed.py`) counts in its own row only.

"""


def main(arguments: list[str]) -> int:
    """Print the table, or write it. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sizes", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("checkouts", nargs="+", type=Path, metavar="CHECKOUT", help="folder that holds autotune/")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the page here instead of printing the table")
    given = parser.parse_args(arguments)
    table = as_markdown({commit_of(checkout): sizes(checkout) for checkout in given.checkouts})
    if given.out is None:
        print(table, end="")
    else:
        given.out.write_text(HEAD + table, encoding="utf-8", newline="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
