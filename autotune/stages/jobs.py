"""The jobs of a candidate: it is trained, merged, built, checked, scored and timed.

Each says everything that decides its result, and where its inputs lie. See `protocol` for what all jobs have in common.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar, TypeVar

from autotune.candidate import Lora, Recipe, Session
from autotune.metrics import PRECISION
from autotune.stages.protocol import ORT_WHEELS, DeviceJob, Job, Result, where


class FinetuneJob(Job):
    """Train a LoRA adapter up to step `stop_at` of a schedule that ends at `horizon`."""

    stage: ClassVar[str] = "finetune"
    function: ClassVar[str] = "autotune.stages.finetune:finetune"
    packages: ClassVar[tuple[str, ...]] = ("torch", "transformers", "peft", "bitsandbytes")

    base: str
    """Digest of the base model."""
    data: str
    """Digest of the training items."""
    lora: Lora
    horizon: int | None = None
    """The steps of the whole schedule; None: from `lora`, by the number of items."""
    stop_at: int | None = None
    """The step to stop at; None: the horizon."""
    seed: int
    device: str
    threads: int | None = None
    encoding: str | None = None
    """How text becomes tokens, as `Inspection.encoding`; None: by transformers."""
    sources: ClassVar[Mapping[str, str]] = {
        "base_dir": "base", "data_file": "data", "checkpoint_dir": "checkpoint",
    }  # fmt: skip
    checkpoint: str | None = where(None)
    """Key of an adapter of the same job that stopped earlier."""
    base_dir: Path = where(Path())
    data_file: Path = where(Path())
    checkpoint_dir: Path | None = where(None)
    keep_dir: Path | None = where(None)
    """The folder for checkpoints; training goes on from the last one in it."""
    stop_file: Path | None = where(None)
    """Training ends between two steps once this file exists."""
    time_limit_s: float | None = where(None)


class MergeJob(Job):
    """Merge an adapter into the base model in its original precision."""

    stage: ClassVar[str] = "merge"
    function: ClassVar[str] = "autotune.stages.merge:merge"
    packages: ClassVar[tuple[str, ...]] = ("torch", "transformers", "peft")

    sources: ClassVar[Mapping[str, str]] = {"base_dir": "base", "adapter_dir": "adapter"}

    adapter: str
    base: str
    base_dir: Path = where(Path())
    adapter_dir: Path = where(Path())


class BuildJob(Job):
    """Build a model folder for ONNX Runtime GenAI and read back what was built."""

    stage: ClassVar[str] = "build"
    version: ClassVar[int] = 2
    function: ClassVar[str] = "autotune.stages.build:build"
    packages: ClassVar[tuple[str, ...]] = (*ORT_WHEELS, "onnx", "onnx-ir", "transformers")

    source: str
    """Key of the merged model, or digest of the base model."""
    recipe: Recipe
    provider: str
    data: str | None = None
    """Digest of the training items, if the recipe is calibrated on them."""
    max_length: int | None = None
    """Tokens kept of a calibration item."""
    whole_caches: bool | None = None
    """True where layers attend to a window, and the builder would give them caches of its size: theirs hold all positions,
    too. None: nothing else could have been built."""
    tokenizer: str | None = None
    """`AS_SAVED` where the tokenizer that ships is that of tokenizer.json; None: it is in any case."""
    sources: ClassVar[Mapping[str, str]] = {"source_dir": "source", "data_file": "data"}
    source_dir: Path = where(Path())
    data_file: Path | None = where(None)


class OwnBuildJob(BuildJob):
    """Build a model folder with a user's own stages before and after the model builder."""

    function: ClassVar[str] = "autotune.stages.own_stage:build"

    model_code: str | None = None
    graph_code: str | None = None
    """Digests of the sources of the recipe's stages."""
    model_file: Path | None = where(None)
    graph_file: Path | None = where(None)
    code_root: Path | None = where(None)
    """The folder from which they are imported, unless they are installed."""


class CheckJob(DeviceJob):
    """Compare a build with the model that it was made from: logits on held-out texts, and weights."""

    stage: ClassVar[str] = "check"
    version: ClassVar[int] = 2
    function: ClassVar[str] = "autotune.stages.check_build:check"
    packages: ClassVar[tuple[str, ...]] = ("onnxruntime", "onnxruntime-gpu", "torch", "transformers")

    source: str
    """Key of the build."""
    provider: str
    recipe: Recipe
    data: str
    """Digest of the items."""
    max_length: int
    beyond: int | None = None
    """Tokens of a text that shows all that the model computes, where it is another one beyond a length; None: any does."""
    shares: bool | None = None
    """True: the result says which share of the nodes with weights the provider took; None: the provider is the CPU."""
    threads: int | None = where(None)
    sources: ClassVar[Mapping[str, str]] = {"model_dir": "source", "source_dir": "original", "data_file": "data"}
    original: str = where("")
    """Key of the source of the build: the merged model, or digest of the base model."""
    model_dir: Path = where(Path())
    source_dir: Path = where(Path())
    data_file: Path = where(Path())
    code_file: Path | None = where(None)
    """The file of the lm-evaluation-harness task to which the items belong."""


class TaskCheckJob(CheckJob):
    """Compare a build with its model on the prompts of a task of lm-evaluation-harness; `data_file` selects its items."""

    function: ClassVar[str] = "autotune.stages.lm_task:check"
    packages: ClassVar[tuple[str, ...]] = (*CheckJob.packages, "lm-eval", "datasets")

    metric: str


