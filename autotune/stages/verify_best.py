"""Does a kept model do what is recorded of it, where its users load it: ONNX Runtime GenAI alone, from the text of prompts.

This process is fresh and holds neither PyTorch nor transformers. The text goes through the tokenizer and the chat template
in the folder, so that a score that was measured on other tokens than its users will have is found out here.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autotune.candidate import Session
from autotune.errors import StageError, shown
from autotune.stages.delivery_jobs import PromptJob, VerifyItem, VerifyJob
from autotune.stages.library_errors import reason
from autotune.stages.protocol import Result
from autotune.stages.timing import load

TOLERANCE = 1e-3
"""Nats: by so much two log-likelihoods of a token may differ that are the same but for rounding of floats.

Where activations are rounded to 8 bits (accuracy level 4) the last bit of a float can decide which way one of them is
rounded, layers further on thousands, and log-likelihoods differ by tenths of a nat. A pass over the whole text and a pass
token by token differ in such bits, so an item that is not answered as recorded is run both ways: see `explained`.
"""
ROUNDING = 2.0
"""Nats: what moves a difference of log-likelihoods by more is no rounding. One changed bit at the first layer of the
built-in model at int4, accuracy level 4, moved log-likelihoods of labels by 0.15 in the mean and by 0.93 at most.
"""
_HEAVY = ("torch", "transformers", "tokenizers")


def verify(job: VerifyJob, out: Path) -> Result:
    """Result: `items` that were tried, and `wrong`: of each that differs, what is recorded and what was found, in words.

    Raises StageError: `unsupported` where the model does not load, `failed` where it does not run.
    """
    del out
    import onnxruntime_genai as og

    model = load(job.model_dir, job.provider, Session(), job.device_index)
    try:
        return _Verifier(job, model, og.Tokenizer(model)).run()
    except RuntimeError as error:
        raise StageError("failed", f"the model does not run: {reason(error)}") from error
    finally:
        there = sorted(set(_HEAVY) & set(sys.modules))
        assert not there, f"{', '.join(there)} must not be loaded here"


def prompt(job: PromptJob, out: Path) -> Result:
    """Result: `prompt`, the text that a conversation becomes; or `why_not`, where the model has no template that renders it.

    Raises StageError: `unsupported` where the model does not load.
    """
    del out
    import onnxruntime_genai as og

    tokenizer = og.Tokenizer(load(job.model_dir, job.provider, Session(), job.device_index))
    messages = json.dumps(list(job.messages), ensure_ascii=False)
    try:
        return {"prompt": str(tokenizer.apply_chat_template(messages, add_generation_prompt=True))}
    except RuntimeError as error:
        return {"why_not": reason(error)}


class _Verifier:
    def __init__(self, job: VerifyJob, model: Any, tokenizer: Any) -> None:
        self.job, self.model, self.tokenizer = job, model, tokenizer
        self.labels = [self._tokens(label) for label in job.labels]
        if any(a != b and b[: len(a)] == a for a in self.labels for b in self.labels):
            self.labels = [[*label, self._end()] for label in self.labels]
        self.longest = max(map(len, self.labels), default=0)
        completions = {item.completion for item in job.items} | set(job.completions)
        self.limit = job.max_new_tokens or 1 + max(len(self._tokens(text)) for text in completions)

    def _tokens(self, text: str) -> list[int]:
        return [int(token) for token in self.tokenizer.encode(text)]

    def _end(self) -> int:
        """Return the end-of-text token that the tokenizer's own settings name."""
        settings = json.loads((self.job.model_dir / "tokenizer_config.json").read_text(encoding="utf-8"))
        named = settings.get("eos_token")
        return int(self.tokenizer.to_token_id(named["content"] if isinstance(named, dict) else named))

    def run(self) -> Result:
        """Try the items whose prompts were not cut for the score, as many as are asked for."""
        tried = 0
        wrong: list[Difference] = []
        for item in self.job.items:
            if tried == self.job.most:
                break
            if not item.prompt:
                tokens = self._tokens(item.completion)
                if 1 < len(tokens) < self.job.max_length:
                    tried += 1
                    wrong += self._unlikely(item, tokens[:1], tokens[1:])
                continue
            try:
                prompt = self._tokens(self._text(item))
            except RuntimeError as error:
                return {"items": 0, "wrong": [f"the model's chat template cannot be rendered: {reason(error)}"]}
            answer = max(len(self._tokens(item.completion)), self.longest)
            if not prompt or len(prompt) > self.job.max_length - answer - 1:
                continue
            tried += 1
            wrong += self._differs(item, prompt)
        return {"items": tried, "wrong": explained(wrong)}

    def _text(self, item: VerifyItem) -> str:
        if isinstance(item.prompt, str):
            return item.prompt
        messages = json.dumps(list(item.prompt), ensure_ascii=False)
        return str(self.tokenizer.apply_chat_template(messages, add_generation_prompt=True))

    def _differs(self, item: VerifyItem, prompt: list[int]) -> list[Difference]:
        """Return how an item's answer differs from the recorded one; None if it does not."""
        if item.label is not None:
            whole = [self._log_likelihood(prompt, label) for label in self.labels]
            found = int(np.argmax(whole))
            if found == item.label or whole[found] - whole[item.label] <= TOLERANCE:
                return []
            rival, recorded = (self._by_token(prompt, self.labels[place]) for place in (found, item.label))
            said = f"item {item.id}: {shown(self.job.labels[found])}, recorded {shown(self.job.labels[item.label])}"
            return [Difference(said, whole[found] - whole[item.label], rival - recorded)]
        if item.text is not None:
            text, gap = self._generate(prompt)
            if same_text(text, item.text) or gap <= TOLERANCE:
                return []
            return [Difference(f"item {item.id}: {shown(text)}, recorded {shown(item.text)}")]
        return self._unlikely(item, prompt, self._tokens(item.completion))

    def _unlikely(self, item: VerifyItem, prompt: list[int], completion: list[int]) -> list[Difference]:
        """Return how the likelihood of a completion differs from the recorded one; None if it does not."""
        assert item.nll is not None
        share = max(1, len(completion))
        nll = -self._log_likelihood(prompt, completion)
        if abs(nll - item.nll) <= TOLERANCE * share:
            return []
        again = -self._by_token(prompt, completion)
        said = f"item {item.id}: log-likelihood {-nll:.4f}, recorded {-item.nll:.4f}"
        return [Difference(said, abs(nll - item.nll) / share, (again - item.nll) / share * np.sign(nll - item.nll))]

    def _generator(self, tokens: Sequence[int], more: int) -> Any:
        import onnxruntime_genai as og

        parameters = og.GeneratorParams(self.model)
        parameters.set_search_options(max_length=len(tokens) + more, do_sample=False)
        generator = og.Generator(self.model, parameters)
        generator.append_tokens(np.array(tokens, dtype=np.int32))
        return generator

    def _log_likelihood(self, prompt: list[int], completion: list[int]) -> float:
        """Return the log-likelihood of a completion's tokens (nats), read in one pass over the whole text."""
        whole = [*prompt, *completion]
        logits = np.asarray(self._generator(whole, 1).get_output("logits"))
        if logits.shape[1] != len(whole):  # the graph gives those of the last position alone
            return self._by_token(prompt, completion)
        return _likely(logits[0, len(prompt) - 1 : -1], completion)

    def _by_token(self, prompt: list[int], completion: list[int]) -> float:
        """Return the log-likelihood of a completion's tokens (nats), given one by one after the prompt."""
        generator = self._generator(prompt, len(completion) + 1)
        rows = [np.asarray(generator.get_logits()).reshape(-1)]
        for token in completion[:-1]:
            generator.append_tokens(np.array([token], dtype=np.int32))
            rows.append(np.asarray(generator.get_logits()).reshape(-1))
        return _likely(np.stack(rows), completion)

    def _generate(self, prompt: list[int]) -> tuple[str, float]:
        """Return the greedy continuation, and the smallest lead (nats) of a token that was taken over the next likely."""
        generator = self._generator(prompt, self.limit)
        ends = {int(token) for token in self.tokenizer.eos_token_ids} | {self._end()}
        tokens: list[int] = []
        gap = np.inf
        while len(tokens) < self.limit and not generator.is_done():
            likely = _log_softmax(np.asarray(generator.get_logits()).reshape(1, -1))[0]
            second, first = np.partition(likely, -2)[-2:]
            gap = min(gap, float(first - second))
            generator.generate_next_token()
            token = int(generator.get_next_tokens()[0])
            if token in ends:
                break
            tokens.append(token)
            if self.job.stop and self._cut(tokens) != self._decoded(tokens):
                break
        return self._cut(tokens).strip(), gap

    def _decoded(self, tokens: list[int]) -> str:
        return str(self.tokenizer.decode(np.array(tokens, dtype=np.int32))) if tokens else ""

    def _cut(self, tokens: list[int]) -> str:
        text = self._decoded(tokens)
        return text[: min((at for at in map(text.find, self.job.stop) if at >= 0), default=len(text))]


