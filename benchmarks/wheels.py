"""Do the extras resolve to wheels alone, with nothing built from source, on systems other than this one?

    python -m benchmarks.wheels                     # needs uv: pip install uv
    python -m benchmarks.wheels --python 3.12       # for another version of Python

It asks uv to resolve every extra of pyproject.toml, and every install line of the README, with constraints.txt, for Windows
x64 and for macOS 14 arm64, and prints a table. It names pure Python packages that have no wheel anywhere. It exits with 1 if
something does not resolve.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
SYSTEMS = {"Windows x64": "windows", "macOS 14 arm64": "aarch64-apple-darwin"}
WINDOWS, MACOS = SYSTEMS
WITHOUT_PROVIDER = {(MACOS, extra) for extra in ("openvino", "tensorrt-rtx", "directml")}
"""Extras whose provider has no wheel there: they resolve without it."""
NOWHERE = {(MACOS, "cuda"): "no CUDA there"}
"""Extras that nobody can have there, and why."""
PURE = ("rouge-score", "sqlitedict", "word2number")
"""Packages of pure Python that come without a wheel (for the extras `rouge`, `lm-eval` and `dev`): pip makes one without a
compiler, and they are left out here."""
_INSTALL = re.compile(r"pip install [^\n]*?\[([a-z,-]+)\]")


def extras_of(root: Path = ROOT) -> dict[str, tuple[str, ...]]:
    """Return what is resolved: every extra by itself, and those that the README installs together."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    alone = {extra: (extra,) for extra in project["optional-dependencies"]}
    lines = _INSTALL.findall((root / "README.md").read_text(encoding="utf-8"))
    return alone | {line: tuple(line.split(",")) for line in lines}


def pure_in(extras: tuple[str, ...]) -> list[str]:
    """Return which packages of pure Python without a wheel extras ask for, as far as pyproject.toml says."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = " ".join(line for extra in extras for line in project["optional-dependencies"][extra])
    return list(PURE) if "lm-eval" in asked else [name for name in PURE if name in asked]


def resolves(extras: tuple[str, ...], platform: str, python: str) -> str:
    """Return an empty text where extras resolve to wheels on a platform, else what uv says."""
    command = ["uv", "pip", "compile", "--quiet", "pyproject.toml", "--python-platform", platform]
    command += [word for extra in extras for word in ("--extra", extra)]
    command += ["--python-version", python, "-c", "constraints.txt", "--only-binary", ":all:", "-o", os.devnull]
    environment = os.environ | {"MACOSX_DEPLOYMENT_TARGET": "14.0"}
    with tempfile.TemporaryDirectory() as scratch:
        left_out = Path(scratch) / "pure.txt"
        left_out.write_text("".join(f"{name}; python_version < '3'\n" for name in PURE), encoding="utf-8")
        done = subprocess.run(
            [*command, "--override", str(left_out)], cwd=ROOT, env=environment, capture_output=True, encoding="utf-8",
            errors="replace", check=False,
        )  # fmt: skip
    return "" if done.returncode == 0 else " ".join(done.stderr.split())[:300]


def main() -> int:
    """Print the table; 1 where something does not resolve."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--python", default="3.11", metavar="VERSION", help="version of Python; default: 3.11")
    python = words.parse_args().python
    wrong = 0
    print("| extras | " + " | ".join(SYSTEMS) + " |\n|" + "---|" * (1 + len(SYSTEMS)))
    for name, extras in extras_of().items():
        pure = pure_in(extras)
        cells = []
        for system, platform in SYSTEMS.items():
            if (system, name) in NOWHERE:
                cells.append(NOWHERE[system, name])
                continue
            said = resolves(extras, platform, python)
            wrong += bool(said)
            more = [f"and {', '.join(pure)} of pure Python"] if pure else []
            more += ["without its provider"] if (system, name) in WITHOUT_PROVIDER else []
            cells.append(said or ", ".join(["wheels only", *more]))
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
