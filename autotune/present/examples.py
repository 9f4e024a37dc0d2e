"""The sweep files of `search_spaces/` as examples that start anywhere: each is written with all that it reads.

The wheel holds `search_spaces/` and the data below `autotune/examples/`, laid out as in the repository (pyproject.toml places
them there); a clone, and an installation that points to one, has the repository itself beside the package.
"""

from __future__ import annotations

import re
import shlex
import shutil
import textwrap
from dataclasses import dataclass
from pathlib import Path

from autotune.durable import write_aside
from autotune.errors import Problem, UsageError, did_you_mean
from autotune.paths import exists, is_file

FIRST = "phrase-tone-cpu"
_PACKAGE = Path(__file__).parent.parent
_DATA = re.compile(r"\bbenchmarks/(\w+/\w+\.jsonl)")
"""A data file, as a sweep file names it from the root of the repository."""
_BESIDE = re.compile(r"\bmetric: (?:lm-eval:(?P<task>[\w/]+\.yaml)|(?P<module>\w+):\w+)")
"""A metric whose file lies beside the sweep file: a task, or a module with a function."""


@dataclass(frozen=True)
class Example:
    """A sweep file that ships."""

    name: str
    about: str
    """Its purpose: the first sentence of its first comment."""
    files: dict[str, str | Path]
    """By relative path: the sweep file and texts beside it, as their content, and data files, as the path that they are copied
    from."""


def find_examples(package: Path = _PACKAGE) -> dict[str, Example]:
    """Return the examples that bring their data, or whose data is on the hub, by name."""
    inside = package / "examples"
    root = inside if inside.is_dir() else package.parent
    found = (_read(file, root) for file in sorted((root / "search_spaces").glob("*.yaml")))
    return {example.name: example for example in found if example is not None}


def _read(file: Path, root: Path) -> Example | None:
    text = file.read_text(encoding="utf-8")
    if "../shared/" in text:  # public data, which only the tests have
        return None
    texts = {file.name: text}
    for beside in _BESIDE.finditer(text):
        name = beside["task"] or f"{beside['module']}.py"
        texts[name] = (file.parent / name).read_text(encoding="utf-8")
    files: dict[str, str | Path] = {}
    for name, content in texts.items():
        files[name] = content.replace("../../benchmarks/", "../") if "/" in name else _DATA.sub(r"\1", content)
        files |= {path: root / "benchmarks" / path for path in _DATA.findall(content)}
    said = re.match(r"(?:#[^\n]*\n)+", text)
    words = " ".join(line.lstrip("# ") for line in (said[0] if said is not None else "").splitlines())
    return Example(file.stem, words.partition(". ")[0].rstrip("."), files)


def _same(path: Path, source: str | Path) -> bool:
    """Whether a data file already has the content that an example would write."""
    return isinstance(source, Path) and is_file(path) and path.read_bytes() == source.read_bytes()


def list_examples() -> list[str]:
    """Return the examples with what each is for, in 80 columns, the README's first, and how one is written."""
    examples = sorted(find_examples().values(), key=lambda example: (example.name != FIRST, example.name))
    wide = max(len(example.name) for example in examples) + 2
    lines = [
        textwrap.fill(example.about, 80, initial_indent=f"{example.name:<{wide}}", subsequent_indent=" " * wide)
        for example in examples
    ]
    return [*lines, "", "Write one with its data: autotune init --example NAME [--out FOLDER]"]


def write_example(name: str, out: Path, force: bool = False) -> list[str]:
    """Write an example's sweep file, and the files that it reads, into a folder. Returns the next steps as text. Raises
    UsageError.
    """
    examples = find_examples()
    if name not in examples:
        remedy = did_you_mean(name, list(examples))
        raise UsageError(Problem("no such example", "--example", value=name, remedy=remedy))
    places = {out / path: source for path, source in examples[name].files.items()}
    there = [path for path, source in places.items() if exists(path) and not _same(path, source)]
    if there and not force:
        raise UsageError(
            Problem("is there already", "--out", str(there[0]), remedy="name another folder, or replace it: --force")
        )
    try:
        for place, source in places.items():
            place.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(source, Path):
                shutil.copyfile(source, place)
            else:
                write_aside(place, source)
    except OSError as error:
        raise UsageError(
            Problem(f"cannot be written ({error.strerror or error})", "--out", str(out), remedy="name another folder")
        ) from None
    file = out / f"{name}.yaml"
    folders = sorted({place.parent for place, source in places.items() if isinstance(source, Path)})
    data = f" and its data in {', '.join(map(str, folders))}" if folders else ""
    return [
        f"{file}{data}",
        f"Next: autotune plan {shlex.quote(str(file))}; then autotune run {shlex.quote(str(file))}",
    ]
