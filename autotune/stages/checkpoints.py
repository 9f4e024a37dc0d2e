"""Checkpoints of a training: adapter, optimiser and how far it is, without a pickle and without a random state."""

from __future__ import annotations

import json
import shutil
import time
import uuid
from pathlib import Path
from typing import Any

import torch
from peft import set_peft_model_state_dict
from safetensors.torch import load_file, save_file

from autotune.durable import put, remove_tree, sync_tree


class Progress:
    """How far a training is; `state.json` keeps it."""

    def __init__(self, horizon: int, began: float) -> None:
        """`horizon`: the steps of the whole schedule; `began`: when this process began, by `time.perf_counter`."""
        self._horizon, self._began, self._earlier_s = horizon, began, 0.0
        self.step = 0
        """The steps that are done."""
        self.curve: list[list[float]] = []
        """Of each step its number from 1, its loss and its learning rate."""

    @property
    def spent_s(self) -> float:
        """Seconds of all processes that have done this training."""
        return self._earlier_s + time.perf_counter() - self._began

    @property
    def state(self) -> dict[str, Any]:
        """The content of `state.json`."""
        return {"step": self.step, "curve": self.curve, "horizon": self._horizon, "seconds": self.spent_s}

    def add(self, loss: float, rate: float) -> None:
        """Note a step."""
        self.step += 1
        self.curve.append([self.step, round(loss, 6), rate])

    def go_on(self, state: dict[str, Any]) -> None:
        """Take up what an earlier process has done."""
        self.step, self.curve, self._earlier_s = state["step"], state["curve"], state["seconds"]


def _save_optimizer(optimizer: torch.optim.Optimizer, file: Path) -> None:
    tensors = {}
    for index, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            tensors[f"{index}.{name}"] = value.detach().cpu().contiguous()
    save_file(tensors, file)


def _load_optimizer(optimizer: torch.optim.Optimizer, file: Path) -> None:
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in load_file(file).items():
        index, _, part = name.partition(".")
        state.setdefault(int(index), {})[part] = value
    whole = optimizer.state_dict()
    whole["state"] = state
    optimizer.load_state_dict(whole)


def save(model: Any, optimizer: torch.optim.Optimizer, progress: Progress, out: Path) -> None:
    """Write adapter, optimiser and `state.json` into the folder `out`."""
    # `embedding_layers` off: it would ask the hub whether the base model's vocabulary was changed.
    model.save_pretrained(str(out), save_embedding_layers=False)
    (out / "README.md").unlink(missing_ok=True)
    _save_optimizer(optimizer, out / "optimizer.safetensors")
    (out / "state.json").write_text(json.dumps(progress.state), encoding="utf-8")


class Checkpoints:
    """The last checkpoint of a training, in a folder that outlives the process.

    One is written when `DUE_S` have passed since the last, or so long that writing costs at most 2 % of the time.
    """

    DUE_S = 60.0

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._last = time.perf_counter()
        self._cost_s = 0.0

    def latest(self) -> Path | None:
        """Return the last whole checkpoint."""
        if self.folder is None:
            return None
        whole = [path for path in self.folder.glob("step-*") if (path / "state.json").is_file()]
        return max(whole, key=lambda path: int(path.name[5:]), default=None)

    def due(self) -> bool:
        """Whether it is time for the next checkpoint."""
        return self.folder is not None and time.perf_counter() - self._last > max(self.DUE_S, 50 * self._cost_s)

    def write(self, model: Any, optimizer: torch.optim.Optimizer, progress: Progress) -> None:
        """Keep the training as it is; earlier checkpoints go.

        Another process may do the same training: one that was stopped, or cut off, and goes on. So the name aside is its
        own, and later checkpoints stay.
        """
        if self.folder is None:
            return
        began = time.perf_counter()
        step = progress.step
        aside, place = self.folder / f"new-{uuid.uuid4().hex[:12]}", self.folder / f"step-{step}"
        aside.mkdir(parents=True)
        save(model, optimizer, progress, aside)
        sync_tree(aside)
        remove_tree(place)
        put(aside, place)
        for old in self.folder.glob("step-*"):
            if int(old.name[5:]) < step:
                shutil.rmtree(old, ignore_errors=True)
        self._last = time.perf_counter()
        self._cost_s = self._last - began


def restore(model: Any, optimizer: torch.optim.Optimizer, folder: Path) -> dict[str, Any]:
    """Load a checkpoint into the model and the optimiser. Returns its state."""
    set_peft_model_state_dict(model, load_file(folder / "adapter_model.safetensors"))
    _load_optimizer(optimizer, folder / "optimizer.safetensors")
    state: dict[str, Any] = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    return state
