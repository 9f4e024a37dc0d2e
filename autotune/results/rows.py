"""The rows of the tables, typed: `Trial` for results.csv, and one class each for the other tables.

A row holds its cells once, by column. The columns that every table of its kind has are attributes, whose types mypy knows;
the settings and the metrics, whose columns depend on the sweep (`itl_ms_p50@long`), are read by name: `row[name]`,
`number`, `interval`, `cost_s`, `settings`. Only `autotune.results.table` turns cells into text and back.

A row is a class around the cells, and not a TypedDict, because most names of metrics are known only at run time: a
TypedDict takes no such key, and it stays a dict that anybody can write into. A frozen dataclass of all columns would copy
160 cells for each row that is read; an attribute here costs nothing until it is read. `autotune.results.columns` stays the
one list of columns, and a test compares it with the attributes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Any, ClassVar, Final, Generic, NamedTuple, Self, TypeVar, cast, overload

from autotune.analysis.latency import TokenTiming
from autotune.analysis.statistics import Interval
from autotune.metrics import METRICS, beside
from autotune.results.columns import COLUMNS, CURVES, FINALISTS, RUNS, TIMELINE, Cell, Cells, Column

T = TypeVar("T")

SETTINGS = ("lora_", "build_", "session_")
"""The prefixes of columns with a candidate's settings."""


class _Attribute(Generic[T]):
    """A column as an attribute of its row. `type` is what a filled cell holds."""

    type: ClassVar[type]

    def __set_name__(self, owner: Any, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, row: None, owner: Any) -> Self: ...
    @overload
    def __get__(self, row: TableRow, owner: Any) -> T: ...
    def __get__(self, row: TableRow | None, owner: Any) -> Self | T:
        return self if row is None else self._of(row.cells.get(self.name))

    def _of(self, cell: Cell) -> T:
        return cast("T", cell)


class Name(_Attribute[str]):
    """A text that every row has; empty in a damaged table only."""

    type = str

    def _of(self, cell: Cell) -> str:
        return "" if cell is None else str(cell)


class Text(_Attribute[str | None]):
    """A text, or None."""

    type = str


class Whole(_Attribute[int | None]):
    """A whole number, or None."""

    type = int


class Number(_Attribute[float | None]):
    """A number, or None."""

    type = float


class Flag(_Attribute[bool | None]):
    """True or false, or None."""

    type = bool


class Layout(NamedTuple):
    """The meaning of the columns of a header, computed once for all rows with that header."""

    metrics: tuple[tuple[str, str, str, str], ...]
    """Each metric, those of workloads last, with the columns of its interval's two ends and of its count, see `behind`."""
    sessions: tuple[str, ...]
    """The columns of a session's settings, in order."""


@lru_cache(maxsize=256)
def layout_of(header: tuple[str, ...]) -> Layout:
    """Return the meaning of the columns of a header."""
    names = [*METRICS, *(name for name in header if "@" in name and name in METRICS)]
    metrics = ((name, beside(name, "low"), beside(name, "high"), behind(name)) for name in names)
    return Layout(tuple(metrics), tuple(sorted(name for name in header if name.startswith("session_"))))


def behind(metric: str) -> str:
    """Return the column with the count behind a metric: items of a score, or processes of a timing."""
    return f"{metric}_n" if METRICS[metric].kind == "score" else "processes" + "".join(metric.partition("@")[1:])


def layout_of_rows(rows: Sequence[TableRow]) -> Layout:
    """Return the meaning of all columns that some of the rows have."""
    return layout_of(tuple(dict.fromkeys(name for header in _headers(rows) for name in header)))


def _headers(rows: Sequence[TableRow]) -> list[tuple[str, ...]]:
    """Return the different headers of rows."""
    headers: list[tuple[str, ...]] = []
    last: list[str] = []
    for row in rows:
        names = list(row.cells)
        if names != last:  # neighbours nearly always share a header, and hashing each one would take longer
            last = names
            headers.append(tuple(names))
    return list(dict.fromkeys(headers))


def measured_in(rows: Sequence[TableRow]) -> dict[str, tuple[Cell, ...]]:
    """Return the metrics that some of the rows have measured, those of workloads last, each with the cells of all rows."""
    names = [name for name, *_ in layout_of_rows(rows).metrics]
    columns = zip(names, cells_of(rows, names), strict=True)
    return {name: column for name, column in columns if column.count(None) < len(column)}


def cells_of(rows: Sequence[TableRow], names: Sequence[str]) -> list[tuple[Cell, ...]]:
    """Return the cells of several columns [column][row]; None where a row has no such column.

    It reads each row once for all columns, because column by column it would take several times as long.
    """
    headers = _headers(rows)
    if len(headers) != 1:
        return [tuple(row.cells.get(name) for row in rows) for name in names]
    there = [name for name in dict.fromkeys(names) if name in headers[0]]
    pick = itemgetter(*there, *headers[0][:2]) if there else None  # of two or more it gives a tuple
    columns = dict(zip(there, zip(*(pick(row.cells) for row in rows), strict=True), strict=False)) if pick else {}
    return [columns.get(name) or (None,) * len(rows) for name in names]


def served_as(graph: Cell, session: Iterable[tuple[str, Cell]]) -> str | None:
    """Return the name of a graph with the given settings of its session, to which a timing belongs. None: it has no graph."""
    if graph is None:
        return None
    return " ".join([str(graph), *(f"{name}={value}" for name, value in session if value is not None)])


