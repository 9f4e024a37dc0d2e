"""The exceptions, and the exit code of each.

    AutotuneError
    +-- UsageError      2  the command line, a sweep file or data is wrong, or does not fit the results that are there
    +-- MachineError    3  this machine cannot run it: provider, package, memory, disk
    +-- StageError         the trouble of one candidate; costs a row, never the sweep
    +-- Interrupted   130  somebody ended it; run again to go on

Every bad input becomes a `Problem`: file, key, rule, value, remedy. A `UsageError` carries all that were found.
"""

from __future__ import annotations

import errno
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from enum import IntEnum
from itertools import islice
from typing import Any, Literal, get_args

from autotune.secrets import HIDDEN, names_secret, redact


class Exit(IntEnum):
    """Exit codes of the command line (a contract with scripts)."""

    OK = 0
    BUG = 1
    USAGE = 2
    MACHINE = 3
    NO_FEASIBLE = 4
    NO_RESULT = 5
    INTERRUPTED = 130


# Characters that control a terminal or the direction of its text, and halves of surrogate pairs.
_UNSAFE = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff]"
)
_LONGEST = 1000
"""The most characters of one part of a message: inputs may be of any length, and a message is one line."""


def printable(text: str) -> str:
    """Return `text` with the characters escaped that could end a line or control a terminal."""
    return _UNSAFE.sub(lambda found: repr(found[0])[1:-1], text)


def printable_lines(text: str) -> str:
    """Return `text` as `printable`, with its line ends."""
    return "\n".join(map(printable, text.split("\n")))


def printable_json(document: str) -> str:
    """Return a JSON document as `printable`, still valid: the escaped characters can occur only inside strings."""
    return _UNSAFE.sub(lambda found: found[0] if found[0] == "\n" else f"\\u{ord(found[0]):04x}", document)


def _clipped(text: str, most: int) -> str:
    """Return `text` on one line, with at most `most` characters."""
    text = redact(text)  # before it is cut: half a secret would not be recognised
    line = printable(text if len(text) <= most else text[: most - 3] + "...")
    return line if len(line) <= most else line[: most - 3] + "..."


def shown(value: object, depth: int = 0) -> str:
    """Return a value for a message: like `repr`, but short and fast, however long or deep the value is, and without secrets."""
    if isinstance(value, str):
        return repr(redact(value)[:100])
    if isinstance(value, bytes):
        return repr(value[:100])
    if isinstance(value, int):
        try:
            return repr(value)
        except ValueError:  # Python refuses to write more than 4,300 digits
            return f"{value:#x}"
    if isinstance(value, Mapping | list | tuple):
        if depth > 5:
            return "..."
        if isinstance(value, Mapping):
            hidden = {k: HIDDEN if names_secret(str(k)) else v for k, v in islice(value.items(), 20)}
            parts = [f"{shown(k, depth + 1)}: {shown(v, depth + 1)}" for k, v in hidden.items()]
            return "{" + ", ".join(parts) + "}"
        parts = [shown(part, depth + 1) for part in islice(value, 40)]
        if isinstance(value, list):
            return "[" + ", ".join(parts) + "]"
        return "(" + ", ".join(parts) + (",)" if len(parts) == 1 else ")")
    return repr(value)


@dataclass(frozen=True)
class Problem:
    """One mistake in an input: its place, the rule that it breaks, and the remedy."""

    rule: str
    key: str = ""
    file: str = ""
    line: int | None = None
    value: object = None
    remedy: str = ""

    def __str__(self) -> str:
        file = _clipped(self.file, _LONGEST)
        place = f"{file}:{self.line}" if file and self.line else file
        head = ": ".join(part for part in (place, _clipped(self.key, 200)) if part)
        rule = _clipped(self.rule, _LONGEST)
        text = f"{head}: {rule}" if head else rule
        if self.value is not None and not names_secret(self.key):
            text += f", got {_clipped(shown(self.value), 80)}"
        return f"{text}; {_clipped(self.remedy, _LONGEST)}" if self.remedy else text


class RepeatedKeyError(ValueError):
    """A JSON object has a key twice, so it is unclear which value is meant."""


