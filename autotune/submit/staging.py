"""What goes into a job as its code: the sweep file, the user's own functions that it names, and this tool itself.

Nothing else of the working directory is taken: no data, no results, no environment files with secrets.
"""

from __future__ import annotations

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
"""The folder of the code that holds this tool; it goes before what is installed there."""
_PACKAGE = Path(__file__).parents[1]


def own_code(plan: Plan) -> list[Code]:
    """Return the user's own functions that a sweep names, each with the files that it is made of. Raises UsageError."""
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


def refuse_secrets(plan: Plan) -> None:
    """Raise UsageError where the sweep file, or a word of the command, holds a token or a password."""
    remedy = "take it out; submit.azureml.hf_token names a secret of a key vault"
    try:
        text = plan.file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UsageError(Problem(f"cannot be read ({error})", file=str(plan.file))) from None
    if redact(text) != text:
        raise UsageError(
            Problem("holds a password or token, which would go into the job", file=str(plan.file), remedy=remedy)
        )
    for word in plan.words:
        if redact(word) != word:
            key = word.removeprefix("--set=").partition("=")[0]
            rule = "holds a password or token, which would go into the job"
            raise UsageError(Problem(rule, key, "command line", remedy=remedy))


def stage(plan: Plan, folder: Path, with_tool: bool) -> None:
    """Fill `folder` with a job's code, anew. Raises UsageError, OSError."""
    code = own_code(plan)
    root = plan.sweep.root.absolute()
    if folder.exists() and not (folder / plan.file.name).is_file() and any(folder.iterdir()):
        rule = "is there, and holds something else than the code of a job"
        raise UsageError(Problem(rule, file=str(folder), remedy="remove it, or name another file with -o"))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copyfile(plan.file, folder / plan.file.name)
    for file in sorted(
        {file for one in code for file in one.files if one.root is not None or file.is_relative_to(root)}
    ):
        inside = file.absolute()
        if not inside.is_relative_to(root):
            continue  # of an installed package
        target = folder / inside.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    if with_tool:
        ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
        shutil.copytree(_PACKAGE, folder / TOOL / _PACKAGE.name, ignore=ignored)
