"""Detects what a terminal can do, and handles Ctrl-Z. A Windows console understands escape sequences once a program enables
them."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TextIO


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
