"""The errors of libraries in our words: their first line, and whether they report a lack of memory."""

from __future__ import annotations

from autotune.errors import StageError


def reason(error: BaseException) -> str:
    """Return the first line of a library's error, or its class if it has no message."""
    first, *more = str(error).strip().splitlines() or [type(error).__name__]
    told = first.endswith(":") and bool(more) and more[0][:1].isspace()
    return f"{first} {more[0].strip()}" if told else first


_NO_MEMORY = ("out of memory", "allocate memory", "failed to allocate", "bad alloc", "bad_alloc")


def short_of_memory(error: BaseException) -> bool:
    """Whether a library's error reports a lack of memory."""
    return isinstance(error, MemoryError) or any(sign in str(error).lower() for sign in _NO_MEMORY)


def refused(error: Exception, what: str) -> StageError:
    """Return a library's error as a StageError of the candidate: `out_of_memory` if it reports that, else `unsupported`."""
    return StageError("out_of_memory" if short_of_memory(error) else "unsupported", f"{what}: {reason(error)}")
