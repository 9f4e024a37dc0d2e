"""Safe questions about paths that users type: a path that is invalid, or that cannot be examined, does not exist."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from autotune.errors import Problem, UsageError

_DEVICES = {"con", "prn", "aux", "nul", *(f"{kind}{number}" for kind in ("com", "lpt") for number in range(10))}
"""Names that Windows reserves for devices, whatever follows a dot."""
GGUF = "load it with transformers (gguf_file=..., dequantised) and save it with save_pretrained(folder)"
NOT_PORTABLE = (
    "must be a name that Windows takes, too: not that of a device (con, nul, aux, com1, ...), and no dot at its end"
)


def is_portable(name: str) -> bool:
    """Whether every system takes a folder of that name, which consists of letters, digits, '.', '-' and '_'."""
    return name.partition(".")[0].lower() not in _DEVICES and not name.endswith(".")


def is_file(path: Path) -> bool:
    """Whether there is such a file."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long a name, a folder without permission, a NUL
        return False


def is_folder(path: Path) -> bool:
    """Whether there is such a folder."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def exists(path: Path) -> bool:
    """Whether there is anything of that name."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def relative(path: Path, start: Path) -> str:
    """Return an absolute path as seen from an absolute folder, with `/`; the path itself where it is on another drive."""
    try:
        return Path(os.path.relpath(path, start)).as_posix()
    except ValueError:
        return path.as_posix()


_NO_FOLDERS = (
    (r"[\x00-\x1f\x7f]", "it holds a control character", "write the path without"),
    (r"^['\"].*['\"]$", "the quotes are part of the name", "write the path without them"),
    (r"\$\{?\w|%\w+%", "variables within it are not filled in", "write the path out"),
)


def folder_named_by(variable: str) -> Path | None:
    """Return the folder that a variable of the environment names; None where it is not set, or blank.

    Raises UsageError for a text that is probably no folder's name: else a folder of that name would be made.
    """
    text = os.environ.get(variable, "")
    if not text.strip():
        return None

    def refused(rule: str, remedy: str) -> UsageError:
        return UsageError(Problem(f"must be the path of a folder: {rule}", variable, value=text, remedy=remedy))

    for pattern, rule, remedy in _NO_FOLDERS:
        if re.search(pattern, text):
            raise refused(rule, remedy)
    if sys.platform != "win32" and re.match(r"[A-Za-z]:\\", text):
        raise refused("this is a path of Windows", "write one of this system")
    try:
        folder = Path(text).expanduser()
        taken = folder.exists() and not folder.is_dir()
    except (OSError, ValueError, RuntimeError) as error:
        raise refused(getattr(error, "strerror", None) or str(error), "name another folder") from None
    if taken:
        raise refused("there is a file of that name", "name a folder")
    return folder


def typed_path(text: str) -> Path:
    """Return the path that somebody typed on the command line.

    `~` is the home folder, which the shell leaves to us in `--out=~/x`. What the shell was meant to fill in, and did not, is no
    name for a folder: it would be made, wherever the command runs. Raises ValueError with the rule and the remedy.
    """
    if not text.strip():
        raise ValueError(
            "must be a path, and it is empty; write one, and look whether a variable of the shell is not set"
        )
    if re.search(r"[\ud800-\udfff]", text):
        raise ValueError("its name is no UTF-8 text, which tables and notes could not hold; rename it")
    home = re.match(r"~[^/\\]*", text)
    if home is not None and (home[0] == "~" or not exists(Path(text))):
        try:
            return Path(text).expanduser()
        except RuntimeError:
            raise ValueError(f"the home folder {home[0]} is not known; write the path out") from None
    if exists(Path(text)):
        return Path(text)
    if found := re.search(r"(?:^|[/\\])(\$\{?\w+\}?|%\w+%)", text):
        raise ValueError(f"the variable {found[1]} was not filled in; write the path out, or leave single quotes out")
    for pattern, rule, remedy in _NO_FOLDERS[:2]:
        if re.search(pattern, text):
            raise ValueError(f"{rule}; {remedy}")
    if sys.platform != "win32" and "\\" in text:
        plain = text.replace("\\", "/")
        remedy = "write one of this system" if re.match(r"[A-Za-z]:", text) else f"write {plain}"
        raise ValueError(f"a backslash separates folders on Windows alone; {remedy}")
    return Path(text)


def size_mb(folder: Path) -> float:
    """Return the size of the files in a folder and below it, 10^6 bytes. Raises OSError."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def without_config(folder: Path) -> tuple[str, str]:
    """Return what is wrong with a folder that should hold a model and has no config.json, and what to do."""
    rule = "a model folder needs a config.json"
    remedy = "name the folder of the original model, as save_pretrained wrote it"
    for file, what in (("adapter_config.json", "an adapter"), ("genai_config.json", "a built model")):
        if (folder / file).exists():
            rule += f", and this one holds {what}"
    if next(folder.glob("*.gguf"), None) is not None:
        rule, remedy = rule + ", and this one holds a GGUF file", f"name the model that it was made from, or {GGUF}"
    inner = sorted((path.parent for path in folder.glob("*/config.json")), key=_by_number)
    inner += sorted(path.parent for path in folder.glob("snapshots/*/config.json"))
    if inner:
        there = inner[-1].relative_to(folder).as_posix()
        rule, remedy = f"{rule}, and its is in {there}", f"name that folder: {(folder / there).as_posix()}"
    return rule, remedy


def _by_number(folder: Path) -> tuple[int, str]:
    """Sort checkpoints by their step."""
    step = folder.name.rpartition("-")[2]
    return int(step) if step.isdecimal() else -1, folder.name
