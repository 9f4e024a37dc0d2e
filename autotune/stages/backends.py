"""Two ways to run a model for scoring, with one face: the built model on its provider, or PyTorch.

Both take batches of sequences of one length, so nothing is ever padded in front of something that is read.
"""

from __future__ import annotations

import copy
import ctypes
import inspect
import json
import math
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from onnx import TensorProto
from transformers import DynamicCache

from autotune.errors import StageError
from autotune.providers import PROVIDERS
from autotune.stages.jobs import refused
from autotune.stages.torch_model import load_adapter, load_model, resolve_device, resolve_dtype

Logits = NDArray[np.float32]
"""(sequences, positions, vocabulary)"""


_BF16 = "tensor(bfloat16)"
_CACHE_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, _BF16: np.uint16,
                "tensor(int8)": np.int8, "tensor(uint8)": np.uint8}  # fmt: skip
"""Of key-value caches, and what they are held in here: NumPy has no bfloat16, so its bits are kept."""


def _array(value: ort.OrtValue) -> NDArray[Any]:
    """Return an output as an array of its own."""
    if value.data_type() != _BF16:
        return np.asarray(value.numpy())
    if value.device_name() != "cpu":
        raise StageError(
            "unsupported", f"cannot score a model whose key-value cache is bfloat16 on {value.device_name()}"
        )
    shape = value.shape()
    held = (ctypes.c_uint16 * math.prod(shape)).from_address(value.data_ptr())
    return np.frombuffer(held, dtype=np.uint16).reshape(shape).copy()


class Backend(Protocol):
    """A loaded model. `cache` is what a call returned for the tokens before, or None."""

    def run(
        self, ids: NDArray[np.int64], cache: Any = None, keep: bool = False, last: bool = False
    ) -> tuple[Logits, Any]:
        """Return logits and, if `keep`, the cache behind them.

        Logits are those of every position of `ids` (sequences, positions), or of the last alone.
        """
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
            raise refused(error, f"the build does not load on {provider}") from error
        self.provider = provider
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
        strange = {self.inputs[n].type for n in self.pasts} - set(_CACHE_TYPES)
        if strange:
            raise StageError(
                "unsupported", f"cannot score a model whose key-value cache is {', '.join(sorted(strange))}"
            )
        # A pruned head gives the last position only: for every position's logits they are run one at a time.
        self.pruned = next(o for o in self.session.get_outputs() if o.name == "logits").shape[1] == 1

    def _empty(self, name: str, rows: int) -> NDArray[Any]:
        node = self.inputs[name]
        shape = [rows, node.shape[1], 0, node.shape[3] if isinstance(node.shape[3], int) else self.head_size]
        return np.zeros(shape, dtype=_CACHE_TYPES[node.type])

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
        values = {name: self._value(name, array) for name, array in feeds.items()}
        try:
            found = self.session.run_with_ort_values(["logits", *(self.presents if keep else [])], values)
        except Exception as error:
            raise refused(error, f"the build does not run on {self.provider}") from error
        logits, *presents = map(_array, found)
        return logits.astype(np.float32, copy=False), presents if keep else None

    def _value(self, name: str, array: NDArray[Any]) -> ort.OrtValue:
        array = np.ascontiguousarray(array)
        if self.inputs[name].type == _BF16:
            return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array, TensorProto.BFLOAT16)
        return ort.OrtValue.ortvalue_from_numpy(array)

    def run(
        self, ids: NDArray[np.int64], cache: Any = None, keep: bool = False, last: bool = False
    ) -> tuple[Logits, Any]:
        """Return logits of every position or of the last alone, and the cache if `keep`."""
        rows, new = ids.shape
        # GroupQueryAttention takes several sequences after a cache only if each is of one token.
        whole = cache is None or rows == 1 or new == 1
        if whole and (last or not self.pruned):
            logits, cache = self._call(ids, cache, keep)
        elif rows <= new and not self.pruned and not keep:
            parts = [self._call(ids[row : row + 1], self.select(cache, [row]), False)[0] for row in range(rows)]
            logits = np.concatenate(parts)
        else:
            parts = []
            for position in range(new):
                part, cache = self._call(ids[:, position : position + 1], cache, True)
                parts.append(part)
            logits = np.concatenate(parts, axis=1)
        return logits[:, -1:] if last else logits, cache if keep else None

    def repeat(self, cache: Any, index: int, times: int) -> Any:
        """Return the cache of sequence `index` alone, `times` over."""
        return [np.repeat(part[index : index + 1], times, axis=0) for part in cache]

    def select(self, cache: Any, indices: list[int]) -> Any:
        """Return the cache of some sequences."""
        return [part[indices] for part in cache]


class TorchBackend:
    """A base model in PyTorch, with an adapter or without."""

    def __init__(self, folder: Path, adapter: Path | None, device: str, threads: int | None) -> None:
        self.device = resolve_device(device)
        model = load_model(folder, self.device, resolve_dtype("auto", self.device), threads=threads)
        self.sliced = "logits_to_keep" in inspect.signature(model.forward).parameters
        if adapter is not None:
            model = load_adapter(model, adapter)
        self.model = model.eval()

    @torch.inference_mode()
    def run(
        self, ids: NDArray[np.int64], cache: Any = None, keep: bool = False, last: bool = False
    ) -> tuple[Logits, Any]:
        """Return logits of every position or of the last alone, and the cache if `keep`."""
        only = {"logits_to_keep": 1} if last and self.sliced else {}
        output = self.model(
            input_ids=torch.from_numpy(np.ascontiguousarray(ids)).to(self.device),
            past_key_values=cache,
            use_cache=keep,
            **only,
        )
        logits = output.logits[:, -1:] if last else output.logits
        return logits.float().cpu().numpy(), output.past_key_values if keep else None

    def repeat(self, cache: DynamicCache, index: int, times: int) -> DynamicCache:
        """Return the cache of sequence `index` alone, `times` over."""
        return self._copy(cache, torch.tensor([index] * times, device=self.device))

    def select(self, cache: DynamicCache, indices: list[int]) -> DynamicCache:
        """Return the cache of some sequences."""
        return self._copy(cache, torch.tensor(indices, device=self.device))

    def _copy(self, cache: DynamicCache, rows: torch.Tensor) -> DynamicCache:
        # Layers are copied as they are, because a sliding window knows more than its keys and values.
        other = copy.copy(cache)
        other.layers = [copy.copy(layer) for layer in cache.layers]
        for layer in other.layers:
            layer.keys, layer.values = layer.keys.index_select(0, rows), layer.values.index_select(0, rows)
        return other