@dataclass(frozen=True)
class Difference:
    """An item whose answer differs from the recorded one."""

    said: str
    """The found and the recorded answer, in words."""
    whole: float = math.inf
    """How far what was found is from what is recorded (nats), in one pass over the whole text."""
    by_token: float = math.inf
    """The same token by token: negative where what is recorded is right there."""


def explained(differences: Sequence[Difference]) -> list[str]:
    """Return in words the differences from what is recorded that rounding does not explain.

    How far rounding moves this model is seen in those very items, each run both ways: the largest change of a difference
    counts for all of them.
    """
    moves = [abs(one.whole - one.by_token) for one in differences if math.isfinite(one.whole)]
    moved = max((move for move in moves if move <= ROUNDING), default=0.0)
    return [
        one.said
        for one in differences
        if not min(one.whole, one.by_token) <= TOLERANCE + moved or abs(one.whole - one.by_token) > ROUNDING
    ]


_BROKEN = "\ufffd"


def same_text(found: str, recorded: str) -> bool:
    """Whether two texts are the same, as far as the runtime goes: it stops at the first bytes that are no UTF-8, and at NUL,
    and of tokens that have no text it makes such bytes.
    """
    if found == _BROKEN and not recorded.partition("\0")[0]:
        return True
    if _BROKEN in found and _BROKEN in recorded:
        found, recorded = (text.partition(_BROKEN)[0].strip() for text in (found, recorded))
    return found == recorded


def _likely(logits: NDArray[Any], tokens: list[int]) -> float:
    """Return the log-likelihood of tokens (nats) from logits (tokens, vocabulary)."""
    return float(_log_softmax(logits)[np.arange(len(tokens)), tokens].sum())


def _log_softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    rows = logits.astype(np.float64)
    rows = rows - rows.max(axis=-1, keepdims=True)
    return np.asarray(rows - np.log(np.exp(rows).sum(axis=-1, keepdims=True)))
