"""The record of a sweep: `results.csv`, the public interface of dashboards and the state of the search.

One table of columns decides header, order, types and documentation. Rows are appended, flushed and synced; a line that
a power cut left half-written is dropped when the file is opened again.
"""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from autotune.candidate import Lora, Recipe, Session
from autotune.errors import Problem, UsageError
from autotune.metrics import METRICS, PER_WORKLOAD
from autotune.paths import exists, is_file
from autotune.space import LORA, RECIPE, SESSION

Cell = str | int | float | bool | None
Row = dict[str, Cell]

STATUSES = {
    "ok": "fully measured; whether it keeps the limits is judged on reading",
    "over_limit": "given up unmeasured, because a limit was certain to break",
    "stopped": "left by the strategy at a rung or on some of the items, and perhaps taken up again later",
    "diverged": "the training loss or the weights became infinite or not a number",
    "out_of_memory": "the machine's memory or the GPU's did not suffice",
    "timeout": "a stage ran past its time",
    "failed": "a stage failed, or built something else than was asked",
    "unsupported": "the builder, the runtime or the model cannot do this",
    "lost": "a worker was lost through no fault of the candidate; it is tried again",
}


@dataclass(frozen=True)
class Column:
    """One column of a table: its type is what a filled cell holds."""

    name: str
    type: type
    meaning: str
    low: float = -math.inf
    high: float = math.inf
    """What a number may be: from `low` to `high`."""


def _settings() -> list[Column]:
    lora = [Column(f"lora_{name}", LORA[name].type, LORA[name].meaning) for name in Lora.model_fields]
    return lora + [Column(f"build_{name}", RECIPE[name].type, RECIPE[name].meaning) for name in Recipe.model_fields]


FIRST_SCORES = ("accuracy", "exact_match", "f1", "perplexity")
"""Scores whose columns stand beside each other; those that came later are at the end."""


def _scores(first: bool) -> list[Column]:
    columns = []
    for metric in METRICS.values():
        if metric.kind == "score" and (metric.name in FIRST_SCORES) == first:
            low = -math.inf if metric.turns else 0.0
            high = 1.0 if metric.name in _PROPORTIONS else math.inf
            columns += [
                Column(metric.name, float, f"{metric.meaning}, on validation", low, high),
                Column(f"{metric.name}_low", float, "lower end of its 95 % interval", low, high),
                Column(f"{metric.name}_high", float, "upper end of its 95 % interval", low, high),
                Column(f"{metric.name}_n", int, "items behind it", 1, 1e9),
            ]
    return columns


_PROPORTIONS = ("accuracy", "exact_match", "f1", "f1_micro", "rouge_l")


LATENCY = (
    Column("ttft_ms_p50", float, METRICS["ttft_ms_p50"].meaning),
    Column("ttft_ms_p90", float, METRICS["ttft_ms_p90"].meaning + "; empty below 64 samples"),
    Column("itl_ms_p50", float, METRICS["itl_ms_p50"].meaning + " (mean over processes of each one's median)"),
    Column("itl_ms_p50_low", float, "lower end of its 95 % interval over processes"),
    Column("itl_ms_p50_high", float, "upper end of its 95 % interval over processes"),
    Column("itl_ms_p90", float, METRICS["itl_ms_p90"].meaning + "; empty below 64 samples"),
    Column("decode_tps", float, METRICS["decode_tps"].meaning),
    Column("graph", str, "signature of the ONNX graph without its weights, that the latency belongs to"),
    Column("size_mb", float, METRICS["size_mb"].meaning),
    Column("peak_memory_mb", float, METRICS["peak_memory_mb"].meaning),
    Column("load_s", float, METRICS["load_s"].meaning),
)

CONDITIONS = (
    Column("load_avg", float, "load average of the last minute when it was timed, mean over processes", 0.0),
    Column("foreign_cpu", float, "cores that other programs kept busy meanwhile, mean over processes", 0.0),
    Column("cpu_mhz", float, "clock of the processor when it was timed, as far as the system tells, MHz", 0.0),
    Column("gpu_processes", float, "other processes on the GPU when it was timed, mean over processes", 0.0),
)

