"""Two ways to run a model for scoring, with one interface: the built model on its provider, or PyTorch.

Nothing is ever padded in front of a position whose logits are read.

It is one module because both ways must score alike: each method of one stands beside its twin of the other.
"""

from __future__ import annotations

import copy
import ctypes
import inspect
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from onnx import TensorProto
from transformers import DynamicCache

from autotune.errors import StageError
from autotune.stages.longrope import (
    recomputed_by_genai,
    recomputed_by_torch,
    short_length_of_config,
    short_length_of_graph,
)
from autotune.stages.plugins import open_session, trouble
from autotune.stages.provider_share import RECORDED
from autotune.stages.scored_graph import READ, SINGLE, reading_graph
from autotune.stages.torch_model import load_adapter, load_model, resolve_device, resolve_dtype

Tokens = tuple[int, ...]
Logits = NDArray[np.float32]
"""(sequences, positions, vocabulary)"""
PASS = 8
"""Tokens whose work is about what a pass costs beyond its tokens (float32; less for int4)."""

_BF16 = "tensor(bfloat16)"
_CACHE_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, _BF16: np.uint16,
                "tensor(int8)": np.int8, "tensor(uint8)": np.uint8}  # fmt: skip
"""ONNX types of key-value caches, and the NumPy types that hold them: NumPy has no bfloat16, so 16-bit integers hold its bits.
"""


_FLOATS = {"tensor(float)": "fp32", "tensor(float16)": "fp16", _BF16: "bf16"}


def _array(value: ort.OrtValue) -> NDArray[Any]:
    """Return a copy of an output."""
    if value.data_type() != _BF16:
        return np.asarray(value.numpy())
    if value.device_name() != "cpu":
        raise StageError(
            "unsupported", f"cannot score a model whose key-value cache is bfloat16 on {value.device_name()}"
        )
    shape = value.shape()
    held = (ctypes.c_uint16 * math.prod(shape)).from_address(value.data_ptr())
    return np.frombuffer(held, dtype=np.uint16).reshape(shape).copy()


class Branches(Protocol):
    """Prompts that were run once, and from which continuations can be run."""

    logits: NDArray[np.float32]
    """(prompts, vocabulary), after each prompt."""

    def after(self, asked: list[tuple[int, Tokens]]) -> NDArray[np.float32]:
        """Return logits (asked, vocabulary) after some tokens that follow a prompt, given by its index.

        Every beginning of those tokens was asked for before.
        """
        ...


class Backend(Protocol):
    """A loaded model. `cache` is what a call returned for the tokens before, or None."""

    ragged: bool
    """Whether the sequences of one call may be of several lengths."""
    short_length: int | None
    """The length of LongRoPE's short factors, tokens: a longer text is rotated otherwise at every position, and cannot use the
    cache of a shorter one. None: the rotation does not depend on the length."""
    recomputed_at: int | None
    """Beyond how many tokens the deployed model recomputes the text that it generates, instead of using its cache."""

    def run(
        self, ids: NDArray[np.int64], cache: Any = None, keep: bool = False, last: bool = False
    ) -> tuple[Logits, Any]:
        """Return logits and, if `keep`, the cache behind them.

        Logits are those of every position of `ids` (sequences, positions), or of the last alone. After a cache,
        several sequences are given one token at a time.
        """
        ...

    def read(self, sequences: list[Tokens], starts: list[int]) -> list[NDArray[np.float32]]:
        """Return each sequence's logits (positions, vocabulary) from position `start` to its end."""
        ...

    def branch(self, prompts: list[Tokens]) -> Branches:
        """Run prompts."""
        ...

    def select(self, cache: Any, indices: list[int]) -> Any:
        """Return the cache of some sequences."""
        ...


