"""The history of costs: `costs/<machine>.jsonl` in the cache, one line for each stage that was done on this machine.

It outlives the results themselves: merged models are removed at once, builds are evicted, and timings in turns are kept
nowhere else. A line that cannot be read is skipped. Where the file cannot be written, only this evidence is lost.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from autotune.costs.work import Work
from autotune.durable import write_aside

KEPT = 4000
"""How many lines are kept, the latest ones."""


@dataclass(frozen=True)
class Took:
    """The seconds that one job took."""

    model: str
    work: Work
    seconds: float


_TYPES = {one.name: str(one.type) for one in fields(Work)}


def _read(line: str) -> Took | None:
    try:
        plain = json.loads(line)
        work, seconds = plain["work"], float(plain["seconds"])
        types: dict[str, tuple[type, ...]] = {"str": (str,), "bool": (bool,), "float": (int, float)}
        right = all(isinstance(value, types[_TYPES[name]]) for name, value in work.items())
        if not right or not 0 < seconds < float("inf"):
            return None
        return Took(str(plain["model"]), Work(**work), seconds)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


class History:
    """The file of one machine. Threads may share it."""

    def __init__(self, root: Path, machine: str) -> None:
        """`root`: the cache; `machine`: digest of the hardware."""
        self.file = root / "costs" / f"{machine[:16]}.jsonl"
        self._lock = threading.Lock()

    def read(self) -> list[Took]:
        """Return the jobs in the file, the latest last. A file that has grown to twice `KEPT` lines is shortened."""
        try:
            lines = self.file.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return []
        if len(lines) > 2 * KEPT:
            with contextlib.suppress(OSError):
                write_aside(self.file, "".join(line + "\n" for line in lines[-KEPT:]), sync=False)
        return [took for line in lines[-KEPT:] if (took := _read(line)) is not None]

    def add(self, taken: Iterable[Took]) -> None:
        """Append jobs. An error of the file is ignored."""
        text = "".join(json.dumps(asdict(took)) + "\n" for took in taken)
        with self._lock, contextlib.suppress(OSError):
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with self.file.open("a", encoding="utf-8") as stream:
                stream.write(text)
