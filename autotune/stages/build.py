"""Build a model folder with the builder of ONNX Runtime GenAI, then read back what was really built.

A build that differs from its recipe fails: see `read_back`.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from autotune.candidate import Recipe
from autotune.errors import StageError
from autotune.models import model_files
from autotune.providers import PROVIDERS
from autotune.scratch import scratch
from autotune.space.own_stages import OWN_STAGES
from autotune.space.parameter_tables import RECIPE
from autotune.stages.graph_nodes import differences, read_back
from autotune.stages.jobs import BuildJob
from autotune.stages.kv_scales import baseline, calibrate, calibration_texts
from autotune.stages.library_errors import refused
from autotune.stages.protocol import Result
from autotune.stages.saved_tokenizer import open_tokenizer
from autotune.stages.text import encode, load_tokenizer, read_items


def options(recipe: Recipe) -> dict[str, str]:
    """Return the recipe as options of the model builder.

    A cache of the window's size is not asked for: the runtime refuses any text whose `max_length` is below the window,
    which a layer with a whole cache attends to as well.
    """
    given: dict[str, str] = {"hf_token": "false", "hf_remote": "false", "windowed_kv_cache": "false"}
    for name, value in recipe.model_dump(exclude_none=True, exclude={"precision", *OWN_STAGES}).items():
        text = str(value).lower() if isinstance(value, bool) else str(value)
        given[RECIPE[name].option or name] = text
    return given


def shipped_bytes(folder: Path) -> int:
    """Return the size of a built folder in bytes: all of its files ship."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def plain(error: Exception) -> Exception:
    """Return the builder's error with a clear message: a KeyError has only a name, an AssertionError often nothing."""
    match error:
        case KeyError():
            return RuntimeError(f"it does not find {error}, which this model's config.json or its own tables lack")
        case AssertionError() | AttributeError() | ArithmeticError():
            said = f": {error}" if str(error) else ""
            return RuntimeError(f"it fails with {type(error).__name__}{said}; it was not made for this model")
        case _:
            return error


def _run_builder(source: Path, recipe: Recipe, provider: str, out: Path, scratch: Path, more: dict[str, str]) -> None:
    from onnxruntime_genai.models import builder

    flag = PROVIDERS[provider].builder_flag
    given = [f"{key}={value}" for key, value in (options(recipe) | more).items()]
    place = (str(source), str(out), recipe.precision, flag, str(scratch))
    try:
        builder.create_model(None, *place, **builder.parse_extra_options(None, *place, given))
    except (
        NotImplementedError, ValueError, TypeError, LookupError, AssertionError, RuntimeError, AttributeError,
        ArithmeticError,
    ) as error:  # fmt: skip
        raise refused(plain(error), f"the model builder refuses {recipe}") from error


_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")


def _with_its_tokenizer(source: Path, place: Path) -> Path:
    """Return a model folder for the builder, which loads the tokenizer by the class that the model names: the model's own, or
    `place`, with the same files and the tokenizer as its tokenizer.json says.
    """
    try:
        tokenizer, named_class = open_tokenizer(source)
    except Exception:  # noqa: BLE001 - the builder says what is wrong with it
        return source
    if not named_class:
        return source
    place.mkdir()
    for file in model_files(source):
        try:
            os.link(file.resolve(), place / file.name)
        except OSError:  # on another disk
            shutil.copyfile(file, place / file.name)
    for name in _TOKENIZER:
        (place / name).unlink(missing_ok=True)  # a linked file must not be written into
    tokenizer.save_pretrained(str(place))
    return place


def _calibrated(job: BuildJob, scratch: Path) -> Path:
    """Build the recipe with its cache in floats, run the training items through it, and return the scale file."""
    scheme = job.recipe.kv_cache_quant_scheme
    if scheme is None or job.data_file is None or job.max_length is None:
        raise StageError("unsupported", f"{job.recipe} is calibrated on training items, and there are none")
    floats, file = scratch / "floats", scratch / "kv_scales.json"
    floats.mkdir()
    _run_builder(job.source_dir, baseline(job.recipe), "cpu", floats, scratch, {})
    items, _ = encode(load_tokenizer(job.source_dir), read_items(job.data_file), job.max_length)
    texts = calibration_texts([(item.prompt, item.completion) for item in items])
    calibrate(floats, texts, scheme, file)
    shutil.rmtree(floats, ignore_errors=True)
    return file


def build(job: BuildJob, out: Path) -> Result:
    """Build `job.source_dir` into `out`. Result: what `read_back` says, and `size_mb`.

    Raises StageError: `unsupported` where the builder refuses, `failed` where it built something else.
    """
    with scratch("build") as folder:
        source = _with_its_tokenizer(job.source_dir, folder / "source")
        own_tokenizer, job = source != job.source_dir, job.model_copy(update={"source_dir": source})
        given = {}
        if job.recipe.calibrated:
            given["kv_cache_scale_file"] = str(_calibrated(job, folder))
        _run_builder(job.source_dir, job.recipe, job.provider, out, folder, given)
        if own_tokenizer:  # of some kinds of model (Qwen2) transformers takes its own class, whatever the files name
            for name in _TOKENIZER:
                (out / name).unlink(missing_ok=True)
                if (source / name).is_file():
                    shutil.copyfile(source / name, out / name)
    built = read_back(out)
    wrong = differences(job.recipe, built)
    if wrong:
        raise StageError("failed", f"built something else than {job.recipe}: " + "; ".join(wrong))
    return {**built, "size_mb": shipped_bytes(out) / 1e6}
