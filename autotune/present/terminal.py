"""Detects what a terminal can do, handles Ctrl-Z, and goes on where the terminal is closed. A Windows console understands escape
sequences once a program enables them."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, TextIO, cast

from autotune.errors import reader_gone


class _Lasting:
    """A text stream that drops what cannot be written: nobody reads it any more, or the disk of a log is full."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write a text, or drop it."""
        try:
            return self._stream.write(text)
        except OSError as error:
            self._drop(error)
        except RuntimeError:  # Ctrl-C came while this thread was writing: Python refuses what its handler writes
            pass
        return len(text)

    def flush(self) -> None:
        """Write what is buffered, or drop it."""
        try:
            self._stream.flush()
        except OSError as error:
            self._drop(error)

    def _drop(self, error: OSError) -> None:
        if is_unread(error):
            forget(self._stream)


def is_unread(error: OSError) -> bool:
    """Whether an error of printing means that nobody can read it: the reader of a pipe has ended, or a terminal was closed."""
    return reader_gone(error) or error.errno in (errno.EIO, errno.ENXIO)


def print_result(text: str) -> None:
    """Print the result of a command whose exit code tells as much: nobody may read it any more. Raises OSError (a full disk)."""
    try:
        print(text, flush=True)  # noqa: T201
    except OSError as error:
        if not is_unread(error):
            raise
        forget(sys.stdout)


def forget(stream: TextIO) -> None:
    """Send all that is printed to a stream from now on nowhere."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


@contextlib.contextmanager
def lasting_messages() -> Iterator[None]:
    """Let no message on stderr end a command because nobody can read it any more.

    A sweep runs for hours, and its results are in files: it goes on where its terminal is closed (setsid, disown), or where the
    program ends that its messages are piped into. Where a closed terminal ends the sweep (SIGHUP), it ends as by Ctrl-C.
    """
    before = sys.stderr
    sys.stderr = cast(TextIO, _Lasting(before))
    try:
        yield
    finally:
        sys.stderr = before


def takes_escapes(stream: TextIO) -> bool:
    """Return whether a stream is a terminal that understands escape sequences; enables them in Windows."""
    if not stream.isatty() or os.environ.get("TERM") == "dumb":
        return False
    if sys.platform != "win32":
        return True
    import ctypes
    import msvcrt

    try:
        console = ctypes.WinDLL("kernel32")
        handle, mode = ctypes.c_void_p(msvcrt.get_osfhandle(stream.fileno())), ctypes.c_uint32()
        # 4 is ENABLE_VIRTUAL_TERMINAL_PROCESSING; each call returns 0 where it fails, as before Windows 10.
        asked = console.GetConsoleMode(handle, ctypes.byref(mode))
        return bool(asked and console.SetConsoleMode(handle, ctypes.c_uint32(mode.value | 4)))
    except (OSError, ValueError):
        return False


@contextlib.contextmanager
def around_stops(leave: Callable[[], None], come_back: Callable[[], None]) -> Iterator[None]:
    """Call `leave` before Ctrl-Z stops this process, and `come_back` when it goes on.

    Nothing is done outside the main thread, which alone may take signals, where the system has no SIGTSTP (Windows), and where
    SIGTSTP is ignored or taken by others.
    """
    number = getattr(signal, "SIGTSTP", None)
    main = threading.current_thread() is threading.main_thread()
    if number is None or not main or signal.getsignal(number) is not signal.SIG_DFL:
        yield
        return

    def stop(_: int, frame: FrameType | None) -> None:
        del frame
        leave()
        signal.signal(number, signal.SIG_DFL)
        try:
            signal.raise_signal(number)
        finally:
            signal.signal(number, stop)
            come_back()

    signal.signal(number, stop)
    try:
        yield
    finally:
        signal.signal(number, signal.SIG_DFL)