SERVED = (
    Column("gpu_memory_mb", float, METRICS["gpu_memory_mb"].meaning + "; empty where no NVIDIA GPU serves it"),
    Column(
        "threads", int, "threads that one operator was shared among, as counted in the process that was timed (CPU)", 1
    ),
)

STAGES = {
    "train": "training",
    "merge": "merging",
    "build": "building",
    "score": "scoring",
    "time": "timing",
    "check": "checking",
}
"""The stages whose cost a row has, and what they do."""

COLUMNS: tuple[Column, ...] = (
    Column("candidate", str, "digest of the settings: the candidate's name"),
    Column(
        "trial",
        int,
        "number of the trial in this sweep, from 1; `stopped` is on the way to the trial of its number, and counts as none; 0: the untouched model, which limits refer to: at fp32, or what is most exact on the provider",
        0,
    ),
    Column("attempt", int, "number of the attempt at this candidate, from 1; the last one counts"),
    Column("kind", str, "base: the untouched model in a recipe; adapter: without a recipe; pair: adapter and recipe"),
    Column("status", str, "; ".join(f"{name}: {meaning}" for name, meaning in STATUSES.items())),
    Column("error", str, "one line, where the status is not ok"),
    Column("started", str, "ISO 8601, UTC"),
    Column("ended", str, "ISO 8601, UTC"),
    *_settings(),
    *_scores(first=True),
    *LATENCY,
    Column("adapter", str, "key of the adapter in the cache"),
    Column("train_steps", int, "optimiser steps done"),
    Column("train_loss", float, "training loss over the last tenth of the steps, nats a token"),
    *(
        Column(f"cost_{stage}_s", float, f"seconds that this row spent on {what}; empty where it came from the cache")
        for stage, what in STAGES.items()
        if stage != "check"
    ),
    Column("cached", str, "stages whose result was there already, joined by +"),
    Column("wall_s", float, "wall-clock of this attempt, seconds, whatever the clock of the machine said"),
    *_scores(first=False),
    Column("score_name", str, "what custom or lm_eval stands for: module:function, or lm-eval:task"),
    Column("score_direction", str, "maximize or minimize: which way custom or lm_eval is better in this sweep"),
    Column(
        "kl_nats", float, "mean KL divergence of the build's next-token distributions from PyTorch's, nats a token", 0
    ),
    Column("greedy_agreement", float, "share of positions with the same most likely token as in PyTorch", 0, 1),
    Column("check_items", int, "held-out texts on which the build was compared with PyTorch", 1),
    Column(
        "cost_check_s", float, f"seconds that this row spent on {STAGES['check']}; empty where it came from the cache"
    ),
    Column("pace", str, "machine, and its pace, at which the row was timed: only timings of one pace are compared"),
    *CONDITIONS,
    *SERVED,
    *(
        Column(f"session_{name}", SESSION[name].type, f"{SESSION[name].meaning}; empty: as the target says")
        for name in Session.model_fields
    ),
    Column("rung", float, "share of its steps that the adapter was trained to; empty: all", 0, 1),
    Column("items", int, "validation items that the strategy asked for; empty: all", 0),
    Column(
        "probability",
        float,
        "mean probability of the right label on validation, where the metric chooses among labels: it ranks adapters before they are trained to the end",
        0,
        1,
    ),
)
"""Of every sweep; one with several workloads has more behind them, see `with_workloads`."""

