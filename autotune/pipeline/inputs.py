"""What all candidates of a sweep share, resolved to files and digests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from autotune.usercode import Code


@dataclass(frozen=True)
class Inputs:
    """The base model, the items and the machine of a sweep."""

    base_dir: Path
    base: str
    """Digest of the base model."""
    items: Mapping[str, tuple[str, Path]]
    """Of each split: digest and file."""
    counts: Mapping[str, int]
    """Of each split: how many items."""
    labels: tuple[str, ...]
    device: str
    machine: str
    """Digest of this machine's hardware."""
    model_mb: float = 0.0
    """Size of the base model at fp32, 10^6 bytes."""
    files: tuple[Path, ...] = ()
    """Model and items: they must stay as they are while the sweep runs."""
    code: Code | None = None
    """The user's own metric, or an lm-eval task, where the sweep names one."""
    lengths: Mapping[str, tuple[tuple[int, int], ...]] = field(default_factory=dict)
    """Of each workload that draws lengths from the data: prompt and new tokens of its sequences."""
    encoding: str | None = None
    """What makes tokens of text, as `Inspection.encoding`."""
    pad: int | None = None
    """As in `Inspection`."""
    notes: tuple[str, ...] = ()
    """What the user should know of model and data, one line each."""
    gpus: int = 0
    """GPUs of this machine that PyTorch sees."""
    aggregated: bool = False
    """Whether the score of an lm-eval task is no mean of its items."""
    hardware: str | None = None
    """The device of a plugged provider, with its driver."""
    stages: Mapping[str, Code] = field(default_factory=dict)
    """The user's own stages, by function."""
    window: bool = False
    """Whether layers attend to a sliding window, for which the builder would make key-value caches of the window's size."""
    beyond: int | None = None
    """As in `CheckJob`."""
    width: int = 0
    """Width of the base model's hidden states; 0: unknown."""

    @property
    def places(self) -> dict[str, Path]:
        """The file or folder of each input, by digest: the executor resolves keys with it."""
        return {self.base: self.base_dir, **dict(self.items.values())}
