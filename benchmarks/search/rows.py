"""The rows of an oracle table: JSON lines, compact, each written once.

A table is `tables/TASK.jsonl`, appended and flushed row by row, by several processes at once where there are; a
half-written last line is dropped when it is opened again. The first row, `header`, says what was measured; of the others
`kind` and the fields of `KEY` say which measurement a row is:

| kind | what | fields besides its key |
|---|---|---|
| header | the sweep, digests, labels, right answers, machine | |
| start | a worker process until torch is imported | `seconds` |
| train | an adapter trained from the rung before to `rung` | `seconds`, `step`, `step_s` (median), `loss`, `status` |
| score | outcomes of a `split`; `adapter` null: the untouched model, in PyTorch where `recipe` is null too; an adapter at a rung below 1: on an fp32 build | `seconds`, `load_s`, `predicted`, `loss`, `margin`, `status` |
| merge | an adapter merged | `seconds` |
| build | a pair, or the untouched model, built | `seconds`, `size_mb`, `graph`, `status` |
| time | a recipe's graph timed | `seconds`, `graph`, `processes` (`itl_ms`, `ttft_ms`, `load_s` of each) |
| cost | what a `stage` takes, measured by itself; `take`: which time: train (to the first rung, `adapter`), merge (`adapter`), build, check, score (`recipe`) | `seconds`, `step_s`, `step`, `load_s` |

`predicted` has one hexadecimal digit an item (the label's number; the right answers are in the header, in the same
order); `loss` and `margin` (nats) have one byte an item, in base64: see `pack_nats`. `load` is the load average of the
last minute when the stage ended, `others` the mean number of cores that other processes used meanwhile; both are null
for a result that came from the cache. `device` is in rows of what PyTorch did on a GPU. `threads` is in rows that were
made with less than the whole machine: their seconds are costs only where there are no others.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

Row = dict[str, Any]
FORMAT = 1
KEY = ("kind", "adapter", "seed", "rung", "recipe", "split", "stage", "take")
TABLES = Path(__file__).parent / "tables"
MOST_LABELS = 16
_STEEP, _FINE = 8.0, 24.0


def key_of(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return which measurement a row is."""
    return tuple(row.get(name) for name in KEY)


def pack_labels(labels: Sequence[int]) -> str:
    """Return label numbers (0 to 15) as hexadecimal digits."""
    if not all(0 <= label < MOST_LABELS for label in labels):
        raise ValueError(f"a table holds at most {MOST_LABELS} labels, numbered from 0")
    return "".join(f"{label:x}" for label in labels)


def unpack_labels(text: str) -> NDArray[np.int64]:
    """The inverse of `pack_labels`."""
    return np.array([int(digit, 16) for digit in text], dtype=np.int64)


def pack_nats(values: Sequence[float]) -> str:
    """Return numbers from 0 on as bytes in base64: 24 log(1 + 8 value), rounded; within 0.003 + 2.2 % up to 5,000."""
    codes = np.rint(_FINE * np.log1p(_STEEP * np.maximum(np.asarray(values, dtype=np.float64), 0.0)))
    return base64.b64encode(np.minimum(codes, 255).astype(np.uint8).tobytes()).decode("ascii")


def unpack_nats(text: str) -> NDArray[np.float64]:
    """The inverse of `pack_nats`, up to its rounding."""
    codes = np.frombuffer(base64.b64decode(text), dtype=np.uint8)
    return np.asarray(np.expm1(codes / _FINE) / _STEEP, dtype=np.float64)


class RowFile:
    """A table being made: the rows that are there, and where the next go."""

    def __init__(self, file: Path) -> None:
        """Open a table; what a killed process left of its last line is cut off."""
        self.file = file
        self.rows: list[Row] = []
        self._known: dict[tuple[Any, ...], Row] = {}
        self._read = 0
        self._lock = FileLock(file.with_name(f".{file.name}.lock"))
        if file.exists():
            with self._lock:
                whole = file.read_bytes()
                complete = whole.rfind(b"\n") + 1
                if complete != len(whole):
                    with file.open("r+b") as stream:
                        stream.truncate(complete)
            self.refresh()

    def refresh(self) -> None:
        """Read what other processes wrote meanwhile."""
        if not self.file.exists():
            return
        with self.file.open("rb") as stream:
            stream.seek(self._read)
            for line in stream:
                if not line.endswith(b"\n"):  # being written
                    break
                self._read += len(line)
                row = json.loads(line)
                self.rows.append(row)
                self._known[key_of(row)] = row

    @property
    def header(self) -> Row | None:
        """The first row."""
        return self.rows[0] if self.rows else None

    def find(self, **key: Any) -> Row | None:
        """Return the row of a measurement; what is not named is None."""
        return self._known.get(key_of(key))

    def append(self, row: Row) -> Row:
        """Write a row, down to the disk. Raises ValueError where it is there already."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps(row, ensure_ascii=False, separators=(",", ":"), allow_nan=False) + "\n"
        with self._lock:
            self.refresh()
            if self.file.exists() and self.file.stat().st_size > self._read:  # what a killed process left of a line
                with self.file.open("r+b") as stream:
                    stream.truncate(self._read)
            if key_of(row) in self._known:
                raise ValueError(f"this row is there already: {key_of(row)}")
            with self.file.open("ab") as stream:
                stream.write(line.encode("utf-8"))
                stream.flush()
                os.fsync(stream.fileno())
            self.refresh()
        return self.rows[-1]