FINALISTS: tuple[Column, ...] = (
    Column(
        "role",
        str,
        "winner: the model in best/; base: the untouched model; rival: near the winner in latency, and timed only",
    ),
    Column("candidate", str, "as in results.csv"),
    Column("split", str, "the items of the scores: test"),
    *(replace(c, meaning=c.meaning.replace("on validation", "on test")) for c in _scores(first=True)),
    *LATENCY,
    *(replace(c, meaning=c.meaning.replace("on validation", "on test")) for c in _scores(first=False)),
    *SERVED,
    *CONDITIONS,
    Column("itl_ratio", float, "time between tokens over the untouched model's, timed in turns", 0.0),
    Column("itl_ratio_low", float, "lower end of its 95 % interval over rounds", 0.0),
    Column("itl_ratio_high", float, "upper end of its 95 % interval over rounds", 0.0),
    Column("rounds", int, "rounds of the timing in turns: one fresh process of each finalist a round", 2),
    Column(
        "noise_floor",
        float,
        "share by which the winner's time between tokens may seem to differ from itself (A/A, timed in turns)",
        0.0,
    ),
)

CURVES: tuple[Column, ...] = (
    Column("adapter", str, "key of the adapter in the cache"),
    Column("step", int, "optimiser steps done"),
    Column("train_loss", float, "training loss of this step, nats a token"),
    Column("learning_rate", float, "learning rate of this step"),
    Column("metric", str, "name of the score, where the adapter was scored at this step"),
    Column("score", float, "that score on validation"),
    Column("score_n", int, "items behind it"),
)


def _of_workload(name: str) -> Column | None:
    """Return the column of one metric in a workload (`itl_ms_p50@long`), or of an end of its interval; None for others."""
    plain, at, workload = name.partition("@")
    metric = plain.removesuffix("_low").removesuffix("_high")
    column = next((column for column in (*LATENCY, *SERVED) if column.name == plain), None)
    if column is None or metric not in PER_WORKLOAD or f"{metric}{at}{workload}" not in METRICS:
        return None
    return replace(column, name=name, meaning=f"{column.meaning}, in the workload {workload}") if at else None


def with_workloads(columns: Sequence[Column], names: Iterable[str]) -> tuple[Column, ...]:
    """Return the columns, and behind them those among `names` that hold a metric in one of several workloads."""
    known = {column.name for column in columns}
    more = (_of_workload(name) for name in dict.fromkeys(names) if name not in known)
    return (*columns, *filter(None, more))


def workload_names(suffix: str) -> list[str]:
    """Return the names of a workload's columns; `suffix` is `@long`."""
    names = [column.name for column in (*LATENCY, *SERVED)]
    return [name + suffix for name in names if suffix and _of_workload(name + suffix)]


def in_workload(cells: Mapping[str, Cell], suffix: str) -> Row:
    """Return the cells of a timing under a workload's names; `suffix` is `@long`, or empty for a sweep's first."""
    if not suffix:
        return dict(cells)
    return {name: cells[plain] for name in workload_names(suffix) if (plain := name.removesuffix(suffix)) in cells}


class Trials:
    """The trials that were done, by the last attempt at each candidate: what was stopped on the way to a trial is none,
    though a worker was lost at it before.
    """

    def __init__(self, rows: Iterable[Mapping[str, Cell]] = ()) -> None:
        self._done: dict[int, Cell] = {}
        """By number the candidate that it was."""
        for row in rows:
            self.learn(row)

    def __len__(self) -> int:
        return len(self._done)

    @property
    def last(self) -> int:
        """The highest number; 0 where there is none."""
        return max(self._done, default=0)

    def learn(self, row: Mapping[str, Cell]) -> None:
        """Take in a row, which counts more than those before it."""
        trial, name = int(row["trial"] or 0), row["candidate"]
        if trial and row["status"] != "stopped":
            self._done[trial] = name
        elif self._done.get(trial) == name:
            del self._done[trial]


def rounded(row: Mapping[str, Cell]) -> Row:
    """Return measured numbers at six significant digits, so that what is kept in memory is what a file gives back.

    A number that is not finite was not measured. Settings (`lora_*`, `build_*`) stay as they are: they name the
    candidate. (Those of sessions have no fractions.)
    """
    return {
        name: _six_digits(value) if isinstance(value, float) and not name.startswith(("lora_", "build_")) else value
        for name, value in row.items()
    }


