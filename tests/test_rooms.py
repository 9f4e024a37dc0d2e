"""The picture of the rooms and the sizes of the package are those of the code that is read."""

import ast
from pathlib import Path

import pytest

from benchmarks import rooms
from benchmarks.sizes import LONG, as_markdown, main, modules_of, sizes

MODULES = {
    "__init__.py": "",
    "table.py": '"""Rows."""\n\nRow = dict[str, int]\n\n\ndef keep(row: Row) -> None: ...\n\n\ndef _hide(name: str) -> None: ...\n',
    "words.py": '"""Names."""\n\n\nclass Row:\n    """Not a dict."""\n\n\ndef read(row: Row) -> Row: ...\n',
    "loop.py": (
        "from autotune.table import Row\nLIMIT: int = 3\n\n\nclass Loop:\n"
        "    def __init__(self, sweep: 'Sweep', rows: list[Row]) -> None: ...\n\n"
        "    def run(self, a: int, *more: int, c: int = 0, **d: int) -> Row:\n"
        "        def inner(sweep: Sweep | None) -> None: ...\n"
    ),
    "made.py": '"""Made by a program."""\n' + "X = 1\n" * 500,
    "long.py": '"""Long."""\n' + "X = 1\n" * 400,
    "edge.py": '"""Just short enough."""\n' + "X = 1\n" * 399,
}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a checkout whose sizes are known."""
    package = tmp_path / "autotune"
    package.mkdir()
    for name, text in MODULES.items():
        (package / name).write_text(text, encoding="utf-8")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_it.py").write_text("1\n2\n", encoding="utf-8")
    return tmp_path


def test_sizes_are_counted_from_the_source(checkout: Path) -> None:
    found = sizes(checkout)
    assert found["lines that a program wrote"] == "501"
    assert found["modules over 400 lines"] == "1"
    assert found["which"] == "`long` 401"
    assert found["functions and methods"] == "6"
    assert found["public names (functions, classes, constants)"] == "8"  # Row, keep; Row, read; LIMIT, Loop; X; X
    assert found["public methods of public classes"] == "1"
    assert found["parameters of the widest function"] == "4 (`loop.Loop.run`)"
    assert found["functions that take or return a row as a dict"] == "3"  # the class Row of `words` is no dict
    assert found["functions that take the whole sweep"] == "2"
    assert found["modules with such a function"] == "1"
    assert found["lines of the tests"] == "2"
    assert found["lines of the benchmarks"] == "0"


def test_each_checkout_has_a_column(checkout: Path, tmp_path: Path) -> None:
    page = tmp_path / "sizes.md"
    assert main([str(checkout), ".", "--out", str(page)]) == 0
    table = [line for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    assert {line.count(" | ") for line in table[2:]} == {2}
    assert (
        as_markdown({"a": {"lines": "1"}, "b": {"lines": "2"}})
        == "|  | a | b |\n| --- | --- | --- |\n| lines | 1 | 2 |\n"
    )


def test_a_folder_without_the_package_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"no package autotune/ in it"):
        main([str(tmp_path)])


def test_a_long_module_says_why_it_is_one() -> None:
    for module in modules_of(rooms.PACKAGE.parent):
        if module.lines > LONG and not module.generated:
            head = " ".join((ast.get_docstring(module.tree) or "").split())
            assert "It is one module because" in head, f"{module.name}: {module.lines} lines; say why, or split it"


def test_an_arrow_that_a_longer_way_replaces_is_left_out() -> None:
    arrows = {"a": {"b", "c", "d"}, "b": {"c"}, "c": set[str](), "d": {"c"}}
    assert rooms._reduced(arrows) == {"a": {"b", "d"}, "b": {"c"}, "c": set(), "d": {"c"}}


def test_every_module_is_listed_and_every_room_drawn() -> None:
    listed, drawn = rooms.module_list(), rooms.picture()
    for name in rooms.read_modules():
        room, _, inner = name.partition(".")
        if not rooms.PACKAGE.joinpath(*name.split(".")).is_dir():
            assert f"`{inner.replace('.', '/') or room}` " in listed
    names = [line.split(" | ")[0] for line in listed.splitlines()]
    assert len(set(names)) == len(names)  # two rooms were called `what every room shares`
    for room in (name for level in rooms.ROOMS for name in level if name != "__main__"):
        assert f"{room}/" in drawn if (rooms.PACKAGE / room).is_dir() else f"{room}.py" in drawn


def test_what_the_picture_leaves_out_can_be_reached() -> None:
    """Every import between rooms is an arrow, or a way along arrows."""
    lines = [line.split(" --> ") for line in rooms.picture().splitlines() if "-->" in line]
    arrows = [(begin.strip(), end) for begin, end in lines]
    nodes = rooms._nodes()
    ways = set(arrows)
    for _ in nodes:
        ways |= {(begin, end) for begin, middle in ways for other, end in arrows if middle == other}
    for name, others in rooms.imports_within(rooms.read_modules()).items():
        for other in others:
            pair = nodes[name.split(".")[0]], nodes[other.split(".")[0]]
            assert pair[0] == pair[1] or pair in ways
