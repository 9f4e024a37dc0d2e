"""Assembles the page: one HTML file with everything inside, whose policy forbids every network request."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from autotune.report.columnar import packed

SCRIPTS = (
    "draws.js", "statistics.js", "limits.js", "selection.js", "decode.js", "dom.js", "chart.js", "summary.js", "front.js",
    "grid.js", "items.js", "sections.js", "main.js",
)  # fmt: skip
"""The page's JavaScript modules, each after those that it imports."""


def bundle(names: Sequence[str] = SCRIPTS) -> str:
    """Return the modules as one script, without imports and exports: all top-level names differ (tests check it)."""
    parts = []
    for name in names:
        text = (files("autotune.report") / "web" / name).read_text(encoding="utf-8")
        text = re.sub(r"^import .*?;\n", "", text, flags=re.MULTILINE)
        parts.append(re.sub(r"^export ", "", text, flags=re.MULTILINE))
    return "\n".join(parts)


def page(sweeps: Sequence[Mapping[str, Any]]) -> str:
    """Return the HTML of a report on sweeps, each as `report_of` returns it.

    Data is in base64 or escaped. The content security policy allows only the script and the style with these digests.
    """
    script, style = bundle(), (files("autotune.report") / "web" / "report.css").read_text(encoding="utf-8")
    names = dict.fromkeys(str(sweep["name"]) for sweep in sweeps)
    parts = {
        "script": script,
        "script_digest": _digest(script),
        "style": style,
        "style_digest": _digest(style),
        "title": html.escape(f"{', '.join(names)}: autotune report"),
        "explained": html.escape("\n\n".join(f"{sweep['name']}\n{sweep['explained']}" for sweep in sweeps)),
        "data": packed(list(sweeps)),
    }
    template = (files("autotune.report") / "web" / "report.html").read_text(encoding="utf-8")
    return re.sub(r"\{(\w+)\}", lambda found: parts[found[1]], template)


def _digest(text: str) -> str:
    """Return the digest of an inline script or style, in the form of a content security policy."""
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii") + "'"
