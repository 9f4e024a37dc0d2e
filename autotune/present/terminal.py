"""What a terminal can do. A console of Windows understands escape sequences once it is told to."""

from __future__ import annotations

import os
import sys
from typing import TextIO


def takes_escapes(stream: TextIO) -> bool:
    """Whether a stream goes to a terminal in which the cursor can be moved."""
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
