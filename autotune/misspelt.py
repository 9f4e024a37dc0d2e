"""What was probably meant by a command line that argparse refuses."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from autotune.errors import nearest
from autotune.paths import is_file, is_folder

_SWEEPS = (".yaml", ".yml", ".toml", ".json")
_WORDS = {
    "help": "--help", "-help": "--help", "version": "--version", "-v": "--version", "start": "run", "tune": "run", "train": "run",
    "resume": "run", "check": "plan", "validate": "plan", "best": "select", "choose": "select", "show": "status",
    "watch": "status --watch", "list": "status", "evaluate": "score", "eval": "score", "test": "score", "benchmark": "bench",
    "deploy": "export", "new": "init", "create": "init", "examples": "init --example", "clean": "cache prune",
    "info": "doctor", "env": "doctor",
}  # fmt: skip
"""Commands of other tools, and what they are called here."""
_OPTIONS = {
    "--dry-run": "autotune plan checks a sweep and runs nothing", "--resume": "leave it out: run goes on where the sweep stopped",
    "--continue": "leave it out: run goes on where the sweep stopped", "--config": "name the file alone, without an option",
    "--sweep": "name the file alone, without an option", "--file": "name the file alone, without an option",
    "--overwrite": "give another --out, or remove the results folder", "--force": "give another --out, or remove the results folder",
    "--quiet": "send stderr elsewhere: 2>log.txt", "--verbose": "leave it out: logs/ in the results folder has what stages print",
}  # fmt: skip
"""Options of other tools, and what to do instead of each in `run` and `plan`."""
_KEYS = {
    "model": "model", "seed": "seed", "strategy": "strategy", "name": "name", "provider": "target.provider", "device": "train.device",
    "threads": "target.threads", "metric": "data.metric", "data": "data.train", "train": "data.train", "batch-size": "train.batch_size",
    "workers": "workers.cpu", "test": "data.test", "validation": "data.validation", "limits": "limits",
}  # fmt: skip
"""Options that are keys of the sweep file."""


def hint(parser: argparse.ArgumentParser, given: Sequence[str], message: str) -> str:
    """Return the remedy for argparse's message: the nearest word, or where the argument belongs; empty where none is known.

    `given`: the whole command line.
    """
    if refused := re.search(r"argument COMMAND: invalid choice: '([^']*)'", message):
        return _command(parser, given, refused[1])
    if refused := re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)$", message):
        near = nearest(refused[1], re.findall(r"[^\s,']+", refused[2]))
        return f"did you mean '{near}'?" if near else ""
    if refused := re.search(r"^unrecognized arguments: (.*)$", message):
        return _left_over(parser, given, refused[1].split(" "))
    return ""


def _command(parser: argparse.ArgumentParser, given: Sequence[str], word: str) -> str:
    """Return what was meant by a word that is no command."""
    if given and given[0].startswith("-"):
        return "write the command first, and its options behind it"
    if word.lower() in _WORDS:
        return f"did you mean 'autotune {_WORDS[word.lower()]}'?"
    if near := nearest(word, _commands(parser)):
        return f"did you mean '{near}'?"
    path = Path(word)
    if word.lower().endswith(_SWEEPS):
        return f"did you mean 'autotune run {word}'?"
    if is_folder(path):
        what = "status" if is_file(path / "results.csv") else "bench" if is_file(path / "genai_config.json") else ""
        return f"did you mean 'autotune {what} {word}'?" if what else ""
    return ""


def _left_over(parser: argparse.ArgumentParser, given: Sequence[str], words: list[str]) -> str:
    """Return what was meant by arguments that a command does not take."""
    every = _commands(parser)
    own = next((every[word] for word in given if word in every), None)
    known = sorted(set(_options(own if own is not None else parser)))
    for word in words:
        name = word.partition("=")[0]
        if name.startswith("--"):
            if own is not None and "--set" in known:
                if name in _OPTIONS:
                    return _OPTIONS[name]
                if name[2:] in _KEYS:
                    return f"write --set {_KEYS[name[2:]]}=VALUE"
            owners = [command for command, one in every.items() if name in set(_options(one))]
            if owners:
                return f"{name} belongs to {', '.join(owners)}"
            if near := nearest(name, known):
                return f"did you mean '{near}'?"
            near = nearest(name, sorted({option for one in every.values() for option in _options(one)}))
            return f"did you mean '{near}'?" if near else ""
        if "--limit" in known and re.search(r"[<>]", word):
            return "write --limit before each limit"
        if "--set" in known and re.match(r"[A-Za-z_.]+=", word):
            return "write --set before each KEY=VALUE"
        if word and not word.startswith("-") and "select" in given[:1]:
            return "select takes one folder; report compares several"
    return ""


def _commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Return the commands of a parser by name."""
    found: dict[str, argparse.ArgumentParser] = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found |= action.choices
    return found


def _options(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Yield the long options of a parser."""
    for action in parser._actions:
        yield from (option for option in action.option_strings if option.startswith("--"))
