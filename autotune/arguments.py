"""Arguments of commands: a parser whose errors are one line, the kinds of values, and options that several commands have."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from autotune.errors import number_remedy, printable
from autotune.misspelt import hint
from autotune.paths import typed_path
from autotune.secrets import redact


class Parser(argparse.ArgumentParser):
    """One whose errors are one line, whatever the arguments hold, and say what was probably meant."""

    words: Sequence[str] = ()
    """What it was given."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        self.words = tuple(sys.argv[1:] if args is None else args)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        message = printable(redact(message))
        remedy = hint(self, self.words, message)
        message = message if len(message) <= 500 else message[:497] + "..."
        super().error(f"{message}; {remedy}" if remedy else message)


class Once(argparse.Action):
    """An option of which a second one would silently replace the first."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: Any, values: Any, option: str | None = None) -> None:
        del parser, option
        if getattr(namespace, self.dest) is not None:
            raise argparse.ArgumentError(
                self, "takes one metric, and stands twice; the objectives behind it keep their order"
            )
        setattr(namespace, self.dest, values)


def _refused(rule: str, text: str, name: str = "") -> argparse.ArgumentTypeError:
    """Return what is said of a number that is none, with how it is written where that can be told."""
    remedy = number_remedy(text, name, quoted=False) if text.strip() else ""
    return argparse.ArgumentTypeError(f"{rule}, got '{redact(text)[:80]}'" + (f"; {remedy}" if remedy else ""))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def as_hours(text: str) -> float:
    """Return hours, above 0. Raises ArgumentTypeError."""
    value = _number(text)
    if not 0 < value < math.inf:
        raise _refused("must be a number above 0", text, "hours")
    return value


def as_megabytes(text: str) -> float:
    """Return a size in 10^6 bytes, 0 or more. Raises ArgumentTypeError."""
    value = _number(text)
    if not 0 <= value < math.inf:
        raise _refused("must be a number, 0 or more", text, "size_mb")
    return value


def as_days(text: str) -> float:
    """Return days, 0 or more. Raises ArgumentTypeError."""
    value = _number(text)
    if not 0 <= value < math.inf:
        raise _refused("must be a number, 0 or more", text)
    return value


def as_whole(text: str) -> int:
    """Return a whole number. Raises ArgumentTypeError."""
    try:
        return int(text)
    except ValueError:
        raise _refused("must be a whole number", text) from None


def as_path(text: str) -> Path:
    """Return a path; `~` is the home folder. Raises ArgumentTypeError."""
    try:
        return typed_path(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"'{redact(text)[:200]}': {error}") from None


def as_source(text: str) -> str:
    """Return the name of a file, or an address: what is not on this machine stays as it was typed.

    Raises ArgumentTypeError.
    """
    return str(as_path(text)) if text.startswith("~") or not text.strip() else text


def repeated(command: argparse.ArgumentParser, option: str, metavar: str, what: str) -> None:
    """Add an option that may be given several times, each with one value."""
    command.add_argument(option, action="append", default=[], metavar=metavar, help=f"{what}; may be repeated")


def library_option(command: argparse.ArgumentParser) -> None:
    """Let a command take a provider that its vendor ships as a library. No sweep file can: it must not load native code."""
    repeated(
        command,
        "--provider-library",
        "NAME=PATH",
        "an execution provider that its vendor ships: its name, and its library, which is loaded and run",
    )