def session_options(folder: Path, threads: int | None) -> ort.SessionOptions:
    """Return session options from the built model's own settings, with `threads`."""
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

    def __init__(
        self,
        folder: Path,
        provider: str,
        threads: int | None,
        provider_options: dict[str, str] | None = None,
        exact: bool = False,
        device: int | None = None,
        shares: bool = False,
    ) -> None:
        """`device`: which of the provider's; `shares`: `taken` is asked for; `exact`: quantised weights are multiplied in
        single precision, whatever the recipe's accuracy level.
        """
        options = session_options(folder, threads)
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
        if exact:
            options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", str(SINGLE))
        graph, grouped = reading_graph(folder / "model.onnx", exact)
        # Other providers' kernels have not been tried with several lengths in one call.
        self.ragged = grouped and provider == "cpu"
        self.short_length = None if grouped else short_length_of_graph(folder / "model.onnx")
        self.recomputed_at = recomputed_by_genai(folder, self.short_length)
        if shares:
            options.add_session_config_entry(RECORDED, "1")
        self.session = open_session(graph or str(folder / "model.onnx"), options, provider, device, provider_options)
        self.provider, self.threads, self.device = provider, threads, device
        self.inputs = {i.name: i for i in self.session.get_inputs()}
        self.reads = READ in self.inputs
        logits = next(output for output in self.session.get_outputs() if output.name == "logits")
        self.floats = _FLOATS.get(logits.type, "fp32")
        """The floating-point type in which the model computes."""
        self.last_only = not self.reads and logits.shape[1] == 1
        """Whether the graph returns only the logits of the last position."""
        config = json.loads((folder / "genai_config.json").read_text(encoding="utf-8"))
        self.head_size = config["model"]["decoder"]["head_size"]
        self.pasts = [n for n in self.inputs if n.startswith("past_key_values.")]
        self.presents = [n.replace("past_key_values.", "present.") for n in self.pasts]
        others = set(self.inputs) - {"input_ids", "attention_mask", "position_ids", READ, *self.pasts}
        if others:
            raise StageError("unsupported", f"cannot score a model with the inputs {', '.join(sorted(others))}")
        strange = {self.inputs[n].type for n in self.pasts} - set(_CACHE_TYPES)
        if strange:
            raise StageError(
                "unsupported", f"cannot score a model whose key-value cache is {', '.join(sorted(strange))}"
            )

    def _empty(self, name: str, rows: int) -> NDArray[Any]:
        node = self.inputs[name]
        shape = [rows, node.shape[1], 0, node.shape[3] if isinstance(node.shape[3], int) else self.head_size]
        return np.zeros(shape, dtype=_CACHE_TYPES[node.type])

    def call(
        self,
        ids: NDArray[np.int64],
        lengths: NDArray[np.int64],
        read: NDArray[np.int64],
        cache: list[NDArray[Any]] | None,
        keep: bool,
    ) -> tuple[NDArray[np.float32], list[NDArray[Any]]]:
        """Return logits (reads, vocabulary) at pairs of sequence and position, and the cache if `keep`.

        `lengths`: of each sequence with its cache; what lies behind, in `ids` and in the cache, is padding.
        """
        rows, new = ids.shape
        past = 0 if cache is None else cache[0].shape[2]
        feeds: dict[str, Any] = {"input_ids": ids}
        if self.reads:
            feeds[READ] = read
        if "attention_mask" in self.inputs:
            feeds["attention_mask"] = (np.arange(past + new) < lengths[:, None]).astype(np.int64)
        if "position_ids" in self.inputs:
            starts = np.zeros(rows, dtype=np.int64) if cache is None else lengths - new
            feeds["position_ids"] = starts[:, None] + np.arange(new)
        for index, name in enumerate(self.pasts):
            feeds[name] = self._empty(name, rows) if cache is None else cache[index]
        values = {name: self._value(name, array) for name, array in feeds.items()}
        try:
            found = self.session.run_with_ort_values(["logits", *(self.presents if keep else [])], values)
        except Exception as error:
            raise trouble(error, f"the build does not run on {self.provider}") from error
        logits, *presents = map(_array, found)
        if not self.reads:
            logits = logits[read[:, 0], read[:, 1] - (new - 1 if self.last_only else 0)]
        return logits.astype(np.float32, copy=False), presents

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
        past = 0 if cache is None else cache[0].shape[2]
        positions = [new - 1] if last else range(new)
        read = np.array([(row, position) for row in range(rows) for position in positions], dtype=np.int64)
        logits, presents = self.call(ids, np.full(rows, past + new), read, cache, keep)
        return logits.reshape(rows, len(positions), -1), presents if keep else None

    def read(self, sequences: list[Tokens], starts: list[int]) -> list[NDArray[np.float32]]:
        """Return each sequence's logits (positions, vocabulary) from position `start` to its end."""
        found: list[NDArray[np.float32]] = []
        for part in passes([len(tokens) for tokens in sequences]):
            ids, lengths = padded(sequences[part])
            spans = [range(start, length) for start, length in zip(starts[part], lengths, strict=True)]
            read = np.array([(row, position) for row, span in enumerate(spans) for position in span], dtype=np.int64)
            logits, _ = self.call(ids, lengths, read, None, keep=False)
            found += np.split(logits, np.cumsum([len(span) for span in spans])[:-1])
        return found

    def branch(self, prompts: list[Tokens]) -> OnnxBranches:
        """Run prompts."""
        return OnnxBranches(self, prompts)

    def select(self, cache: Any, indices: list[int]) -> Any:
        """Return the cache of some sequences."""
        return [part[indices] for part in cache]