class ScoreJob(DeviceJob):
    """Score a built model, or an adapter on its base, on items; keep the outcome of every item."""

    stage: ClassVar[str] = "score"
    function: ClassVar[str] = "autotune.stages.score:score"
    version: ClassVar[int] = 3
    packages: ClassVar[tuple[str, ...]] = ("onnxruntime", "onnxruntime-gpu", "tokenizers")

    source: str
    """Key of the build; without a build that of the adapter, or the digest of the base model."""
    provider: str | None = None
    """The execution provider; None: PyTorch."""
    provider_options: str | None = None
    """As in `Session`. They are part of the key because they may change numbers, which threads and memory do not."""
    data: str
    metric: str
    block: tuple[int, int] | None = None
    """Of the items in the order of their ids, which no choice of ours orders, those from the first to before the second
    place; None: all, in their own order."""
    labels: tuple[str, ...] = ()
    max_length: int
    threads: int | None = None
    device: str | None = None
    dtype: str | None = None
    """PyTorch's arithmetic; None: the best one for the device."""
    max_new_tokens: int | None = None
    """The most tokens to generate; None: one more than the longest completion."""
    stop: tuple[str, ...] | None = None
    """Texts at which generation ends."""
    code: str | None = None
    """Digest of a user's own metric, or the scoring library and its version."""
    batched: bool = True
    """False: one item at a time, to test that batches make no difference."""
    encoding: str | None = None
    """How text becomes tokens, as `Inspection.encoding`; None: by transformers."""
    sources: ClassVar[Mapping[str, str]] = {"model_dir": "model", "adapter_dir": "adapter", "data_file": "data"}
    model: str = where("")
    """Key of the build; without a build the digest of the base model."""
    adapter: str | None = where(None)
    """Key of the adapter, if there is no build."""
    model_dir: Path = where(Path())
    adapter_dir: Path | None = where(None)
    data_file: Path = where(Path())
    items: int | None = where(None)
    """The number of items to score."""
    code_file: Path | None = where(None)
    code_root: Path | None = where(None)
    """The file of a user's own metric, and the folder from which it is imported."""


class TaskScoreJob(ScoreJob):
    """Score on a task of lm-evaluation-harness; `data_file` selects its items."""

    function: ClassVar[str] = "autotune.stages.lm_task:score"
    packages: ClassVar[tuple[str, ...]] = (*ScoreJob.packages, "lm-eval", "datasets")

    parts: bool | None = None
    """True: the score is no mean, so the result holds each item's part in it; None: it is the mean of the items."""


class TimeJob(DeviceJob):
    """Time one built graph in a fresh process."""

    stage: ClassVar[str] = "time"
    function: ClassVar[str] = "autotune.stages.timing:time_process"
    packages: ClassVar[tuple[str, ...]] = (*ORT_WHEELS, "onnxruntime", "onnxruntime-gpu")

    graph: str
    """Signature of the graph: adapters that share it share its latency."""
    provider: str
    threads: int | None = None
    arena: bool | None = None
    mem_pattern: bool | None = None
    provider_options: str | None = None
    prompt_tokens: int
    new_tokens: int
    lengths: tuple[tuple[int, int], ...] | None = None
    """Prompt and new tokens of one sequence after another, where they differ; then those above are the most."""
    batch: int = 1
    machine: str
    processes: int = 5
    """Fresh processes at least."""
    most: int = 12
    """And at most."""
    precision: float = PRECISION
    """Half the width of the interval at which it is narrow enough, as a share."""
    since: str | None = None
    """When the present pace of this machine began, UTC; None: no earlier one is known."""
    sources: ClassVar[Mapping[str, str]] = {"model_dir": "build"}
    again: int | None = None
    """How many timings before this one were made beside other work, or stayed wide; None: none."""
    build: str = where("")
    """Key of a build of this graph."""
    model_dir: Path = where(Path())
    begun: tuple[Result, ...] = where(())
    """What processes have measured before: they count."""
    engines_dir: Path | None = where(None)
    """Where the provider keeps engines that it has compiled; None: it keeps none."""

    @property
    def session(self) -> Session:
        """The session that serves the model."""
        return Session(
            threads=self.threads, arena=self.arena, mem_pattern=self.mem_pattern,
            provider_options=self.provider_options,
        )  # fmt: skip


SLICE = 3
"""The most tokens that a model generates in one turn."""


class TurnsJob(Job):
    """Time graphs in turns, one process of each per round, so that a drift of the machine affects all alike and ratios hold."""

    stage: ClassVar[str] = "turns"
    version: ClassVar[int] = 2
    function: ClassVar[str] = TimeJob.function
    packages: ClassVar[tuple[str, ...]] = TimeJob.packages

    graphs: tuple[TimeJob, ...]
    """The first is what the others are compared with; twice in here, it shows the noise."""
    may_leave: tuple[int, ...] | None = None
    """Places of those that take no turns any more once they are clearly slower than another."""
    processes: int = 5
    """Rounds at least."""
    most: int = 12
    """And at most."""
    precision: float = PRECISION
    """Half the width of a ratio's interval at which it is narrow enough, as a share."""


J = TypeVar("J", bound=Job)


def resolved(job: J, place: Callable[[str], Path]) -> J:
    """Return a job with the paths of its inputs filled in: `place` says where what has a key lies.

    A path that is given already stays. What `place` raises passes.
    """
    if isinstance(job, TurnsJob):
        return job.model_copy(update={"graphs": tuple(resolved(graph, place) for graph in job.graphs)})
    keys = {path: getattr(job, key) for path, key in job.sources.items() if getattr(job, path) in (None, Path())}
    return job.model_copy(update={path: place(key) for path, key in keys.items() if key})
