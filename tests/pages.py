"""What tests of the report read from a page."""

from __future__ import annotations

import base64
import json
import re
import zlib
from typing import Any


def data_of(text: str) -> list[dict[str, Any]]:
    """Return the data that a page holds."""
    found = re.search(r'<script type="text/plain" id="data">([A-Za-z0-9+/=]*)</script>', text)
    assert found is not None
    decoded: list[dict[str, Any]] = json.loads(zlib.decompress(base64.b64decode(found[1])))
    return decoded