def padded(sequences: list[Tokens]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return sequences padded at their ends with token 0, which no real position attends to, and their lengths."""
    lengths = np.array([len(tokens) for tokens in sequences], dtype=np.int64)
    ids = np.zeros((len(sequences), lengths.max()), dtype=np.int64)
    for row, tokens in enumerate(sequences):
        ids[row, : len(tokens)] = tokens
    return ids, lengths


def passes(lengths: list[int]) -> Iterator[slice]:
    """Yield neighbours to run in one pass: a new one begins where that is cheaper than padding the shorter ones."""
    start = 0
    for at in range(1, len(lengths) + 1):
        if at == len(lengths) or (at - start) * max(0, lengths[at] - max(lengths[start:at])) > PASS:
            yield slice(start, at)
            start = at


def joined(parts: tuple[NDArray[Any], ...]) -> NDArray[Any]:
    """Return caches of several passes as one, padded at their ends."""
    width = max(part.shape[2] for part in parts)
    whole = np.zeros((sum(len(part) for part in parts), parts[0].shape[1], width, parts[0].shape[3]), parts[0].dtype)
    row = 0
    for part in parts:
        whole[row : row + len(part), :, : part.shape[2]] = part
        row += len(part)
    return whole


class OnnxBranches:
    """The prompts' cache, and the keys and values of each further token: one column of the cache."""

    def __init__(self, backend: OnnxBackend, prompts: list[Tokens]) -> None:
        self.backend = backend
        self.lengths = np.array([len(tokens) for tokens in prompts], dtype=np.int64)
        logits, caches = [], []
        for part in passes(self.lengths.tolist()):
            ids, lengths = padded(prompts[part])
            read = np.stack([np.arange(len(ids)), lengths - 1], axis=1)
            found, cache = backend.call(ids, lengths, read, None, keep=True)
            logits.append(found)
            caches.append(cache)
        self.logits = np.concatenate(logits)
        self.cache = [joined(parts) for parts in zip(*caches, strict=True)]
        self.columns: list[list[NDArray[Any]]] = [[] for _ in self.cache]
        self.column_of: dict[tuple[int, Tokens], int] = {}

    def after(self, asked: list[tuple[int, Tokens]]) -> NDArray[np.float32]:
        """Return logits (asked, vocabulary) after some tokens that follow a prompt."""
        if self.backend.ragged:
            return self._step(asked)
        return by_depth(asked, self._step)

    def _step(self, asked: list[tuple[int, Tokens]]) -> NDArray[np.float32]:
        # A single row would take other kernels, whose rounding differs: alone or among others must be the same.
        rows = [row for row, _ in asked] * (2 if len(asked) == 1 else 1)
        paths = [path for _, path in asked] * (2 if len(asked) == 1 else 1)
        depths = np.array([len(path) for path in paths])
        width = self.cache[0].shape[2] if self.cache else 0
        past = self._past(rows, paths, width)
        ids = np.array([path[-1:] for path in paths], dtype=np.int64)
        lengths = self.lengths[rows] + depths
        read = np.stack([np.arange(len(rows)), np.zeros(len(rows), dtype=np.int64)], axis=1)
        logits, presents = self.backend.call(ids, lengths, read, past, keep=True)
        first = len(self.columns[0]) if self.columns else 0
        self.column_of |= {key: first + k for k, key in enumerate(asked)}
        for columns, present in zip(self.columns, presents, strict=True):
            columns.extend(present[np.arange(len(asked)), :, lengths[: len(asked)] - 1])
        return logits[: len(asked)]

    def _past(self, rows: list[int], paths: list[Tokens], width: int) -> list[NDArray[Any]]:
        """Return the cache of each prompt with the columns of all but the last token of its path."""
        into, at, which = [], [], []
        for k, (row, path) in enumerate(zip(rows, paths, strict=True)):
            for depth in range(1, len(path)):
                into.append(k)
                at.append(self.lengths[row] + depth - 1)
                which.append(self.column_of[row, path[:depth]])
        size = max(width, max(at, default=-1) + 1)
        past = []
        for part, columns in zip(self.cache, self.columns, strict=True):
            held = np.zeros((len(rows), part.shape[1], size, part.shape[3]), dtype=part.dtype)
            held[:, :, :width] = part[rows]
            if which:
                held[into, :, at] = np.stack([columns[column] for column in which])
            past.append(held)
        return past


def by_depth(
    asked: list[tuple[int, Tokens]], step: Callable[[list[tuple[int, Tokens]]], NDArray[np.float32]]
) -> NDArray[np.float32]:
    """Return the results of `step` for all requests, calling it with paths of one length at a time."""
    found: dict[tuple[int, Tokens], NDArray[np.float32]] = {}
    for depth in sorted({len(path) for _, path in asked}):
        part = [key for key in asked if len(key[1]) == depth]
        found |= dict(zip(part, step(part), strict=True))
    return np.stack([found[key] for key in asked])


def rotates_by_length(config: Any) -> bool:
    """Whether the rotation of positions depends on how long the longest text of a call is."""
    return any(f"'{kind}'" in str(getattr(config, "rope_parameters", None)) for kind in ("longrope", "dynamic"))


class TorchBackend:
    """A base model in PyTorch, with an adapter or without."""

    ragged = False

    def __init__(
        self, folder: Path, adapter: Path | None, device: str, threads: int | None, dtype: str = "auto"
    ) -> None:
        self.device = resolve_device(device)
        model = load_model(folder, self.device, resolve_dtype(dtype, self.device), threads=threads)
        self.sliced = "logits_to_keep" in inspect.signature(model.forward).parameters
        self.padded = not rotates_by_length(model.config)
        """Whether texts may be padded at their ends to the longest without changing their logits."""
        self.short_length, self.recomputed_at = short_length_of_config(model.config), recomputed_by_torch(model.config)
        if adapter is not None:
            model = load_adapter(model, adapter)
        self.model = model.eval()

    @torch.inference_mode()
    def run(
        self, ids: NDArray[np.int64], cache: Any = None, keep: bool = False, last: bool = False, tail: int = 0
    ) -> tuple[Logits, Any]:
        """Return logits of every position, of the last alone or of the last `tail`, and the cache if `keep`."""
        tail = 1 if last else tail
        only = {"logits_to_keep": tail} if tail and self.sliced else {}
        output = self.model(
            input_ids=torch.from_numpy(np.ascontiguousarray(ids)).to(self.device),
            past_key_values=cache,
            use_cache=keep,
            **only,
        )
        logits = output.logits[:, -tail:]
        return logits.float().cpu().numpy(), output.past_key_values if keep else None

    def read(self, sequences: list[Tokens], starts: list[int]) -> list[NDArray[np.float32]]:
        """Return each sequence's logits (positions, vocabulary) from position `start` to its end."""
        logits, _ = self.run(np.array(sequences, dtype=np.int64))
        return [found[start:] for found, start in zip(logits, starts, strict=True)]

    def branch(self, prompts: list[Tokens]) -> TorchBranches:
        """Run prompts."""
        return TorchBranches(self, prompts)

    def select(self, cache: DynamicCache, indices: list[int]) -> DynamicCache:
        """Return the cache of some sequences."""
        rows = torch.tensor(indices, device=self.device)
        # Layers are copied as they are, because a sliding window knows more than its keys and values.
        other = copy.copy(cache)
        other.layers = [copy.copy(layer) for layer in cache.layers]
        for layer in other.layers:
            layer.keys, layer.values = layer.keys.index_select(0, rows), layer.values.index_select(0, rows)
        return other


class TorchBranches:
    """The prompts' cache, from which each continuation is run."""

    def __init__(self, backend: TorchBackend, prompts: list[Tokens]) -> None:
        self.backend = backend
        logits, self.cache = backend.run(np.array(prompts, dtype=np.int64), keep=True, last=True)
        self.logits = logits[:, -1]

    def after(self, asked: list[tuple[int, Tokens]]) -> NDArray[np.float32]:
        """Return logits (asked, vocabulary) after some tokens that follow a prompt."""
        return by_depth(asked, self._step)

    def _step(self, asked: list[tuple[int, Tokens]]) -> NDArray[np.float32]:
        cache = self.backend.select(self.cache, [row for row, _ in asked])
        logits, _ = self.backend.run(np.array([path for _, path in asked], dtype=np.int64), cache, last=True)
        return logits[:, -1]
