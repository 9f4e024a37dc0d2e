"""Two ways to run a model for scoring, with one face: the built model on its provider, or PyTorch.

Both take batches of sequences of one length, so nothing is ever padded in front of something that is read.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from peft import PeftModel
from transformers import DynamicCache

from autotune.errors import StageError
from autotune.providers import PROVIDERS
from autotune.stages.torch_model import load_model, resolve_device, resolve_dtype

Logits = NDArray[np.float32]
"""(sequences, positions, vocabulary)"""


class Backend(Protocol):
    """A loaded model. `cache` is what a call returned for the tokens before, or None."""

    def run(self, ids: NDArray[np.int64], cache: Any = None, keep: bool = False) -> tuple[Logits, Any]:
        """Return logits of every position of `ids` (sequences, positions), and the cache behind them if `keep`."""
        ...

    def repeat(self, cache: Any, index: int, times: int) -> Any:
        """Return the cache of sequence `index` alone, `times` over."""
        ...

    def select(self, cache: Any, indices: list[int]) -> Any:
        """Return the cache of some sequences."""
        ...


def session_options(folder: Path, threads: int | None) -> ort.SessionOptions:
    """Return session options as the built model's own settings ask for, with `threads`."""
    settings = ort.SessionOptions()
    settings.log_severity_level = 3
    if threads:
        settings.intra_op_num_threads = threads
    config = json.loads((folder / "genai_config.json").read_text(encoding="utf-8"))
    for key, value in config["model"]["decoder"].get("session_options", {}).items():
        if isinstance(value, str) and "." in key:
            settings.add_session_config_entry(key, value)
    return settings


class OnnxBackend:
    """A built model in an ONNX Runtime session on one execution provider."""

    def __init__(self, folder: Path, provider: str, threads: int | None) -> None:
        runtime = PROVIDERS[provider].runtime_name
        if runtime not in ort.get_available_providers():
            raise StageError(
                "unsupported", f"this ONNX Runtime has no {runtime}; install the {PROVIDERS[provider].extra} extra"
            )
        try:
            self.session = ort.InferenceSession(
                str(folder / "model.onnx"), session_options(folder, threads), providers=[runtime]
            )
        except Exception as error:
            reason = str(error).splitlines()[0]
            raise StageError("unsupported", f"the build does not load on {provider}: {reason}") from error
        if self.session.get_providers()[0] != runtime:
            raise StageError("unsupported", f"the build runs on {self.session.get_providers()[0]}, not on {runtime}")
        self.inputs = {i.name: i for i in self.session.get_inputs()}
        config = json.loads((folder / "genai_config.json").read_text(encoding="utf-8"))
        self.head_size = config["model"]["decoder"]["head_size"]
        self.pasts = [n for n in self.inputs if n.startswith("past_key_values.")]
        self.presents = [n.replace("past_key_values.", "present.") for n in self.pasts]
        others = set(self.inputs) - {"input_ids", "attention_mask", "position_ids", *self.pasts}
        if others:
            raise StageError("unsupported", f"cannot score a model with the inputs {', '.join(sorted(others))}")
        # A pruned head gives the last position only: positions are then run one at a time.
        self.pruned = False

    def _empty(self, name: str, rows: int) -> NDArray[Any]:
        node = self.inputs[name]
        shape = [rows, node.shape[1], 0, node.shape[3] if isinstance(node.shape[3], int) else self.head_size]
        types = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int8)": np.int8,
                 "tensor(uint8)": np.uint8}  # fmt: skip
        if node.type not in types:
            raise StageError("unsupported", f"cannot score a model whose key-value cache is {node.type}")
        return np.zeros(shape, dtype=types[node.type])

    def _call(self, ids: NDArray[np.int64], cache: Any, keep: bool) -> tuple[Logits, Any]:
        rows, new = ids.shape
        past = 0 if cache is None else cache[0].shape[2]
        feeds: dict[str, Any] = {"input_ids": ids}
        if "attention_mask" in self.inputs:
            feeds["attention_mask"] = np.ones((rows, past + new), dtype=np.int64)
        if "position_ids" in self.inputs:
            feeds["position_ids"] = np.tile(np.arange(past, past + new, dtype=np.int64), (rows, 1))
        for index, name in enumerate(self.pasts):
            feeds[name] = self._empty(name, rows) if cache is None else cache[index]
        logits, *presents = self.session.run(["logits", *(self.presents if keep else [])], feeds)
        return logits.astype(np.float32, copy=False), presents if keep else None

    def run(self, ids: NDArray[np.int64], cache: Any = None, keep: bool = False) -> tuple[Logits, Any]:
        """Return logits of every position, and the cache if `keep`."""
        if not self.pruned:
            logits, after = self._call(ids, cache, keep)
            if logits.shape[1] == ids.shape[1]:
                return logits, after
            self.pruned = True
        parts = []
        for position in range(ids.shape[1]):
            logits, cache = self._call(ids[:, position : position + 1], cache, True)
            parts.append(logits)
        return np.concatenate(parts, axis=1), cache if keep else None

    def repeat(self, cache: Any, index: int, times: int) -> Any:
        """Return the cache of sequence `index` alone, `times` over."""
        return [np.repeat(part[index : index + 1], times, axis=0) for part in cache]

    def select(self, cache: Any, indices: list[int]) -> Any:
        """Return the cache of some sequences."""
        return [part[indices] for part in cache]


class TorchBackend:
    """A base model in PyTorch, with an adapter or without."""

    def __init__(self, folder: Path, adapter: Path | None, device: str, threads: int | None) -> None:
        if threads:
            torch.set_num_threads(threads)
        self.device = resolve_device(device)
        model = load_model(folder, self.device, resolve_dtype("auto", self.device))
        if adapter is not None:
            model = PeftModel.from_pretrained(model, str(adapter))
        self.model = model.eval()

    @torch.inference_mode()
    def run(self, ids: NDArray[np.int64], cache: Any = None, keep: bool = False) -> tuple[Logits, Any]:
        """Return logits of every position, and the cache if `keep`."""
        output = self.model(
            input_ids=torch.from_numpy(np.ascontiguousarray(ids)).to(self.device), past_key_values=cache, use_cache=keep
        )
        return output.logits.float().cpu().numpy(), output.past_key_values if keep else None

    def repeat(self, cache: DynamicCache, index: int, times: int) -> DynamicCache:
        """Return the cache of sequence `index` alone, `times` over."""
        return self._copy(cache, torch.tensor([index] * times, device=self.device))

    def select(self, cache: DynamicCache, indices: list[int]) -> DynamicCache:
        """Return the cache of some sequences."""
        return self._copy(cache, torch.tensor(indices, device=self.device))

    def _copy(self, cache: DynamicCache, rows: torch.Tensor) -> DynamicCache:
        copy = DynamicCache()
        for index, layer in enumerate(cache.layers):
            copy.update(layer.keys.index_select(0, rows), layer.values.index_select(0, rows), index)
        return copy
