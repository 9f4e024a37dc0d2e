"""The classes of rows and the lists of columns say the same, and a row gives its cells with their types."""

from __future__ import annotations

import ast
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotune.analysis.statistics import Interval
from autotune.metrics import METRICS
from autotune.results.columns import COLUMNS, STAGES, Cell, Column
from autotune.results.rows import (
    SETTINGS,
    CommandRun,
    CurvePoint,
    Finalist,
    Measured,
    StageSpan,
    TableRow,
    Trial,
    _Attribute,
    cells_of,
    measured_in,
)
from autotune.results.table import Table, read_table
from benchmarks.sizes import functions_with_rows, modules_of

OF_DATA_FILES = [
    "data.content.outer_of", "data.content.lifted", "data.formats._mostly_messages", "data.guess._holder",
    "data.labels.label_lines", "data.labels.label_notes", "data.labels._placeholders", "data.labels._quoted",
    "data.labels._padded", "data.labels._whole_numbers", "data.labels._several_in_one", "data.labels._misspelt",
    "data.recognised.row_for_header", "data.templates.render",
]  # fmt: skip
"""What the counter finds and is no row of a table of results: a row of a user's data, and numbers of such rows by label."""
ROOT = Path(__file__).parents[2]
KINDS = (Trial, Finalist, CurvePoint, CommandRun, StageSpan)
PARTS = {"", "low", "high", "n"}


def attributes(kind: type[TableRow]) -> dict[str, type]:
    """Return the columns that are attributes of a class, with their types."""
    found = ((name, value) for one in kind.__mro__ for name, value in vars(one).items())
    return {name: value.type for name, value in found if isinstance(value, _Attribute)}


def read_by_name(column: Column) -> bool:
    """Whether a column varies with the sweep: a setting, a cost, a metric or what stands beside one."""
    beside = {
        name: column.name.removeprefix(name).removeprefix("_") for name in METRICS if column.name.startswith(name)
    }
    costs = {f"cost_{stage}_s" for stage in STAGES}
    return column.name.startswith(SETTINGS) or column.name in costs or bool(set(beside.values()) & PARTS)


@pytest.mark.parametrize("kind", KINDS)
def test_each_column_is_an_attribute_or_is_read_by_its_name(kind: type[TableRow]) -> None:
    """A column that is appended to the list needs its attribute, unless it is a setting, a metric or a cost."""
    by_name = {column.name for column in kind.columns if issubclass(kind, Measured) and read_by_name(column)}
    fixed = {column.name: column.type for column in kind.columns if column.name not in by_name}
    assert attributes(kind) == fixed


def test_a_row_gives_its_cells_with_their_types() -> None:
    row = Trial({"candidate": "a", "trial": 0, "error": None, "lora_r": 8, "accuracy": 0.5, "accuracy_low": 0.4,
                 "accuracy_high": 0.6, "accuracy_n": 100, "itl_ms_p50@long": 4.0, "processes@long": 7,
                 "cost_train_s": 2.5})  # fmt: skip
    assert (row.candidate, row.trial, row.status, row.error, row.rung) == ("a", 0, "", None, None)
    assert (row["lora_r"], row["nothing"], row.number("accuracy")) == (8, None, 0.5)
    assert row.settings == {"lora_r": 8}
    assert row.values == {"accuracy": 0.5, "itl_ms_p50@long": 4.0}
    assert row.interval("accuracy") == Interval(0.4, 0.6)
    assert row.interval("f1") is None
    assert (row.behind("accuracy"), row.behind("itl_ms_p50@long"), row.behind("itl_ms_p50")) == (100, 7, None)
    assert (row.cost_s("train"), row.cost_s("build")) == (2.5, None)


def test_a_row_does_not_change() -> None:
    row = Trial({"candidate": "a", "trial": 1})
    again = row | {"trial": None, "attempt": 2}
    assert (row.trial, again.trial, again.attempt) == (1, None, 2)
    assert again == Trial({"candidate": "a", "attempt": 2})
    assert again != Finalist({"candidate": "a", "attempt": 2})
    with pytest.raises(AttributeError):
        row.trial = 3  # type: ignore[assignment, misc]
    with pytest.raises(TypeError):
        list(row)  # type: ignore[call-overload]


VALUES: dict[type, st.SearchStrategy[Cell]] = {
    str: st.text("abc=-@'é", min_size=1, max_size=5),
    int: st.integers(2, 10**9),  # a column may want as many
    float: st.floats(0.001, 1),
    bool: st.booleans(),
}


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_any_row_of_all_columns_comes_back_as_it_was(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    for kind in KINDS:
        key = kind.columns[0].name
        drawn = st.fixed_dictionaries({}, optional={column.name: VALUES[column.type] for column in kind.columns})
        row = kind({key: "a"} | data.draw(drawn))
        table = Table(tmp_path_factory.mktemp("rows") / "t.csv", kind)
        table.append(row)
        (back,) = read_table(table.file, kind)
        assert back == row
        for name, type_ in attributes(kind).items():
            value = getattr(back, name)
            assert value == (row[name] if row[name] is not None else "" if value == "" else None)
            assert value is None or isinstance(value, type_)


def test_no_function_takes_or_returns_a_row_as_a_dict() -> None:
    found = functions_with_rows(module for module in modules_of(ROOT) if not module.generated)
    assert found == OF_DATA_FILES


def test_fixed_columns_are_read_as_attributes() -> None:
    """A column that has an attribute is not read by its name in the package: mypy would not know the type."""
    fixed = set(attributes(Trial)) | set(attributes(Finalist))
    found = [
        f"{module.name}:{node.lineno}: {ast.unparse(node)}"
        for module in modules_of(ROOT)
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Subscript)
        and isinstance(node.value, ast.Name)
        and node.value.id in ("row", "winner", "base")
        and isinstance(node.slice, ast.Constant)
        and node.slice.value in fixed
    ]
    assert found == [], f"read these of {len(COLUMNS)} columns as attributes"


@pytest.mark.parametrize("seed", range(20))
def test_cells_of_many_rows_are_those_of_each(seed: int) -> None:
    """Whatever headers rows have: the same one, or each another."""
    draw = random.Random(seed)
    names = ["candidate", "accuracy", "accuracy_low", "f1", "itl_ms_p50", "itl_ms_p50@long", "size_mb", "graph"]
    same = draw.sample(names, draw.randrange(1, len(names)))
    rows = [
        Trial({name: draw.choice([None, 0, 0.5]) for name in (same if seed % 2 else draw.sample(names, 3))})
        for _ in range(draw.choice([0, 1, 2, 30]))
    ]
    wanted = draw.choices(names, k=draw.randrange(6))
    assert cells_of(rows, wanted) == [tuple(row[name] for row in rows) for name in wanted]
    measured = measured_in(rows)
    assert set(measured) == {name for row in rows for name in row.values}
    assert all(column == tuple(row[name] for row in rows) for name, column in measured.items())
