"""What must not be written or shown: secrets of the environment, of URLs, and tokens known by their shape.

Libraries repeat in messages what they were given: an index URL with its password, a header with its token. So whatever
leaves the tuner (messages, rows, records, logs) passes through here. The environment is read once in a process.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

HIDDEN = "[redacted]"
"""What stands where a secret stood."""
_LEAST = 8
"""Characters of a value of the environment that is taken for a secret: shorter ones are words."""

_NAMED = re.compile(
    r"TOKEN(?!IZ)|SECRET|PASSW(OR)?D|PASSPHRASE|API_?KEY|ACCESS_?KEY|ACCOUNT_?KEY|CREDENTIAL|PRIVATE|CONNECTION_?STRING",
    re.IGNORECASE,
)
_IN_QUERIES = "token|secret|passw(?:or)?d|api_?key|access_?key|subscription-key|credential|signature|sig"
_SHAPES = (
    r"(?<=://)[^\s/?#'\"<>]+(?=@)",  # scheme://user:password@host
    r"(?<=:/)[^\s/?#'\"<>:@]+:[^\s/?#'\"<>]+(?=@)",  # the same where it was taken for a path
    rf"(?<=[?&])(?P<key>(?i:[\w.-]{{0,64}}(?:{_IN_QUERIES})[\w.-]{{0,64}})=)[^\s&#'\"<>]+",
    r"(?P<scheme>(?i:\bauthorization\W{1,4}(?:\w+\s)?|\bbearer\s))[\w.~+/-]{16,}=*",
    # Of the hub: letters and digits in no order, so not the name of a function.
    r"\b(?:hf|api_org)_(?=[A-Za-z]*[0-9A-Z])[A-Za-z0-9]{20,}",
)


def _forms(value: str) -> set[str]:
    """Return a secret as it may be written: plain, in parts of a line each, as `repr`, in JSON, in a URL."""
    parts = {value, *(line.strip() for line in value.splitlines())}
    forms = {form for part in parts for form in (part, repr(part)[1:-1], json.dumps(part)[1:-1], quote(part, safe=""))}
    return {form for form in forms if len(form) >= _LEAST}


@cache
def _patterns() -> tuple[re.Pattern[str], re.Pattern[bytes]]:
    """Return what finds a secret, in text and in bytes."""
    secrets: set[str] = set()
    for name, value in os.environ.items():
        if _NAMED.search(name) and len(value) >= _LEAST:
            secrets |= _forms(value)
    # The longest first: one may begin another.
    known = [re.escape(secret) for secret in sorted(secrets, key=len, reverse=True)]
    pattern = "|".join([*known, *_SHAPES])
    return re.compile(pattern), re.compile(pattern.encode("utf-8", errors="surrogateescape"))


def redact(text: str) -> str:
    """Return `text` without secrets."""
    return _patterns()[0].sub(lambda found: (found["key"] or found["scheme"] or "") + HIDDEN, text)


def redacted(data: Any) -> Any:
    """Return plain data (mappings, lists, scalars) without secrets in its texts."""
    if isinstance(data, str):
        return redact(data)
    if isinstance(data, Mapping):
        return {redacted(key): redacted(value) for key, value in data.items()}
    return [redacted(value) for value in data] if isinstance(data, list | tuple) else data


def redact_file(file: Path, since: int = 0) -> int:
    """Take secrets out of what stands in a file from byte `since` on, where there are any. Returns its size.

    What cannot be read or written is left as it is.
    """
    hidden = HIDDEN.encode()
    with contextlib.suppress(OSError):
        with file.open("rb") as stream:
            stream.seek(since)
            written = stream.read()
        clean = _patterns()[1].sub(lambda found: (found["key"] or found["scheme"] or b"") + hidden, written)
        if clean != written:
            with file.open("rb+") as stream:
                stream.seek(since)
                stream.write(clean)
                stream.truncate()
        since += len(clean)
    return since
