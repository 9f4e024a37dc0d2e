"""Pictures of the report as people see it: in light and dark, on a phone, in print.

python -m benchmarks.report_pictures [DIR] [--to FOLDER]   # needs playwright and Chromium; DIR: the committed example
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autotune.report.write import write_report

ROOT = Path(__file__).parent.parent
EXAMPLE, PICTURES = ROOT / "results" / "example", ROOT / "benchmarks" / "measured" / "report"
_LOOKS: dict[str, dict[str, Any]] = {
    "light": {"viewport": {"width": 1200, "height": 800}},
    "dark": {"viewport": {"width": 1200, "height": 800}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "device_scale_factor": 2},
}
_PLACES = {"light": "#result", "dark": "#front", "phone": "#front"}
"""What each picture shows."""


def take(folder: Path, to: Path) -> list[Path]:
    """Write the pictures of a results folder's report. Returns the files."""
    from playwright.sync_api import sync_playwright

    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    to.mkdir(parents=True, exist_ok=True)
    files = []
    with tempfile.TemporaryDirectory() as place, sync_playwright() as started:
        (report, *_) = write_report([folder], Path(place) / "report.html", say=lambda _: None)
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for name, look in _LOOKS.items():
            tab = browser.new_context(**look).new_page()
            tab.goto(report.resolve().as_uri())
            tab.wait_for_selector("html[data-ready]")
            tab.evaluate(f"document.querySelector('{_PLACES[name]}').scrollIntoView()")
            tab.wait_for_timeout(500)
            files.append(to / f"{name}.png")
            tab.screenshot(path=files[-1])
            if name == "light":
                files.append(to / "print.pdf")
                tab.pdf(path=files[-1], format="A4", print_background=True)
        browser.close()
    return files


def main(argv: Sequence[str] | None = None) -> int:
    """Take the pictures and print where they are."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("folder", nargs="?", type=Path, default=EXAMPLE)
    options.add_argument("--to", type=Path, default=PICTURES)
    chosen = options.parse_args(argv)
    for file in take(chosen.folder, chosen.to):
        print(file)
    return 0


if __name__ == "__main__":
    sys.exit(main())