def different_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the keys and values of a JSON object, as the `object_pairs_hook` of `json.loads`. Raises RepeatedKeyError."""
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        names = [name for name, _ in pairs]
        raise RepeatedKeyError(
            f"the key {shown(next(name for name in names if names.count(name) > 1))} is written twice"
        )
    return mapping


def reader_gone(error: OSError) -> bool:
    """Whether an error means that the reader of our output has closed the pipe; Windows has no error of its own for that."""
    nameless = error.errno == errno.EINVAL and error.filename is None
    return isinstance(error, BrokenPipeError) or (sys.platform == "win32" and nameless)


def refused_by_system(error: OSError) -> str:
    """Return what a file system refuses, in words: where, why, and what to do."""
    if error.errno == errno.ENOENT and not error.filename:
        return "the folder where the command runs is no longer there; change into one that is"
    place = f"{error.filename}: " if error.filename else ""
    remedy = {
        errno.ENOSPC: "free some space on that disk",
        errno.EDQUOT: "free some of your quota on that disk",
        errno.EROFS: "name a folder that can be written",
        errno.ENAMETOOLONG: "name a shorter path",
    }.get(error.errno or 0, "check the path and its permissions")
    return f"{place}{error.strerror or error}; {remedy}"


class AutotuneError(Exception):
    """The root of the errors that users see."""

    exit_code: Exit = Exit.BUG


class UsageError(AutotuneError):
    """An input is wrong; `problems` lists all mistakes."""

    exit_code = Exit.USAGE

    def __init__(self, problems: Problem | Iterable[Problem]) -> None:
        self.problems: tuple[Problem, ...] = (problems,) if isinstance(problems, Problem) else tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class MachineError(AutotuneError):
    """This machine lacks something that the sweep needs."""

    exit_code = Exit.MACHINE


class Interrupted(AutotuneError):  # noqa: N818 - it is no error
    """A user or the system ended the sweep; finished results are kept."""

    exit_code = Exit.INTERRUPTED

    def __init__(self, message: str = "interrupted; run the same command again to go on") -> None:
        super().__init__(message)


StageStatus = Literal["diverged", "out_of_memory", "timeout", "failed", "unsupported", "lost"]
"""The statuses of a row that a stage can cause by failing."""


def stage_status(of_row: object) -> StageStatus:
    """Return a row's status as one that a stage can raise; `failed` for any other."""
    statuses: tuple[StageStatus, ...] = get_args(StageStatus)
    return next((status for status in statuses if status == of_row), "failed")


class StageError(AutotuneError):
    """A stage of one candidate failed; `status` is that of its row."""

    seconds: float | None = None
    """The seconds that the stage ran, without waiting for a worker; None: not known."""

    def __init__(self, status: StageStatus, message: str) -> None:
        self.status = status
        super().__init__(message)

    def __reduce__(self) -> tuple[type[StageError], tuple[StageStatus, str]]:
        return type(self), (self.status, str(self))


