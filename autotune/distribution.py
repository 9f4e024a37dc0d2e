"""What pip calls this package, and the commands that install its extras.

`autotune` on PyPI is another project's, so the distribution has a name of its own; package and command are `autotune`.
`pyproject.toml` has the same name, and a test says so.
"""

from __future__ import annotations

from pathlib import Path

DISTRIBUTION = "autotune-genai"
"""The name of the distribution on PyPI."""
_PACKAGE = Path(__file__).parent


def requirement(*extras: str) -> str:
    """Return the requirement for pip, such as `autotune-genai[cpu,rouge]`."""
    return f"{DISTRIBUTION}[{','.join(extras)}]" if extras else DISTRIBUTION


def pip_install(*extras: str) -> str:
    """Return the command that installs extras in the versions that are tested.

    It is quoted with double quotes, which every shell takes: cmd.exe on Windows knows no others.
    """
    return f'pip install "{requirement(*extras)}"' + _constraints()


def constraints_file() -> Path | None:
    """Return the file with the versions that are tested: the repository's, or the copy in the wheel."""
    places = (_PACKAGE / "constraints.txt", _PACKAGE.parent / "constraints.txt")
    return next((one for one in places if one.is_file()), None)


def _constraints() -> str:
    """Return the option that names constraints.txt: the repository's, or the copy in the wheel."""
    file = constraints_file()
    if file is None:
        return ""
    try:
        shown = str(file.relative_to(Path.cwd()))
    except (OSError, ValueError):  # the working directory is elsewhere, or gone
        shown = str(file)
    return f' -c "{shown}"' if " " in shown else f" -c {shown}"
