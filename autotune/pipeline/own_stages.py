"""Find the user's own stages, and try each one before anything is trained."""

from __future__ import annotations

from autotune.errors import Problem, StageError, UsageError
from autotune.pipeline.devices import DoJob
from autotune.space.own_stages import read_stage
from autotune.stages.preparation_jobs import OwnStageJob
from autotune.sweepfile.schema import Sweep
from autotune.usercode import STAGE, Code, find_function


def own_stages(sweep: Sweep, do: DoJob, timeout: float) -> dict[str, Code]:
    """Return the sources of the user's own stages by function, each tried in a worker with its options. Raises UsageError."""
    found: dict[str, Code] = {}
    for text in dict.fromkeys(text for recipe in sweep.space.recipes for text in recipe.own_stages.values()):
        function = read_stage(text).function
        code = found[function] = find_function(function, sweep.root, STAGE)
        try:
            do(OwnStageJob(text=text, code=code.digest, file=code.file, root=code.root), timeout)
        except StageError as error:
            remedy = "logs/prepare.log in the results folder has the rest"
            raise UsageError(Problem(str(error), "space.build", sweep.file, remedy=remedy)) from None
    return found
