"""Find the user's own stages, and try each one before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from autotune.candidate import Recipe
from autotune.errors import Problem, StageError, UsageError
from autotune.pipeline.devices import DoJob
from autotune.space.own_stages import read_stage
from autotune.stages.preparation_jobs import OwnStageJob
from autotune.usercode import STAGE, Code, find_function


def own_stages(recipes: Sequence[Recipe], root: Path, sweep_file: str, do: DoJob, timeout: float) -> dict[str, Code]:
    """Return the sources of the user's own stages by function, each tried in a worker with its options.

    `root`: the folder below which their files are; `sweep_file`: the file that names them. Raises UsageError.
    """
    found: dict[str, Code] = {}
    for text in dict.fromkeys(text for recipe in recipes for text in recipe.own_stages.values()):
        function = read_stage(text).function
        code = found[function] = find_function(function, root, STAGE)
        try:
            do(OwnStageJob(text=text, code=code.digest, file=code.file, root=code.root), timeout)
        except StageError as error:
            remedy = "logs/prepare.log in the results folder has the rest"
            raise UsageError(Problem(str(error), "space.build", sweep_file, remedy=remedy)) from None
    return found