def _six_digits(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None


_RUN_BY_SPREADSHEETS = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")  # the last four are full-width
_PASSED_OVER = "'" + "".join(map(chr, range(32))) + "\x7f\ufeff"


def _runs(text: str) -> bool:
    """Whether a spreadsheet may take a text for a formula."""
    return text.lstrip(_PASSED_OVER).startswith(_RUN_BY_SPREADSHEETS)


def text_of(value: Cell) -> str:
    """Return a cell as text: empty where nothing was measured, never nan or inf."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    text = " ".join(str(value).split())
    # A spreadsheet runs a cell that begins so: a leading quote makes it text.
    if isinstance(value, str) and _runs(text):
        return f"'{text}"
    return text


def _parsed(text: str, column: Column) -> Cell:
    """Return what a cell holds: the inverse of `text_of`. Raises ValueError, KeyError."""
    kind = column.type
    if text == "":
        return None
    if kind is bool:
        return {"true": True, "false": False}[text.lower()]  # a spreadsheet writes TRUE
    if kind is str:
        return text[1:] if text[0] == "'" and _runs(text) else text
    value: int | float = kind(text)
    if not column.low <= value <= column.high or (kind is int and abs(value) >= 2**63):
        raise ValueError(text)
    return value


def _bounds(column: Column) -> str:
    """Return what a column's cells must be, in words."""
    name = _TYPE_NAMES[column.type]
    if math.isfinite(column.high):
        return f"{name} from {column.low:g} to {column.high:g}"
    return f"{name} of at least {column.low:g}" if math.isfinite(column.low) else name


def read_table(file: Path, columns: Sequence[Column]) -> list[Row]:
    """Return the rows of a table; a last line without its end is left out.

    Columns of workloads are known by their names; those that are not ours stay texts as they are. Raises UsageError where the file is not such a table.
    """
    try:
        if exists(file) and not is_file(file):  # a device, or a pipe, may have no end
            raise OSError("it is no file")
        content = file.read_bytes()
        text = content[: content.rfind(b"\n") + 1].decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = "it is no UTF-8 text" if isinstance(error, UnicodeDecodeError) else error.strerror or str(error)
        rule = f"cannot be read as a results table ({reason})"
        raise UsageError(Problem(rule, file=str(file), remedy="name a results folder or its results.csv")) from None
    reader = csv.reader(io.StringIO(text, newline=""))
    rows: list[Row] = []
    try:
        header = next(reader, [])
        ours = {column.name: column for column in with_workloads(columns, header)}
        if header and columns[0].name not in header:
            rule = f"is not a results table: it has no column '{columns[0].name}'"
            raise UsageError(Problem(rule, file=str(file), remedy="name a results folder or its results.csv"))
        if len(set(header)) < len(header):
            twice = next(name for name in header if header.count(name) > 1)
            rule, remedy = f"has the column '{twice}' twice", "restore the file or remove the column"
            raise UsageError(Problem(rule, file=str(file), remedy=remedy))
        for cells in reader:
            if not cells:  # an empty line
                continue
            if len(cells) != len(header):
                rule = f"a row has {len(cells)} cells, and the header {len(header)}"
                raise UsageError(
                    Problem(rule, file=str(file), line=reader.line_num, remedy="restore the file or remove the line")
                )
            row: Row = {}
            for name, cell in zip(header, cells, strict=True):
                try:
                    row[name] = _parsed(cell, ours[name]) if name in ours else cell or None
                except (ValueError, KeyError):
                    rule = f"must be {_bounds(ours[name])}"
                    raise UsageError(
                        Problem(rule, name, str(file), reader.line_num, cell, "restore the file")
                    ) from None
            rows.append(row)
    except csv.Error as error:
        rule, remedy = f"is not a CSV file ({error})", "restore the file or remove the line"
        raise UsageError(Problem(rule, file=str(file), line=reader.line_num, remedy=remedy)) from None
    return rows


_TYPE_NAMES = {str: "text", int: "whole number", float: "number", bool: "true or false"}


def _line(values: Sequence[str]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(values)
    return buffer.getvalue()


class Table:
    """An append-only CSV file. Opening it repairs a half-written end and adds columns that are new.

    Raises UsageError where the file is not such a table, OSError where it cannot be written.
    """

    def __init__(self, file: Path, columns: Sequence[Column]) -> None:
        self.file = file
        self.columns = columns
        self._names = [column.name for column in columns]
        self._ours = frozenset(self._names)
        self._waiting: list[str] = []
        self.rows: list[Row] = []
        """All rows: those of the file, and those added since without their empty cells; who needs them no more may clear this."""
        if file.exists() and file.stat().st_size:
            self._repair()
            self.rows = read_table(file, columns)
            self._adopt_header()
        else:
            self._append(_line(self._names))

    def _repair(self) -> None:
        with self.file.open("rb+") as stream:
            content = stream.read()
            whole = content.rfind(b"\n") + 1
            if whole < len(content):
                stream.truncate(whole)

    def _adopt_header(self) -> None:
        """Keep the file's order; new columns go to the end, and the file is then rewritten once."""
        with self.file.open(encoding="utf-8-sig", newline="") as stream:
            header = next(csv.reader(stream), [])
        new = [name for name in self._names if name not in header]
        self._names = [*header, *new]
        if new:
            self.rows = [{name: row.get(name) for name in self._names} for row in self.rows]
            self._rewrite()

    def _rewrite(self) -> None:
        aside = self.file.with_name(f"{self.file.name}.new")
        lines = [_line(self._names), *map(self._text, self.rows)]
        aside.write_text("".join(lines), encoding="utf-8", newline="")
        aside.replace(self.file)

    def _text(self, row: Mapping[str, Cell]) -> str:
        """Return a row as a line; what stands in columns that are not ours is left as it is."""
        cells = ((name, row.get(name)) for name in self._names)
        return _line([text_of(value) if name in self._ours else str(value or "") for name, value in cells])

    def append(self, row: Mapping[str, Cell]) -> Row:
        """Write a row so that it survives a power cut; while the file cannot be written, rows wait for the next try.

        Returns the row as it is kept in memory, without its empty cells.
        """
        kept = self.add(row)
        self.flush()
        return kept

    def add(self, row: Mapping[str, Cell]) -> Row:
        """Add a row that the next `flush` writes. Returns as `append`."""
        unknown = set(row) - set(self._names)
        if unknown:
            raise KeyError(f"{self.file.name} has no column {', '.join(sorted(unknown))}")
        kept: Row = {name: value for name, value in row.items() if value is not None}
        self.rows.append(kept)
        self._waiting.append(self._text(row))
        return kept

    def flush(self) -> bool:
        """Write the rows that wait. Returns whether none waits any more."""
        try:
            if not self.file.exists():  # somebody removed it: without a header it would be no table
                self._rewrite()
            elif self._waiting:
                self._append("".join(self._waiting))
        except PermissionError:  # a spreadsheet holds the file open
            return False
        self._waiting.clear()
        return True

    def _append(self, text: str) -> None:
        try:
            with self.file.open("a", encoding="utf-8", newline="") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            error.filename = error.filename or str(self.file)  # a full disk is noticed where no file is named
            raise


def write_table(file: Path, columns: Sequence[Column], rows: Iterable[Mapping[str, Cell]]) -> None:
    """Write a table anew: a reader sees the old or the new one, whole. Raises OSError."""
    aside = file.with_name(f"{file.name}.new")
    aside.unlink(missing_ok=True)
    table = Table(aside, columns)
    for row in rows:
        table.add(row)
    table.flush()
    aside.replace(file)


def markdown(columns: Sequence[Column]) -> str:
    """Return the table of columns for the docs."""
    lines = ["| column | type | what |", "|---|---|---|"]
    lines += [f"| `{c.name}` | {_TYPE_NAMES[c.type]} | {c.meaning} |" for c in columns]
    return "\n".join(lines) + "\n"