class TableRow:
    """An immutable row of a table: its cells by column."""

    __slots__ = ("cells",)

    columns: ClassVar[tuple[Column, ...]] = ()
    """The columns of its table."""

    def __init__(self, cells: Mapping[str, Cell]) -> None:
        self.cells: Final = cells

    def __getitem__(self, column: str) -> Cell:
        """Return a cell by the name of its column; None where it is empty or the table has no such column."""
        return self.cells.get(column)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and isinstance(other, TableRow) and self.filled() == other.filled()

    __hash__ = None  # type: ignore[assignment]
    __iter__ = None  # its cells are `cells`

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.filled()})"

    def filled(self) -> Cells:
        """Return the cells that are not empty."""
        return {name: value for name, value in self.cells.items() if value is not None}

    def __or__(self, cells: Mapping[str, Cell]) -> Self:
        """Return the row with some cells replaced."""
        return type(self)({**self.cells, **cells})

    def number(self, column: str) -> float | None:
        """Return the cell of a column that holds numbers, such as a metric's."""
        return cast("float | None", self.cells.get(column))


class Measured(TableRow):
    """A row with metrics: of a candidate, or of a finalist."""

    __slots__ = ()

    candidate = Name()
    graph = Text()
    load_avg = Number()
    foreign_cpu = Number()
    cpu_mhz = Number()
    gpu_processes = Number()
    threads = Whole()
    processes = Whole()
    prompts_cut = Whole()

    @property
    def layout(self) -> Layout:
        """The meaning of its columns."""
        return layout_of(tuple(self.cells))

    @property
    def metrics(self) -> list[str]:
        """The names of the metrics that it may have, those of workloads last."""
        return [name for name, *_ in self.layout.metrics]

    @property
    def values(self) -> dict[str, float]:
        """The metrics that it has measured."""
        return {name: float(value) for name in self.metrics if (value := self.number(name)) is not None}

    def interval(self, metric: str) -> Interval | None:
        """Return the 95 % interval of a metric, where it has one."""
        low, high = self.number(beside(metric, "low")), self.number(beside(metric, "high"))
        return None if low is None or high is None else Interval(float(low), float(high))

    def behind(self, metric: str) -> int | None:
        """Return the count behind a metric: items of a score, or processes of a timing."""
        count = self.cells.get(behind(metric))
        return None if count is None else int(count)

    @property
    def timing(self) -> TokenTiming:
        """The time between tokens in the sweep's first workload, with the load of the machine during the timing."""
        return TokenTiming.of(self.cells)


class Trial(Measured):
    """A row of results.csv: one attempt at a candidate, the untouched model included (`trial` 0)."""

    __slots__ = ()
    columns = COLUMNS

    trial = Whole()
    attempt = Whole()
    kind = Name()
    status = Name()
    error = Text()
    started = Text()
    ended = Text()
    adapter = Text()
    train_steps = Whole()
    train_loss = Number()
    cached = Text()
    wall_s = Number()
    score_name = Text()
    score_direction = Text()
    kl_nats = Number()
    greedy_agreement = Number()
    check_items = Whole()
    pace = Text()
    rung = Number()
    items = Whole()
    probability = Number()
    train_cut = Whole()
    target = Text()
    merged = Text()
    built = Text()
    warm_up_s = Number()
    provider_share = Number()

    @property
    def settings(self) -> Cells:
        """The cells of the candidate's settings: `lora_*`, `build_*`, `session_*`."""
        return {name: value for name, value in self.cells.items() if name.startswith(SETTINGS)}

    @property
    def served_as(self) -> str | None:
        """The name of its graph with the settings of its session, see `served_as`: rows with the same name share a timing."""
        return served_as(self.cells.get("graph"), ((name, self[name]) for name in self.layout.sessions))

    def cost_s(self, stage: str) -> float | None:
        """Return the seconds that it spent on a stage (`train`, `build`, ...); None where the stage did not run."""
        return self.number(f"cost_{stage}_s")


class Finalist(Measured):
    """A row of finalists.csv."""

    __slots__ = ()
    columns = FINALISTS

    role = Name()
    split = Text()
    itl_ratio = Number()
    itl_ratio_low = Number()
    itl_ratio_high = Number()
    rounds = Whole()
    noise_floor = Number()
    verified = Flag()
    verified_items = Whole()
    verify_error = Text()
    target = Text()


class CurvePoint(TableRow):
    """A row of curves.csv: the loss of one step, or a score at it."""

    __slots__ = ()
    columns = CURVES

    adapter = Name()
    step = Whole()
    train_loss = Number()
    learning_rate = Number()
    metric = Text()
    score = Number()
    score_n = Whole()


class CommandRun(TableRow):
    """A row of runs.csv: one run of the command."""

    __slots__ = ()
    columns = RUNS

    started = Text()
    wall_s = Number()
    stages_s = Number()
    trials = Whole()
    ended = Text()
    rows = Whole()


class StageSpan(TableRow):
    """A row of timeline.csv: when a stage ran."""

    __slots__ = ()
    columns = TIMELINE

    stage = Name()
    began = Number()
    ended = Number()
    alone = Flag()
    host = Text()
    result = Text()
    moved_mb = Number()
