"""The frozen descriptions of the stages: everything that decides a result, and where its inputs lie.

Fields marked `where()` say where something lies, which nodes can do the job or how long it may take. They are not part of
the key: a result is found again by what went into it, wherever that was.

It is one module because every other room may import these descriptions, and nothing else of `stages`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from autotune.candidate import Frozen, Lora, Recipe, Session, digest
from autotune.errors import StageError
from autotune.metrics import PRECISION
from autotune.providers import PROVIDERS
from autotune.providers import installed as installed

Result = dict[str, Any]
"""The values that a stage returns besides its files, as plain JSON."""


def where(default: Any = ...) -> Any:
    """Return a dataclass field that is not part of the job's key."""
    return Field(default, exclude=True)


def reason(error: BaseException) -> str:
    """Return the first line of a library's error, or its class if it has no message."""
    first, *more = str(error).strip().splitlines() or [type(error).__name__]
    told = first.endswith(":") and bool(more) and more[0][:1].isspace()
    return f"{first} {more[0].strip()}" if told else first


_NO_MEMORY = ("out of memory", "allocate memory", "failed to allocate", "bad alloc", "bad_alloc")


def short_of_memory(error: BaseException) -> bool:
    """Whether a library's error reports a lack of memory."""
    return isinstance(error, MemoryError) or any(sign in str(error).lower() for sign in _NO_MEMORY)


def refused(error: Exception, what: str) -> StageError:
    """Return a library's error as a StageError of the candidate: `out_of_memory` if it reports that, else `unsupported`."""
    return StageError("out_of_memory" if short_of_memory(error) else "unsupported", f"{what}: {reason(error)}")


ORT_WHEELS = ("onnxruntime-genai", "onnxruntime-genai-cuda", "onnxruntime-genai-directml", "onnxruntime-genai-winml")


class Job(Frozen):
    """One piece of work for a stage: the inputs that decide its result, and where they lie."""

    stage: ClassVar[str]
    function: ClassVar[str]
    """The function that does the job, as `module:name`; imported in a worker process only."""
    version: ClassVar[int] = 1
    packages: ClassVar[tuple[str, ...]] = ()
    """The packages whose versions change the result."""
    sources: ClassVar[Mapping[str, str]] = {}
    """Maps each field with an input's path to the field with the input's key. See `resolved`."""

    def described(self) -> dict[str, Any]:
        """The inputs that decide the result, as plain data."""
        packages = {name: installed(name) for name in self.packages} | self.brought
        content = self.model_dump(mode="json", exclude_none=True)
        return {"stage": self.stage, "version": self.version, "packages": packages, "inputs": content}

    @property
    def brought(self) -> dict[str, str]:
        """The package and version of the job's execution provider, if it is a plugin."""
        return {}

    @cached_property
    def key(self) -> str:
        """The SHA-256 of `described()`: the name of the result in the cache."""
        return digest(self.described())


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


AS_SAVED = "tokenizer.json"
"""How `Inspection.encoding` ends where the class of transformers that a model names would make other tokens than this file."""


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


class OwnStageJob(Job):
    """Import a user's own stage and check that it can be called with its options."""

    stage: ClassVar[str] = "own_stage"
    function: ClassVar[str] = "autotune.stages.own_stage:check_stage"

    text: str
    code: str
    """Digest of its source."""
    file: Path = where()
    root: Path | None = where(None)


class DeviceJob(Job):
    """A job that runs a model on a device of an execution provider."""

    device_index: int | None = None
    """Which of the provider's devices, from 0; None: the first."""
    hardware: str | None = None
    """The device with its driver, if the digest of the machine leaves it open; else None."""
    label: str | None = where(None)
    """In a cluster, the resource of the nodes that have the device; None: any node has it."""

    @property
    def brought(self) -> dict[str, str]:
        """The package and version of the execution provider, if it is a plugin."""
        provider = PROVIDERS.get(str(getattr(self, "provider", None)))
        return provider.packages if provider is not None else {}


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
    version: ClassVar[int] = 2
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


class Control(BaseModel):
    """A special token that is written out in texts of the data."""

    model_config = ConfigDict(frozen=True)

    token: str
    split: str
    where: str
    """prompt or completion."""
    items: tuple[str, ...]
    """Ids of the items."""


class Unwritten(BaseModel):
    """Completions that generation never gives, for one reason."""

    model_config = ConfigDict(frozen=True)

    reason: str
    """text: the tokenizer gives another text back; end: a token in it ends generation; stop: one of `data.stop` is in it;
    limit: it has more tokens than are generated."""
    items: tuple[str, ...]
    """Ids of the items."""
    completion: str
    """The first of them."""
    written: str
    """What is written of it at best; of `end` the token."""


