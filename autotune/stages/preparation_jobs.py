"""The jobs before the first candidate: inputs are fetched and inspected, devices and recipes are probed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

from autotune.candidate import Recipe
from autotune.stages.protocol import ORT_WHEELS, DeviceJob, Job, where


class BaseJob(Job):
    """Fetch a built-in model, or one of the hub or of Azure ML, once; keep it as safetensors in its original precision."""

    stage: ClassVar[str] = "base"
    function: ClassVar[str] = "autotune.stages.base:fetch"
    packages: ClassVar[tuple[str, ...]] = ("transformers",)

    name: str


class DataJob(Job):
    """Fetch one split of a hub dataset and keep it as JSON lines."""

    stage: ClassVar[str] = "data"
    function: ClassVar[str] = "autotune.stages.base:fetch_data"
    packages: ClassVar[tuple[str, ...]] = ("datasets",)

    dataset: str
    config: str | None = None
    split: str


class RemoteFileJob(Job):
    """Fetch a file of rows from Azure ML."""

    stage: ClassVar[str] = "data"
    function: ClassVar[str] = "autotune.stages.base:fetch_file"

    address: str
    seen: str
    """A digest that changes with the file's content, see `remote.files.stamp`."""

    @property
    def file_name(self) -> str:
        """The name of the file in the result; its suffix is that of the format."""
        return "rows" + PurePosixPath(self.address).suffix


class ProbeJob(Job):
    """Look at this machine's accelerators."""

    stage: ClassVar[str] = "probe"
    version: ClassVar[int] = 2
    function: ClassVar[str] = "autotune.stages.probe:probe"

    machine: str
    packages_digest: str
    gpus: int | None = None
    """The number of GPUs that the driver lists."""
    visible: str | None = None
    """CUDA_VISIBLE_DEVICES, if it is set."""


class DevicesJob(Job):
    """List the devices of an execution provider. The result is never cached: a device may go at any time."""

    stage: ClassVar[str] = "devices"
    function: ClassVar[str] = "autotune.stages.devices:devices"

    provider: str
    device_index: int | None = None
    """The device to open, from 0; None: the first."""
    label: str | None = where(None)
    """As in `DeviceJob`."""


class OwnStageJob(Job):
    """Import a user's own stage and check that it can be called with its options."""

    stage: ClassVar[str] = "own_stage"
    function: ClassVar[str] = "autotune.stages.own_stage:check_stage"

    text: str
    code: str
    """Digest of its source."""
    file: Path = where()
    root: Path | None = where(None)


class MetricJob(Job):
    """Import a user's own metric and check that it can be called."""

    stage: ClassVar[str] = "metric"
    function: ClassVar[str] = "autotune.stages.own_metric:check_metric"

    metric: str
    code: str
    """Digest of its source."""
    file: Path = where()
    root: Path | None = where(None)


class TaskJob(Job):
    """Read a task of lm-evaluation-harness: its metric and which of its items are scored."""

    stage: ClassVar[str] = "task"
    version: ClassVar[int] = 2
    function: ClassVar[str] = "autotune.stages.lm_task:read"
    packages: ClassVar[tuple[str, ...]] = ("lm-eval", "datasets")

    metric: str
    code: str
    """Digest of the task file and its data."""
    max_validation: int | None = None
    max_test: int | None = None
    file: Path = where()


class LengthsJob(Job):
    """Count the tokens of a split's prompts and completions, as they are scored."""

    stage: ClassVar[str] = "lengths"
    function: ClassVar[str] = "autotune.stages.lengths:lengths"
    packages: ClassVar[tuple[str, ...]] = ("tokenizers", "transformers")

    base: str
    data: str
    labels: tuple[str, ...] = ()
    max_length: int
    encoding: str | None = None
    """How text becomes tokens, as `Inspection.encoding`; None: by transformers."""
    base_dir: Path = where()
    data_file: Path = where()


class InspectJob(Job):
    """Inspect a model, its tokenizer and the data before anything is trained; the result is an `Inspection`."""

    stage: ClassVar[str] = "inspect"
    version: ClassVar[int] = 3
    function: ClassVar[str] = "autotune.stages.inspection:inspect"
    packages: ClassVar[tuple[str, ...]] = ("transformers", "tokenizers", "jinja2", *ORT_WHEELS)

    model: str
    """Digest of the files that decide the result: `models.digest_outline`."""
    data: tuple[tuple[str, str], ...]
    """The name of each split, and the digest of its items."""
    labels: tuple[str, ...] = ()
    metric: str
    max_length: int
    max_new_tokens: int | None = None
    stop: tuple[str, ...] | None = None
    ships: bool
    """Whether a model is built, whose users have ONNX Runtime GenAI alone."""
    model_dir: Path = where()
    files: tuple[Path, ...] = where()
    """The items of each split, in the order of `data`."""


class TinyJob(Job):
    """Write a tiny random model with a tokenizer, to probe a provider or to test with."""

    stage: ClassVar[str] = "tiny"
    function: ClassVar[str] = "autotune.stages.tiny:tiny"
    packages: ClassVar[tuple[str, ...]] = ("torch", "transformers")

    architecture: str = "LlamaForCausalLM"
    seed: int = 0
    changes: dict[str, Any] | None = None
    """What of its config.json is another than a tiny model has."""


class CapabilityJob(DeviceJob):
    """Test whether a device runs a tiny random model in a recipe, and computes what PyTorch computes."""

    stage: ClassVar[str] = "capability"
    function: ClassVar[str] = "autotune.stages.capability:capability"
    packages: ClassVar[tuple[str, ...]] = (
        *ORT_WHEELS, "onnx", "onnx-ir", "onnxruntime", "onnxruntime-gpu", "torch", "transformers",
    )  # fmt: skip

    provider: str
    recipe: Recipe
    source: str
    """Key of the tiny model."""
    tokens: int
    """Of the longest text that is compared."""
    sources: ClassVar[Mapping[str, str]] = {"source_dir": "source"}
    source_dir: Path = where(Path())