# The names that other tools use, with ours.
_MEANT = {
    "rank": "r", "lora_r": "r", "lora_rank": "r", "lr": "learning_rate", "max_steps": "steps", "lora_alpha": "alpha",
    "bits": "precision", "gpu": "cuda", "directml": "dml", "latency": "itl_ms_p50", "size": "size_mb",
    "memory": "peak_memory_mb", "recipes": "build", "bayesian": "tpe", "optuna": "tpe", "base_model": "model",
    "model_name_or_path": "model", "model_id": "model", "dataset": "data", "datasets": "data", "search_space": "space",
    "num_train_epochs": "epochs", "num_epochs": "epochs", "lora_dropout": "dropout", "lora_target_modules": "target_modules",
    "per_device_train_batch_size": "batch_size", "max_seq_length": "max_length", "sequence_len": "max_length",
    "quantization": "precision", "group_size": "block_size", "n_trials": "trials", "time_limit": "time_limit_s",
    "constraints": "limits", "metrics": "metric", "response": "completion", "output": "completion", "input": "prompt",
    "instruction": "prompt", "valid": "validation", "dev": "validation", "eval": "validation", "val": "validation",
    "val_size": "holdout", "validation_split": "holdout", "test_size": "test_holdout", "size_gb": "size_mb",
    "execution_provider": "provider", "device": "provider",
    "accuracy": "choice", "acc": "accuracy|choice", "em": "exact_match", "ppl": "perplexity", "loss": "perplexity",
    "nll": "perplexity", "macro_f1": "f1", "f1_macro": "f1", "micro_f1": "f1_micro", "rouge": "rouge_l", "rougel": "rouge_l",
}  # fmt: skip


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that is most similar to `name`; None where none is similar."""
    # The time of a comparison grows with the product of the lengths, and a long text is no misspelt name.
    if len(name) > 100:
        return None
    close = get_close_matches(name, [other for other in islice(known, 20_000) if len(other) <= 100], n=1, cutoff=0.6)
    return close[0] if close else None


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """Return a remedy for an unknown name: the nearest right one, or all of them."""
    plain = name.strip().lower().replace("-", "_").replace(" ", "_")
    meant = plain if plain in known else next((one for one in _MEANT.get(plain, "").split("|") if one in known), "")
    close = meant if meant in known else nearest(name, known)
    if close:
        return f"did you mean '{close}'?"
    return "use one of: " + ", ".join(known) if known else "remove it"


_UNITS: dict[str, dict[str, float]] = {
    "hours": {"h": 1, "m": 1 / 60, "s": 1 / 3600, "d": 24},
    "s": {"h": 3600, "m": 60, "s": 1, "d": 86400},
    "ms": {"ms": 1, "s": 1000},
    "mb": {"kb": 1e-3, "mb": 1, "gb": 1e3, "mib": 1.048576, "gib": 1073.741824},
}


def _unit(name: str) -> Callable[[str], float | None]:
    """Return a function from a unit to its factor for a key or metric, whose name gives the own unit."""
    parts = name.lower().partition("@")[0].split("_")
    table = _UNITS["hours"] if name.endswith("hours") else next((_UNITS[p] for p in parts if p in _UNITS), {})

    def factor(unit: str) -> float | None:
        short = unit.lower()
        for begin, kind in (("hour", "h"), ("hr", "h"), ("min", "m"), ("sec", "s"), ("day", "d")):
            if short.startswith(begin):
                short = kind
        return table.get(short)

    return factor


_NUMBER = re.compile(r"([+-]?(?:[0-9]+(?:[.,][0-9]+)?|[.,][0-9]+)(?:e[+-]?[0-9]+)?)\s*([a-z%/]*)(.*)", re.IGNORECASE)


def number_remedy(text: str, name: str = "", quoted: bool = True) -> str:
    """Return the remedy for a text that probably means a number: '90%' is 0.9, '1,5' is 1.5, '8h' is 8 hours; else empty.

    `name`: the key or metric, whose ending says its unit. `quoted`: the text was a number in quotes.
    """
    plain = text.strip().replace("−", "-").replace("–", "-").replace("\u00a0", " ")
    if plain.lower() in ("none", "unlimited", "inf", ".inf", "infinity", "off", "no"):
        return "remove the key for none"
    if power := re.fullmatch(r"10\s*(?:\^|\*\*)\s*([+-]?[0-9]{1,3})", plain):
        return f"write 1e{int(power[1])}"
    if share := re.fullmatch(r"([0-9]{1,9})\s*/\s*([1-9][0-9]{0,8})", plain):
        return f"write {int(share[1]) / int(share[2]):g}"
    clocks = r"(?:([0-9]{1,3})-)?([0-9]{1,4})\s*(?:h|:)\s*([0-9]{1,2})(?::([0-9]{1,2})|\s*(?:m|min))?"
    if clock := re.fullmatch(clocks, plain):
        days, whole, minutes, more = (int(part or 0) for part in clock.groups())
        seconds = (days * 24 + whole) * 3600 + minutes * 60 + more
        hours = name.endswith("hours")
        return f"write {seconds / 3600 if hours else seconds:g}" if hours or name.endswith("_s") else ""
    found = _NUMBER.fullmatch(plain)
    if found is None:
        return ""
    digits, unit, rest = found[1], found[2], found[3]
    if re.fullmatch(r"[+-]?[0-9]{1,3}(,[0-9]{3})+", plain):
        return f"write {plain.replace(',', '')}"
    if rest:
        return ""
    value = float(digits.replace(",", "."))
    if unit == "%":
        return f"write {value / 100:g}"
    if unit == "":
        if "," in digits:
            return f"write {digits.replace(',', '.')}"
        if plain != text.strip():
            return f"write {plain}"
        if re.fullmatch(r"[+-]?0[0-9]+", plain):
            return f"write {int(plain)}"
        if not quoted and "e" in digits.lower() and value.is_integer() and abs(value) < 1e12:
            return f"write {int(value)}"
        return "write it without quotes" if quoted else ""
    factor = _unit(name)(unit)
    return f"write {value * factor:.6g}" if factor is not None else f"write the number alone, without '{unit}'"