class Inspection(BaseModel):
    """The findings about a model, its tokenizer and the data."""

    model_config = ConfigDict(frozen=True)

    trouble: str = ""
    """Why the model or its tokenizer cannot be read at all."""
    remedy: str = ""
    missing: tuple[str, ...] = ()
    """Tensors that the model needs and its files do not hold: they would be random."""
    mismatched: tuple[str, ...] = ()
    """Tensors whose shape differs from the model's, with both shapes."""
    foreign: tuple[str, ...] = ()
    """Tensors in the files that loading would drop although they belong to a module of the model."""
    unused: tuple[str, ...] = ()
    """Tensors in the files for which the model has no module."""
    tokens: int = 0
    rows: int = 0
    """The number of tokens of the tokenizer, and of rows of the embedding."""
    linear: tuple[str, ...] = ()
    """The last parts of the names of its linear modules."""
    tied_head: bool = False
    """Whether the head shares its weights with the embedding."""
    beyond: tuple[str, ...] = ()
    """Tokens in the data that have no row in the embedding."""
    ends_beyond: tuple[int, ...] = ()
    """Tokens without a row that the model's settings name as ends of a text."""
    pad: int | None = None
    """The token to name for padding in a built model, where the one that it has may end a prompt; None: it may stay."""
    encoding: str | None = None
    """What makes tokens of text in training and in scoring: ONNX Runtime GenAI with its version, where its tokens are not
    those of transformers; else None. It ends with `AS_SAVED` where that holds."""
    named_class: str = ""
    """The class of transformers that the model names for its tokenizer, where it would make other tokens than tokenizer.json."""
    unread: str = ""
    """Why ONNX Runtime GenAI cannot read the tokenizer."""
    around: tuple[str, str] = ("", "")
    """Tokens that transformers puts before and behind a text, and that ONNX Runtime GenAI leaves out."""
    differing: int = 0
    texts: int = 0
    """Texts whose tokens differ between the two, apart from those around them; and texts in all."""
    example: str = ""
    """The first of them."""
    template: str = ""
    """Why ONNX Runtime GenAI does not render the chat template as transformers does."""
    refused: tuple[tuple[str, str, str], ...] = ()
    """Conversations that the chat template refuses: split, item, reason."""
    conversations: int = 0
    ends: tuple[str, ...] = ()
    """The tokens that end a text, as text."""
    controls: tuple[Control, ...] = ()
    alike: tuple[tuple[str, ...], ...] = ()
    """Labels that have the same tokens."""
    blank: tuple[str, ...] = ()
    """Labels that have no tokens."""
    too_long: tuple[tuple[str, str, int], ...] = ()
    """Completions that `max_length` cannot hold: split, item, tokens."""
    cut: dict[str, int] = Field(default_factory=dict)
    """Of each split, how many prompts lose their beginning at `max_length`."""
    counts: dict[str, int] = Field(default_factory=dict)
    """Of each split, how many items were looked at."""
    unwritten: dict[str, tuple[Unwritten, ...]] = Field(default_factory=dict)
    """Of each split that is scored: completions that generation never gives."""
    longest_answer: int = 0
    """Tokens of the longest completion that is scored."""
    longest: int = 0
    """Tokens of the longest text that is scored, prompt and completion, as far as `max_length` goes."""
    same: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Of each split: items whose prompts differ and have the same tokens, although their answers differ."""
    unknown: tuple[str, tuple[tuple[str, str], ...]] = ("", ())
    """The token for what the tokenizer does not know, and the items with it: split, item."""
    hidden_roles: tuple[str, ...] = ()
    """Roles whose messages the chat template does not show."""
    dated: str = ""
    """What the chat template makes of a conversation beside the messages that is another at another time."""
    too_far: tuple[int, int, int] | None = None
    """The longest prompt, the tokens to generate, and the context that does not hold both."""


class VerifyItem(BaseModel):
    """One item of a scored split, and its recorded outcome."""

    model_config = ConfigDict(frozen=True)

    id: str
    prompt: str | tuple[dict[str, str], ...]
    completion: str
    label: int | None = None
    """Index of the likeliest label."""
    text: str | None = None
    """What was generated."""
    nll: float | None = None
    """Negative log-likelihood of the completion, nats."""


class VerifyJob(DeviceJob):
    """Run a model with ONNX Runtime GenAI alone on prompts as text, and compare its answers with the recorded ones."""

    stage: ClassVar[str] = "verify"
    function: ClassVar[str] = "autotune.stages.verify_best:verify"

    provider: str
    items: tuple[VerifyItem, ...]
    most: int
    """Items to look at; those whose prompts were cut for the score are passed over."""
    labels: tuple[str, ...] = ()
    completions: tuple[str, ...] = ()
    """Of all items, or the longest: by them `max_new_tokens` is found where it is not given."""
    max_length: int
    max_new_tokens: int | None = None
    stop: tuple[str, ...] = ()
    model_dir: Path = where()


class PromptJob(DeviceJob):
    """Render a conversation by a built model's chat template, as ONNX Runtime GenAI does."""

    stage: ClassVar[str] = "prompt"
    function: ClassVar[str] = "autotune.stages.verify_best:prompt"

    messages: tuple[dict[str, str], ...]
    provider: str
    model_dir: Path = where()


class PushJob(Job):
    """Upload a folder to a model repository on the Hugging Face hub."""

    stage: ClassVar[str] = "push"
    function: ClassVar[str] = "autotune.stages.hub:push"

    repository: str
    """owner/name; it is made where there is none."""
    private: bool
    """Of a repository that is made now."""
    message: str
    folder: Path = where()


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


@dataclass(frozen=True)
class Call:
    """A job to do now. `timeout`: seconds that it may take at most, besides what was learned; `anew`: it is done in a process
    of its own, whatever is kept already, and its result is not kept.
    """

    job: Job
    timeout: float | None = None
    anew: bool = False


J = TypeVar("J", bound=Job)


def resolved(job: J, place: Callable[[str], Path]) -> J:
    """Return a job with the paths of its inputs filled in: `place` says where what has a key lies.

    A path that is given already stays. What `place` raises passes.
    """
    if isinstance(job, TurnsJob):
        return job.model_copy(update={"graphs": tuple(resolved(graph, place) for graph in job.graphs)})
    keys = {path: getattr(job, key) for path, key in job.sources.items() if getattr(job, path) in (None, Path())}
    return job.model_copy(update={path: place(key) for path, key in keys.items() if key})


def function_of(job: Job) -> Callable[..., Result]:
    """Import and return the function that does a job; call it in a worker process only."""
    module, _, name = job.function.partition(":")
    function: Callable[..., Result] = getattr(importlib.import_module(module), name)
    return function
