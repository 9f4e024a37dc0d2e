"""The jobs that verify, show and upload a finished model."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from autotune.stages.protocol import DeviceJob, Job, where


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
