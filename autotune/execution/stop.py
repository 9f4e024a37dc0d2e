"""Ending a sweep early: asked once, it keeps what can be kept; asked twice, it ends now."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from autotune.errors import Interrupted
from autotune.scratch import scratch

SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
"""What asks for the end, where the system has it: on Windows Ctrl-Break, and the closing of the window, are SIGBREAK."""


class Stop:
    """Whether somebody wants the sweep to end. A training looks for `file` between two steps."""

    def __init__(self, file: Path) -> None:
        self.file = file

    @property
    def asked(self) -> bool:
        """Whether it was asked for."""
        return self.file.exists()

    def check(self) -> None:
        """Raise Interrupted where it was asked for: the moment to end is before a new stage."""
        if self.asked:
            raise Interrupted


@contextlib.contextmanager
def stop_on_signals(say: Callable[[], None]) -> Iterator[Stop]:
    """Let Ctrl-C, Ctrl-Break, SIGTERM and a closed terminal ask for the end, which `say` then announces; the second ends it now.

    A signal that the process was told to ignore (nohup) stays ignored. Raises KeyboardInterrupt at the second.
    """
    with scratch("stop") as folder:
        stop = Stop(folder / "stop")

        def ask(number: int, frame: FrameType | None) -> None:
            del number, frame
            if stop.asked:
                raise KeyboardInterrupt
            stop.file.touch()
            say()

        numbers = [getattr(signal, name) for name in SIGNALS if hasattr(signal, name)]
        before = {number: signal.getsignal(number) for number in numbers}
        try:
            for number, handler in before.items():
                if handler is not signal.SIG_IGN:
                    signal.signal(number, ask)
            yield stop
        finally:
            for number, handler in before.items():
                if handler is not None:
                    signal.signal(number, handler)
