"""Run one Olive configuration in Olive's own environment, with or without patches. Nothing of this project is imported.

`PYTHON_OF_OLIVE benchmarks/olive_in_its_place.py CONFIG --patches NAME,NAME` is what `benchmarks.olive_side_by_side` starts.
"""

from __future__ import annotations

import argparse
import json
import pathlib
from collections.abc import Callable
from typing import Any


def _no_quantised_loader() -> None:
    """Leave out Olive's patch of the builder's loader for models that Olive itself has quantised."""
    from olive.passes.onnx.model_builder import ModelBuilder  # type: ignore[import-not-found, unused-ignore]

    ModelBuilder.maybe_patch_quant = staticmethod(lambda: None)


def _parsed_options() -> None:
    """Prepare the builder's options as onnxruntime-genai asks for them since `create_model` no longer does it itself."""
    from onnxruntime_genai.models import builder

    made = builder.create_model

    def create_model(
        model_name: str, input_path: str, output_dir: str, precision: Any, execution_provider: str, cache_dir: str, **options: Any
    ) -> Any:  # fmt: skip
        place = (
            model_name,
            input_path,
            output_dir,
            str(getattr(precision, "value", precision)),
            execution_provider,
            cache_dir,
        )
        given = [f"{key}={value}" for key, value in options.items()]
        return made(*place, **builder.parse_extra_options(*place, given))

    builder.create_model = create_model


PATCHES: dict[str, tuple[Callable[[], None], str]] = {
    "quantised loader": (
        _no_quantised_loader,
        "before each build Olive changes a class of `onnxruntime_genai.models.quantized_model`, which is no longer there; the "
        "change is for models that Olive has quantised itself, and is left out",
    ),
    "builder options": (
        _parsed_options,
        "Olive calls `create_model` with plain options; onnxruntime-genai wants them from `parse_extra_options`",
    ),
}
"""By name, a patch and why it is needed."""


def main() -> None:
    """Apply patches, and run the configuration as `olive run --config` does."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config")
    parser.add_argument("--patches", default="")
    arguments = parser.parse_args()
    for name in filter(None, arguments.patches.split(",")):
        PATCHES[name][0]()
    from olive.workflows import run  # type: ignore[import-not-found, unused-ignore]

    with pathlib.Path(arguments.config).open(encoding="utf-8") as file:
        run(json.load(file))


if __name__ == "__main__":
    main()
