"""Which stages had company: what happens to one alone may not happen beside others, above all for want of memory."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Company:
    """Counts what runs at the same time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[object, bool] = {}
        """Of what is running, whether anything else ran meanwhile."""

    @contextmanager
    def counted(self) -> Iterator[Callable[[], bool]]:
        """Count what runs inside. Yields a function that says whether anything else ran at the same time."""
        token = object()
        with self._lock:
            self._running = dict.fromkeys(self._running, True)
            self._running[token] = len(self._running) > 0
        said = [False]

        def accompanied() -> bool:
            with self._lock:
                return self._running.get(token, said[0])

        try:
            yield accompanied
        finally:
            with self._lock:
                said[0] = self._running.pop(token)
