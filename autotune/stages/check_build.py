"""Check that a build is the model that it was made from: its logits, its weights read back, and what it computes.

Three looks, because each is blind where another sees. Logits show what a user would get, whatever went wrong: a bad
kernel, a wrong position, gibberish. But honest four-bit rounding moves them as much as the ruin of one matrix of one
layer does; the weights show that at once, because an honest one lies within half a step of its quantiser. It also moves
them as much as another rotation of positions does; so PyTorch's model is given the build's own weights, as they were
rounded, and must then compute what the build computes, within the error of the build's floats.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from autotune.architectures import CHECKED
from autotune.candidate import Recipe
from autotune.providers import PROVIDERS
from autotune.stages.backends import OnnxBackend, Tokens, TorchBackend, padded
from autotune.stages.jobs import CheckJob
from autotune.stages.protocol import Result
from autotune.stages.provider_share import share_of
from autotune.stages.score import groups
from autotune.stages.text import encode, load_tokenizer, read_items
from autotune.stages.torch_model import not_finite
from autotune.stages.weights import compare_weights, damaged, put_quantised

ITEMS = 8
"""Texts that are compared, spread evenly over the items."""
TOKENS = 1024
"""Tokens of all texts together, about: with longer ones there are fewer."""
POSITIONS = 32
"""Of each text that many last positions are compared."""
LONGEST = CHECKED
"""Tokens of the text on which it is seen what a build computes, at most, unless the model is another one beyond."""
REPEATS = 0.9
"""The share of positions with one and the same greedy token at which a model repeats itself, whatever the prompt."""

LOGIT_ERROR = {"fp32": 0.02, "fp16": 0.1, "bf16": 0.2, "int8": 0.3, "int4": 0.9}
"""The relative error of logits from which on a build of a precision is not its source.

From benchmarks/measured/fidelity.md: honest builds of the built-in model had at most 2e-6 (fp32), 0.08 (int8) and 0.61
(int4); one scrambled matrix of one layer 0.23 and more. fp32 leaves room for the TF32 of GPUs, which keeps 10 bits of
24, as fp16 does; bf16 keeps 8. At 1 nothing is left of the source.
"""


def limit_of(recipe: Recipe) -> float:
    """Return the relative error of logits that an honest build of a recipe stays below: that of its coarsest part.

    What a user's own stage changes may differ as far as anything is left of the source.
    """
    if recipe.own_stages:
        return 1.0
    parts: list[str] = [recipe.precision]
    if recipe.kv_cache_quant_scheme:
        parts.append(recipe.kv_cache_quant_scheme.split("_")[0])
    if recipe.moe_quant_type:
        parts.append("int4")
    return max(LOGIT_ERROR.get(part, 0.0) for part in parts)


@dataclass(frozen=True)
class Agreement:
    """How near next-token distributions are to those of PyTorch, over all compared positions.

    `kl`: mean of KL(PyTorch || built), nats a token; `greedy`: share of positions with the same most likely token;
    `error`: root of the share of the logits' variance that is not the source's, each position's mean left out: 0 where
    they are the same, 1 where all of them are equal, 1.4 where they have nothing to do with one another;
    `built_repeats`, `source_repeats`: share of positions that the commonest of the greedy tokens has.
    """

    kl: float
    greedy: float
    error: float
    built_repeats: float
    source_repeats: float
    positions: int


def texts_of(items: list[tuple[Tokens, Tokens]]) -> list[Tokens]:
    """Return the texts to compare from (prompt, completion): evenly spread, ITEMS at most, about TOKENS tokens in all."""
    count = min(ITEMS, len(items))
    spread = [items[k * len(items) // count] for k in range(count)]
    texts: list[Tokens] = []
    for prompt, completion in spread:
        text = prompt + completion
        if texts and sum(map(len, texts)) + len(text) > TOKENS:
            break
        texts.append(text)
    return texts


def agreement(source: list[NDArray[np.float32]], built: list[NDArray[np.float32]]) -> Agreement:
    """Compare logits of texts, each (positions, vocabulary). Those of `built` must be finite."""
    kl = error = variance = 0.0
    same = positions = 0
    tokens: tuple[Counter[int], Counter[int]] = (Counter(), Counter())
    for a, b in zip(source, built, strict=True):
        first, second = torch.from_numpy(a), torch.from_numpy(np.ascontiguousarray(b[:, : a.shape[1]]))
        log_p, log_q = first.log_softmax(-1), second.log_softmax(-1)
        kl += float((log_p.exp() * (log_p - log_q)).sum(-1).double().sum())
        first, second = first - first.mean(-1, keepdim=True), second - second.mean(-1, keepdim=True)
        error += float((first - second).square().sum(-1).double().sum())
        variance += float(first.square().sum(-1).double().sum())
        chosen = log_p.argmax(-1), log_q.argmax(-1)
        same += int((chosen[0] == chosen[1]).sum())
        positions += len(a)
        for counter, greedy in zip(tokens, chosen, strict=True):
            counter.update(greedy.tolist())
    repeats = [counter.most_common(1)[0][1] / positions for counter in tokens]
    relative = math.sqrt(error / variance) if variance else float(error > 0)
    return Agreement(max(0.0, kl / positions), same / positions, relative, repeats[1], repeats[0], positions)


def logits_of(
    backend: OnnxBackend | TorchBackend, texts: list[Tokens], last: bool = False
) -> list[NDArray[np.float32]]:
    """Return the logits (positions, vocabulary) of each text's last positions, or of the last alone."""
    found: dict[int, NDArray[np.float32]] = {}
    together = not last and backend.padded if isinstance(backend, TorchBackend) else not last and backend.ragged
    for members in groups([len(text) for text in texts], together, ragged=True):
        some = [texts[i] for i in members]
        starts = [max(0, len(text) - POSITIONS) for text in some]
        if last:
            read = [backend.run(np.array(some, dtype=np.int64), last=True)[0][0]]
        elif isinstance(backend, TorchBackend) and len(some) == 1:  # of a long text all logits would be gigabytes
            logits, _ = backend.run(np.array(some, dtype=np.int64), tail=len(some[0]) - starts[0])
            read = [logits[0].copy()]
        elif isinstance(backend, TorchBackend):
            ids, lengths = padded(some)  # at their ends, which no position before attends to
            logits, _ = backend.run(ids)
            spans = zip(logits, starts, lengths, strict=True)
            read = [row[start:length].copy() for row, start, length in spans]
        else:
            read = backend.read(some, starts)
        found |= dict(zip(members, read, strict=True))
    return [found[i] for i in range(len(texts))]


