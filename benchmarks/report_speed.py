"""How large the report is and how fast it opens and filters; how long `select` takes on 10,000 rows with outcomes.

python -m benchmarks.report_speed [--write]   # needs playwright and Chromium; --write: benchmarks/measured/report.md
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autotune.machine import describe
from autotune.report.data import read_report
from autotune.report.page import page
from benchmarks.report_folders import Shape, make_folder

MEASURED = Path(__file__).parent / "measured" / "report.md"
TIMES = 5

_OPENED = "performance.getEntriesByName('ready')[0].startTime"
_FILTERED = """() => {
  const box = document.querySelector('input[aria-label="Filter accuracy"]');
  const began = performance.now();
  box.value = '>= 0.7';
  box.dispatchEvent(new Event('input'));
  document.querySelector('.grid-scroll').getBoundingClientRect();
  return performance.now() - began;
}"""
_CHOSEN = """() => {
  const slider = document.querySelector('.limit input[type=range]');
  const began = performance.now();
  slider.value = 700;
  slider.dispatchEvent(new Event('input'));
  document.querySelector('.choice').getBoundingClientRect();
  return performance.now() - began;
}"""


def in_browser(file: Path) -> dict[str, list[float]]:
    """Return the milliseconds until a page is ready, for one filter, and for one limit that is moved, each several times."""
    from playwright.sync_api import sync_playwright

    found: dict[str, list[float]] = {"open": [], "filter": [], "limit": []}
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for _ in range(TIMES):
            tab: Any = browser.new_page(viewport={"width": 1280, "height": 900})
            tab.goto(file.resolve().as_uri())
            tab.wait_for_selector("html[data-ready]", timeout=60_000)
            tab.wait_for_function("performance.getEntriesByName('ready').length")
            found["open"].append(float(tab.evaluate(_OPENED)))
            found["filter"].append(float(tab.evaluate(_FILTERED)))
            found["limit"].append(float(tab.evaluate(_CHOSEN)))
            tab.close()
        browser.close()
    return found


def select_s(folder: Path) -> list[float]:
    """Return the seconds that `autotune select` takes, start included, each several times."""
    times = []
    for _ in range(TIMES + 1):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "autotune", "select", str(folder)], capture_output=True, check=True)
        times.append(time.perf_counter() - began)
    return times  # the first leaves the packed outcomes


def _middle(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]


def measured() -> str:
    """Return the table."""
    lines = [
        "# The report and `select` on large results folders",
        "",
        "Written by `python -m benchmarks.report_speed --write`: made folders, 200 items, five recipes; medians of "
        f"{TIMES}. The machine: {describe()['hardware'].get('processor', '?')}, {describe()['hardware'].get('threads', '?')} threads.",
        "",
        "| rows | columns | report, MB | opens, ms | one filter, ms | one limit moved, ms |",
        "|---|---|---|---|---|---|",
    ]
    seconds: list[float] = []
    with tempfile.TemporaryDirectory() as place:
        for rows in (1_000, 10_000):
            folder = make_folder(Path(place) / str(rows), Shape(rows, seed=rows % 97))
            report = read_report(folder)
            html = Path(place) / f"{rows}.html"
            html.write_text(page([report]), encoding="utf-8")
            found = in_browser(html)
            size, columns = html.stat().st_size / 1e6, len(report["columns"])
            cells = [f"{_middle(found[name]):.0f}" for name in ("open", "filter", "limit")]
            lines.append(f"| {rows:,} | {columns} | {size:.2f} | {' | '.join(cells)} |")
            seconds = select_s(folder)
    lines += [
        "",
        f"`autotune select` on the 10,000 rows with the outcomes of 200 items: {_middle(seconds[1:]):.2f} s, start included; "
        f"{seconds[0]:.2f} s the first time, when the outcomes are read from as many files.",
    ]
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Print what was measured, or write it."""
    text = measured()
    if "--write" in (sys.argv[1:] if argv is None else argv):
        MEASURED.write_text(text, encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
