"""Whether the extras resolve to wheels alone, nothing built from source, on systems other than this one.

    python -m benchmarks.wheels            # needs uv: pip install uv

It asks uv to resolve each extra with constraints.txt for Windows x64 and for macOS 14 arm64, and prints a table.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
SYSTEMS = {"Windows x64": "windows", "macOS 14 arm64": "aarch64-apple-darwin"}
EXTRAS = ("cpu", "webgpu", "openvino", "tensorrt-rtx", "directml")
ELSEWHERE = {("macOS 14 arm64", extra) for extra in ("openvino", "tensorrt-rtx", "directml")}
"""Extras whose provider has no wheel there: they resolve without it."""


def resolves(extra: str, platform: str) -> str:
    """Return an empty text where an extra resolves to wheels on a platform, else what uv says."""
    command = ["uv", "pip", "compile", "--quiet", "pyproject.toml", "--extra", extra, "--python-platform", platform]
    command += ["--python-version", "3.11", "-c", "constraints.txt", "--only-binary", ":all:", "-o", os.devnull]
    environment = os.environ | {"MACOSX_DEPLOYMENT_TARGET": "14.0"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, encoding="utf-8", check=False
    )
    return "" if done.returncode == 0 else " ".join(done.stderr.split())[:300]


def main() -> int:
    """Print the table; 1 where something does not resolve."""
    wrong = 0
    print("| extra | " + " | ".join(SYSTEMS) + " |\n|" + "---|" * (1 + len(SYSTEMS)))
    for extra in EXTRAS:
        cells = []
        for system, platform in SYSTEMS.items():
            said = resolves(extra, platform)
            wrong += bool(said)
            without = ", without its provider" if (system, extra) in ELSEWHERE else ""
            cells.append(said or f"wheels only{without}")
        print(f"| {extra} | " + " | ".join(cells) + " |")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
