"""Read the rows of a parquet file. pyarrow is imported only then."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from autotune.data.encodings import decode, other_content
from autotune.data.records import SHOWN_PROBLEMS, FileRecords, Record, with_fields
from autotune.errors import Problem, shown


def read_parquet(data: bytes, wanted: Collection[str], also: Collection[str]) -> FileRecords:
    """Return the wanted columns of a parquet file, and those of `also` that it has."""
    import pyarrow
    import pyarrow.parquet

    found = FileRecords(mark=" row ")
    if not data.startswith(b"PAR1") and data:
        remedy = "rename it for what it holds: .jsonl, .csv or .tsv"
        text = Problem("the file must be parquet, and its content is text", remedy=remedy)
        if problem := other_content(data, "parquet") or (None if isinstance(decode(data[:400]), Problem) else text):
            found.problems.append(problem)
            return found
    place = ""
    try:
        file = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(data))
        found.columns = list(file.schema_arrow.names)
        asked = [name for name in dict.fromkeys(found.columns) if name in wanted or name in also]
        asked += _structs(file.schema_arrow, wanted, asked)
        twice = [name for name in asked if found.columns.count(name) > 1]
        if twice:
            rule = f"column names must differ, and {shown(twice[0])} stands twice"
            found.problems.append(Problem(rule, value=found.columns, remedy="rename or drop one"))
            return found
        found.notes = _class_names(file.schema_arrow.metadata or {}, asked)
        table = file.read(columns=asked)
        columns: dict[str, list[object]] = {}
        for name in asked:
            place = f"column {name!r}: "
            columns[name] = _cells(table.column(name))
        count = file.metadata.num_rows
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError, KeyError, ImportError) as error:
        reason = " ".join(str(error).split())[:200]
        remedy = "write the column as text" if place else "write it again, or use .jsonl"
        found.problems.append(Problem(f"the file must be parquet ({place}{reason})", remedy=remedy))
        return found
    if not columns:
        found.records = [Record(number, {}) for number in range(1, count + 1)]
        return found
    names = list(columns)
    rows = zip(*columns.values(), strict=True)
    found.records = [Record(number, dict(zip(names, row, strict=True))) for number, row in enumerate(rows, start=1)]
    return with_fields(found, wanted)


def _structs(schema: Any, wanted: Collection[str], asked: Collection[str]) -> list[str]:
    """Return the columns of objects with a field that is wanted and is no column itself."""
    missing = set(wanted) - set(schema.names)
    fields = {name: schema.field(name).type for name in schema.names if schema.names.count(name) == 1}
    return [
        name
        for name, kind in fields.items()
        if name not in asked and hasattr(kind, "fields") and missing & {inner.name for inner in kind.fields}
    ]


def _cells(column: Any) -> list[object]:
    """Return a column's cells: 32-bit and 16-bit floats with their shortest digits, bytes as text where they are UTF-8, and
    maps as objects.
    """
    import numpy as np
    import pyarrow

    kind = column.type
    cells: list[object] = column.to_pylist(maps_as_pydicts="lossy")
    if kind in (pyarrow.float32(), pyarrow.float16()):  # 0.1, and not 0.10000000149011612
        short = np.float32 if kind == pyarrow.float32() else np.float16
        return [float(str(short(cell))) if isinstance(cell, float) else cell for cell in cells]
    if pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind):
        try:
            return [cell.decode() if isinstance(cell, bytes) else cell for cell in cells]
        except UnicodeDecodeError:  # pictures, sounds
            return cells
    return cells


def _class_names(metadata: Mapping[bytes, bytes], asked: Collection[str]) -> list[str]:
    """Return a note for each column whose numbers stand for class names, by the metadata of a data set of the hub."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        named = {name: features[name]["names"] for name in asked if features[name].get("_type") == "ClassLabel"}
        return [
            f"the numbers in {shown(name)} stand for {', '.join(map(shown, names[:SHOWN_PROBLEMS]))}"
            f"{', ...' if len(names) > SHOWN_PROBLEMS else ''}: write the names into the data to have the model answer in words"
            for name, names in named.items()
        ]
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return []
