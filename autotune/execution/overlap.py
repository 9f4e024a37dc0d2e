"""Record which stages ran beside others: a stage may lack memory only because others ran at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Overlaps:
    """Records which stages of this process run at the same time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[object, bool] = {}
        """By running stage, whether another one ran at the same time."""

    @contextmanager
    def counted(self) -> Iterator[Callable[[], bool]]:
        """Record a stage that runs inside. Yields a function that returns whether another one ran at the same time."""
        token = object()
        with self._lock:
            self._running = dict.fromkeys(self._running, True)
            self._running[token] = len(self._running) > 0
        said = [False]

        def overlapped() -> bool:
            with self._lock:
                return self._running.get(token, said[0])

        try:
            yield overlapped
        finally:
            with self._lock:
                said[0] = self._running.pop(token)
