"""Collects the code of a job: the sweep file, the user's own functions that it names, and this tool itself.

It takes nothing else of the working directory: no data, no results, no environment files with secrets.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from autotune.errors import Problem, UsageError
from autotune.metrics import is_function, is_task
from autotune.secrets import redact
from autotune.space.own_stages import read_stage
from autotune.submit.plan import Plan
from autotune.tasks import find_task
from autotune.usercode import STAGE, Code, find_function

TOOL = "tool"
"""The folder in the job's code that holds this tool, which goes before an installed one."""
_PACKAGE = Path(__file__).parents[1]
_CONTAINERS = re.compile(r"\b(abfss?|wasbs?)://[a-z0-9$-]{1,63}@")
"""How an address on Azure Storage names its container, where others have a password."""
_FILLED_IN = re.compile(r"(?:\{[^{}]*\}:?)+@?")
"""Placeholders in code, which hold no secret, as in `f"https://{user}:{password}@host"`."""


def own_code(plan: Plan) -> list[Code]:
    """Return the user's own functions that a sweep names, each with its files. Raises UsageError."""
    sweep = plan.sweep
    found = []
    if is_function(sweep.data.metric):
        found.append(find_function(sweep.data.metric, sweep.root))
    elif is_task(sweep.data.metric):
        found.append(find_task(sweep.data.metric, sweep.root))
    for one in (sweep, *sweep.targets.values()):
        texts = {text for recipe in one.space.recipes for text in recipe.own_stages.values()}
        found += [find_function(read_stage(text).function, sweep.root, STAGE) for text in sorted(texts)]
    return found


def _own_files(plan: Plan) -> list[Path]:
    """Return the files of the user's own functions below the sweep file's folder; others belong to installed packages.

    Raises UsageError.
    """
    root = plan.sweep.root.absolute()
    found = {file.absolute() for one in own_code(plan) for file in one.files}
    return sorted(file for file in found if file.is_relative_to(root))


def refuse_secrets(plan: Plan) -> None:
    """Raise UsageError where the sweep file, an argument of the command or the user's code holds a token or a password."""
    remedy = "take it out; submit.azureml.hf_token names a secret of a key vault"
    try:
        text = plan.file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UsageError(Problem(f"cannot be read ({error})", file=str(plan.file))) from None
    text = _CONTAINERS.sub(r"\1://", text)
    if redact(text) != text:
        raise UsageError(
            Problem("holds a password or token, which would go into the job", file=str(plan.file), remedy=remedy)
        )
    refuse_secrets_in_words(plan)
    _refuse_secrets_in_code(plan)


def refuse_secrets_in_words(plan: Plan) -> None:
    """Raise UsageError where an argument of the command, which the job's file holds, contains a token or a password."""
    remedy = (
        "take it out; a token for the hub is read from HF_TOKEN, or from a secret that submit.azureml.hf_token names"
    )
    for word in plan.words:
        if redact(word) != word:
            key = word.removeprefix("--set=").partition("=")[0]
            rule = "holds a password or token, which would go into the job"
            raise UsageError(Problem(rule, key, "command line", remedy=remedy))


def _refuse_secrets_in_code(plan: Plan) -> None:
    """Raise UsageError where a file of the user's own functions, which goes into the job, holds a token or a password."""
    for file in _own_files(plan):
        text = file.read_bytes().decode("utf-8", "replace")
        for number, line in enumerate(text.splitlines(), 1):
            line = _FILLED_IN.sub("", line)
            if redact(line) != line:
                rule = "holds a password or token, which would go into the job"
                remedy = "take it out, and read it from an environment variable there"
                raise UsageError(Problem(rule, file=str(file), line=number, remedy=remedy))


def stage(plan: Plan, folder: Path, with_tool: bool) -> None:
    """Replace `folder` by a job's code. Raises UsageError where the folder holds anything else, OSError."""
    own = _own_files(plan)
    root = plan.sweep.root.absolute()
    if folder.exists() and not (folder / plan.file.name).is_file() and any(folder.iterdir()):
        rule = "is there, and holds something else than the code of a job"
        raise UsageError(Problem(rule, file=str(folder), remedy="remove it, or name another file with -o"))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copyfile(plan.file, folder / plan.file.name)
    for file in own:
        target = folder / file.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    if with_tool:
        ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
        shutil.copytree(_PACKAGE, folder / TOOL / _PACKAGE.name, ignore=ignored)
