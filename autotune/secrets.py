"""Secrets that must not be written or shown: values of the environment, passwords in URLs, and tokens that are known by
their form.

Libraries repeat in messages what they were given: an index URL with its password, a header with its token. So whatever
leaves the tuner (messages, rows, records, logs) passes through here. A process reads the environment once.
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
"""The text that replaces a secret."""
_LEAST = 8
"""The least characters of a secret in the environment: shorter values are words."""

_NAMED = re.compile(
    r"TOKEN(?!IZ)|SECRET|PASSW(OR)?D|PASSPHRASE|API_?KEY|ACCESS_?KEY|ACCOUNT_?KEY|CREDENTIAL|PRIVATE|CONNECTION_?STRING",
    re.IGNORECASE,
)
_KEY = re.compile(
    r"(token|secret|passw(or)?d|passphrase|api_?key|access_?key|account_?key|credentials?)(?![^.\[\]])", re.IGNORECASE
)
_IN_QUERIES = "token|secret|passw(?:or)?d|api_?key|access_?key|subscription-key|credential|signature|sig"
_PART = r"[^\s/?#'\"<>]+"
_SHAPES = (
    # scheme://user:password@host, also where it was taken for a path
    ((":/",), re.compile(rf"(://){_PART}(?=@)|(:/)[^\s/?#'\"<>:@]+:{_PART}(?=@)")),
    (("=",), re.compile(rf"([?&][\w.-]{{0,64}}(?i:{_IN_QUERIES})[\w.-]{{0,64}}=)[^\s&#'\"<>]+")),
    (
        ("earer", "EARER", "uthorization", "UTHORIZATION"),
        re.compile(r"((?i:\bauthorization\W{1,4}(?:\w+\s)?|\bbearer\s))[\w.~+/-]{16,}=*"),
    ),
    # Tokens of the hub: letters and digits in no order, so not the name of a function.
    (("hf_", "api_org_"), re.compile(r"\b(?:hf|api_org)_(?=[A-Za-z]*[0-9A-Z])[A-Za-z0-9]{20,}")),
)
"""Patterns of secrets whose value is unknown; each with texts of which one must occur before the pattern is tried."""


def names_secret(key: str) -> bool:
    """Whether the value of a key counts as a secret: `submit.azureml.hf_token` does, `new_tokens` does not."""
    return bool(_KEY.search(key))


def _forms(value: str) -> set[str]:
    """Return the forms in which a secret may be written: plain, line by line, as `repr`, in JSON, in a URL."""
    parts = {value, *(line.strip() for line in value.splitlines())}
    forms = set(parts)
    for part in parts:
        in_json = (json.dumps(part, ensure_ascii=ascii_)[1:-1] for ascii_ in (True, False))
        forms |= {repr(part)[1:-1], quote(part, safe=""), *in_json}
    return {form for form in forms if len(form) >= _LEAST}


@cache
def _known() -> tuple[str, ...]:
    """Return the secrets of the environment, the longest first, because one may be the beginning of another."""
    found: set[str] = set()
    for name, value in os.environ.items():
        if _NAMED.search(name) and len(value) >= _LEAST:
            found |= _forms(value)
        for user in re.findall(rf"://({_PART})@", value):  # an index, a proxy, a database
            found |= _forms(user.partition(":")[2])
    return tuple(sorted(found, key=len, reverse=True))


def redact(text: str) -> str:
    """Return `text` without secrets."""
    for secret in _known():
        if secret in text:
            text = text.replace(secret, HIDDEN)
    for signs, shape in _SHAPES:
        if any(sign in text for sign in signs):
            text = shape.sub(_hide, text)
    return text


def _hide(found: re.Match[str]) -> str:
    return "".join(filter(None, found.groups())) + HIDDEN


def redacted(data: Any) -> Any:
    """Return plain data (mappings, lists, scalars) without secrets in its texts; keys are not changed."""
    if isinstance(data, str):
        return redact(data)
    if isinstance(data, Mapping):
        return {key: redacted(value) for key, value in data.items()}
    return [redacted(value) for value in data] if isinstance(data, list | tuple) else data


def redact_file(file: Path, since: int = 0) -> int:
    """Remove secrets from a file, from byte `since` on. Returns its new size, or `since` where it cannot be read.

    A file that cannot be read or written is left unchanged.
    """
    with contextlib.suppress(OSError):
        with file.open("rb") as stream:
            stream.seek(since)
            written = stream.read()
        clean = redact(written.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
        if clean != written:
            with file.open("rb+") as stream:
                stream.seek(since)
                stream.write(clean)
                stream.truncate()
        since += len(clean)
    return since
