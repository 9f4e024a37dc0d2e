"""A user's own stages in a build: on the merged model before it, and on the ONNX folder after it.

    def stage(source: Path, out: Path, **options) -> None

`source` is a folder of the function's own, which it may change; into the empty folder `out` it writes the whole result.
What it made is read back, compared with PyTorch, scored and timed as any other build.
"""

from __future__ import annotations

import inspect
import shutil
from pathlib import Path

from autotune.errors import StageError
from autotune.scratch import scratch
from autotune.space.own_stages import read_stage
from autotune.stages.build import build as build_model
from autotune.stages.build import shipped_bytes
from autotune.stages.graph_nodes import read_back
from autotune.stages.jobs import BuildJob, OwnBuildJob
from autotune.stages.library_errors import reason
from autotune.stages.own_metric import load_function
from autotune.stages.preparation_jobs import OwnStageJob
from autotune.stages.protocol import Result
from autotune.usercode import STAGE

_NEEDED = {"model_stage": ("config.json",), "graph_stage": ("genai_config.json", "model.onnx")}
"""The files that a stage must write."""


def check_stage(job: OwnStageJob, out: Path) -> Result:
    """Import a stage, and check that it takes its options. Raises StageError (`failed`)."""
    del out
    _load(job.text, job.code, job.file, job.root)
    return {}


def _load(text: str, code: str, file: Path, root: Path | None) -> tuple[object, dict[str, int | float | str]]:
    stage = read_stage(text)
    function = load_function(stage.function, code, file, root, STAGE)
    try:
        inspect.signature(function).bind(file, file, **stage.options)
    except TypeError as error:
        options = ", ".join(stage.options) or "no options"
        raise StageError(
            "failed", f"{stage.function} does not take {options}: {error}; write {STAGE.signature}"
        ) from error
    except ValueError:  # a function of an extension module tells nothing of its arguments
        pass
    return function, stage.options


def change(kind: str, text: str, code: str, file: Path, root: Path | None, source: Path, out: Path) -> None:
    """Call a stage. Raises StageError: `out_of_memory`, or `failed` with what it raised or did not write."""
    function, options = _load(text, code, file, root)
    assert callable(function)
    try:
        function(source, out, **options)
    except (MemoryError, StageError):
        raise
    except (Exception, SystemExit) as error:
        said, name = reason(error), type(error).__name__
        raised = name if said == name else f"{name}: {said}"
        raise StageError("failed", f"{kind}: {text} raised {raised}") from error
    missing = [name for name in _NEEDED[kind] if not (out / name).is_file()]
    if missing:
        raise StageError("failed", f"{kind}: {text} wrote no {missing[0]} into its second folder")


def build(job: OwnBuildJob, out: Path) -> Result:
    """Build as `stages.build` does, with the user's stages before and after it. Raises StageError."""
    recipe = job.recipe
    plain = recipe.model_copy(update={"model_stage": None, "graph_stage": None})
    with scratch("own") as aside:
        source = job.source_dir
        if recipe.model_stage is not None:
            assert job.model_code is not None
            assert job.model_file is not None
            given, source = aside / "given", aside / "model"
            shutil.copytree(job.source_dir, given)
            source.mkdir()
            change("model_stage", recipe.model_stage, job.model_code, job.model_file, job.code_root, given, source)
            shutil.rmtree(given, ignore_errors=True)
        folder = out
        if recipe.graph_stage is not None:
            folder = aside / "built"
            folder.mkdir()
        fields = {name: getattr(job, name) for name in BuildJob.model_fields}
        result = build_model(BuildJob(**fields | {"recipe": plain, "source_dir": source}), folder)
        if recipe.graph_stage is None:
            return result
        assert job.graph_code is not None
        assert job.graph_file is not None
        change("graph_stage", recipe.graph_stage, job.graph_code, job.graph_file, job.code_root, folder, out)
    try:
        return {**read_back(out), "size_mb": shipped_bytes(out) / 1e6}
    except Exception as error:
        message = f"graph_stage: what {recipe.graph_stage} wrote cannot be read: {reason(error)}"
        raise StageError("failed", message) from error
