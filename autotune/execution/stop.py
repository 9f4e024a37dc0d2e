"""End a sweep early: the first request keeps what can be kept, the second ends it at once."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from autotune.errors import Interrupted, MachineError
from autotune.scratch import scratch

SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
"""The signals that request the end, where the system has them: on Windows Ctrl-Break and closing the window are SIGBREAK."""


class Stop:
    """A request to end the sweep. A training looks for `file` between two steps."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.signalled = False
        """Whether a user or the system requested it; the tuner itself does, too, where trouble of the machine ends the sweep."""

    @property
    def asked(self) -> bool:
        """Whether the end was requested."""
        return self.file.exists()

    def check(self) -> None:
        """Raise Interrupted where the end was requested; to be called before a new stage."""
        if self.asked:
            raise Interrupted

    @contextlib.contextmanager
    def is_the_reason(self, say: Callable[[str], None]) -> Iterator[None]:
        """Raise Interrupted for trouble of the machine after a user's request, which may have done it to a stage; `say` is told
        of it.
        """
        try:
            yield
        except MachineError as error:
            if not self.signalled:
                raise
            say(str(error))
            raise Interrupted from error


@contextlib.contextmanager
def stop_on_signals(say: Callable[[], None]) -> Iterator[Stop]:
    """Let Ctrl-C, Ctrl-Break, SIGTERM and a closed terminal request the end, and call `say` then.

    The second signal raises KeyboardInterrupt. A signal that the process ignores (nohup) stays ignored.
    """
    with scratch("stop") as folder:
        stop = Stop(folder / "stop")

        def ask(number: int, frame: FrameType | None) -> None:
            del number, frame
            if stop.asked:
                raise KeyboardInterrupt
            stop.signalled = True
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