def trouble(recipe: Recipe, found: Agreement) -> str | None:
    """Return in words why logits are not those of an honest build; None where they may be."""
    if found.built_repeats >= REPEATS and found.source_repeats < REPEATS and found.greedy < REPEATS:
        return (
            f"the build repeats one token at {found.built_repeats:.0%} of {found.positions} positions, "
            f"and PyTorch at {found.source_repeats:.0%}"
        )
    limit = limit_of(recipe)
    if not found.error <= limit:
        return (
            f"the build's logits are not PyTorch's: they differ by {found.error:.0%} ({recipe.precision}: at most {limit:.0%}), "
            f"KL divergence {found.kl:.3g} nats a token, the same greedy token at {found.greedy:.0%} of "
            f"{found.positions} positions"
        )
    return None


class Reference:
    """The source in PyTorch, and its logits of some texts. `known`: those that were computed before, filled here."""

    def __init__(
        self, backend: TorchBackend, texts: list[Tokens], known: dict[bool, list[NDArray[np.float32]]] | None = None
    ) -> None:
        self.backend, self.texts = backend, texts
        self.known = {} if known is None else known

    def logits(self, last: bool) -> list[NDArray[np.float32]]:
        """Return them as `logits_of` does."""
        if last not in self.known:
            self.known[last] = logits_of(self.backend, self.texts, last)
        return self.known[last]


_known: dict[tuple[Path, tuple[Tokens, ...]], dict[bool, list[NDArray[np.float32]]]] = {}
"""In a warm worker the logits of the last source: recipes of one adapter often follow one another."""


_computed: dict[tuple[str, ...], float] = {}
"""In a warm worker the error of each graph that was seen to compute what its source computes: no adapter changes it."""


def longest_text(texts: list[Tokens], longest: int) -> Tokens:
    """Return the texts as one, of `longest` tokens and LONGEST at most: positions are told apart where they are many."""
    return tuple(token for text in texts for token in text)[: min(longest, LONGEST)]


def computed_error(
    reference: Reference, backend: OnnxBackend, folder: Path, longest: int, beyond: int | None = None
) -> float | None:
    """Return how far a build's logits are from those of PyTorch's model with the build's own weights (relative error).

    Does it once for each graph. None where not all weights can be put into that model. The reference's model is another
    one afterwards.
    """
    config = getattr(reference.backend.model, "config", None)
    graph = hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()
    texts = [longest_text(reference.texts, longest)]
    if (
        beyond is not None
    ):  # the texts over and over: what a model makes of it does not matter, only that both make the same
        texts.append(tuple(islice(cycle(token for text in reference.texts for token in text), beyond)))
    key = (graph, backend.provider, str(config), str(texts))
    if key not in _computed:
        if put_quantised(folder, reference.backend.model):
            return None
        exact = OnnxBackend(folder, backend.provider, backend.threads, exact=True, device=backend.device)
        built = logits_of(exact, texts, exact.last_only)
        _computed[key] = agreement(logits_of(reference.backend, texts, exact.last_only), built).error
    return _computed[key]


def judge(
    reference: Reference,
    backend: OnnxBackend,
    folder: Path,
    recipe: Recipe,
    longest: int = LONGEST,
    beyond: int | None = None,
) -> Result:
    """Compare the build in `folder`, loaded in `backend`, with its source: the result of `check`.

    `longest`: tokens of a text that the model is made to take, at most; `beyond`: as in `CheckJob`.
    """
    own = bool(
        recipe.own_stages
    )  # what they change is meant to be another: logits alone say whether it is a model still
    weights = [] if own else compare_weights(folder, reference.backend.model.state_dict())
    wrong, judged = damaged(weights)
    result: Result = {
        "texts": len(reference.texts),
        "weights": judged,
        "weight_error": _finite(max((one.error for one in weights), default=None)),
        "weight_steps": _finite(max((one.steps for one in weights if one.steps is not None), default=None)),
    }
    reasons = []
    built = logits_of(backend, reference.texts, backend.last_only)
    if all(np.isfinite(logits).all() for logits in built):
        found = agreement(reference.logits(backend.last_only), built)
        result |= {
            "kl_nats": _finite(found.kl),
            "greedy_agreement": found.greedy,
            "logit_error": _finite(found.error),
            "positions": found.positions,
        }
        reasons.append(trouble(recipe, found))
    else:
        own_fault = not_finite(reference.backend.model)
        reasons.append(own_fault or "the build's logits are infinite or not a number")
    if wrong:
        error = (
            f"differs by {wrong[0].error:.0%}" if math.isfinite(wrong[0].error) else "holds numbers that are not finite"
        )
        reasons.append(
            f"{len(wrong)} of {judged} weights that were read back are not the model's: {wrong[0].name} {error}"
        )
    if not any(reasons) and not own:
        computed, limit = computed_error(reference, backend, folder, longest, beyond), computed_limit(backend, recipe)
        result["computed_error"] = _finite(computed)
        if computed is not None and not computed <= limit:
            reasons.append(
                f"the build computes another model: with the same weights its logits differ from PyTorch's by "
                f"{computed:.0%}, and by at most {limit:.0%} where both compute the same"
            )
    return result | {"trouble": "; ".join(filter(None, reasons)) or None}


def computed_limit(backend: OnnxBackend, recipe: Recipe) -> float:
    """Return the relative error of logits that a build has for its floats alone, and for those of its cache."""
    limit = LOGIT_ERROR[backend.floats]
    if recipe.kv_cache_quant_scheme:
        limit = max(limit, LOGIT_ERROR[recipe.kv_cache_quant_scheme.split("_")[0]])
    return limit


def _finite(value: float | None) -> float | None:
    """Return a number, or None where it is none."""
    return value if value is not None and math.isfinite(value) else None


def check(job: CheckJob, out: Path) -> Result:
    """Compare the build in `job.model_dir` with its source in `job.source_dir` on held-out items.

    Result: `kl_nats`, `greedy_agreement`, `logit_error`, `texts`, `positions`; `weights` (how many were read back and
    could be judged), the largest `weight_error` and `weight_steps`; `computed_error`: that of `computed_error`, absent
    where the build is refused for another reason; `trouble`: None, or in words why the build is not its source. A
    number that is not finite is None. Where it is asked for also what `share_of` says of the provider.
    """
    del out
    tokenizer = load_tokenizer(job.source_dir)
    items, _ = encode(tokenizer, read_items(job.data_file), job.max_length)
    return compare(job, texts_of([(item.prompt, item.completion) for item in items]))


def compare(job: CheckJob, texts: list[Tokens]) -> Result:
    """Do what `check` does on these texts. Raises StageError (`unsupported`) where the build does not run."""
    # In single precision on the CPU: the source must not add an error, nor take the device's memory.
    source = TorchBackend(job.source_dir, None, "cpu", job.threads)
    key = (job.source_dir, tuple(texts))
    if key not in _known:
        _known.clear()
    reference = Reference(source, texts, _known.setdefault(key, {}))
    backend = OnnxBackend(job.model_dir, job.provider, job.threads, device=job.device_index, shares=bool(job.shares))
    share = share_of(backend.session, PROVIDERS[job.provider].runtime_name).plain() if job.shares else {}
    return judge(reference, backend, job.model_dir, job.recipe, job.max_length, job.beyond) | share
