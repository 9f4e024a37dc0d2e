"""From items to tokens, one way for training and scoring: the prompt's tokens, then the completion's.

The completion is encoded by itself, because that is what a deployed model continues: the tokens of the prompt. Where a
model is built, a deployed prompt is encoded by ONNX Runtime GenAI, and that does not always give the tokens of
transformers: it puts no begin-of-text or end-of-text token around a text, and leaves out the tokenizer's normaliser.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from autotune.errors import StageError
from autotune.scratch import scratch
from autotune.stages.library_errors import reason
from autotune.stages.protocol import ORT_WHEELS
from autotune.stages.saved_tokenizer import open_tokenizer


@dataclass(frozen=True)
class Encoded:
    """One item as token ids; `completion` without the end-of-text token."""

    id: str
    prompt: tuple[int, ...]
    completion: tuple[int, ...]
    text: str
    """The completion as text."""


def load_tokenizer(folder: Path, encoding: str | None = None) -> Any:
    """Return the fast tokenizer of a model folder; one that makes tokens as ONNX Runtime GenAI does where `encoding` names it."""
    tokenizer, _ = open_tokenizer(folder)
    by_runtime = encoding is not None and encoding.startswith(ORT_WHEELS[0])
    return RuntimeTokenizer(tokenizer, folder) if by_runtime else tokenizer


class RuntimeTokenizer:
    """A tokenizer of transformers whose tokens and texts are made by ONNX Runtime GenAI, from the files that ship.

    What is asked of it besides (special tokens, the chat template's presence) transformers answers.
    """

    def __init__(self, tokenizer: Any, folder: Path) -> None:
        """`folder`: a built model's, or the original's. Raises StageError (`unsupported`) where the runtime cannot read it."""
        self.tokenizer = tokenizer
        self.runtime = runtime_tokenizer(tokenizer, folder)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tokenizer, name)

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        """Return the tokens of a text. The runtime adds none around it, whatever is asked for.

        Raises StageError (`unsupported`) where the tokenizer is of a kind that it only seems to read.
        """
        del add_special_tokens
        tokens = [int(token) for token in self.runtime.encode(text)]
        if min(tokens, default=0) < 0:
            raise StageError("unsupported", f"{_UNREAD}: it makes tokens that do not exist")
        return tokens

    def decode(self, tokens: int | Sequence[int], skip_special_tokens: bool = True) -> str:
        """Return the text of tokens, without special ones; with them transformers answers."""
        if isinstance(tokens, int) or not skip_special_tokens:
            return str(self.tokenizer.decode(tokens, skip_special_tokens=skip_special_tokens))
        return str(self.runtime.decode(np.array(tokens, dtype=np.int32))) if len(tokens) else ""

    def apply_chat_template(self, messages: Sequence[dict[str, str]], **given: Any) -> str:
        """Return a conversation as text; where the runtime cannot render the template, as transformers renders it."""
        try:
            asked = bool(given.get("add_generation_prompt"))
            return str(self.runtime.apply_chat_template(json.dumps(list(messages)), add_generation_prompt=asked))
        except RuntimeError:
            return str(self.tokenizer.apply_chat_template(messages, **given))


_UNREAD = "ONNX Runtime GenAI cannot read the tokenizer"
_SETTINGS = {
    "model": {
        "type": "llama", "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0, "vocab_size": 1, "context_length": 1,
        "decoder": {"filename": "model.onnx"},
    },
    "search": {},
}  # fmt: skip
"""As much of genai_config.json as the runtime needs to make a tokenizer. No number of it changes what it does."""


def runtime_tokenizer(tokenizer: Any, folder: Path) -> Any:
    """Return ONNX Runtime GenAI's tokenizer of a model folder, made from the files that a build of it ships.

    The model builder saves the tokenizer as transformers writes it. Raises StageError (`unsupported`).
    """
    import onnxruntime_genai as og

    try:
        if (folder / "genai_config.json").is_file():
            return og.Tokenizer(str(folder))
        with scratch("tokenizer") as aside:
            tokenizer.save_pretrained(aside)
            (aside / "genai_config.json").write_text(json.dumps(_SETTINGS), encoding="utf-8")
            return og.Tokenizer(str(aside))
    except RuntimeError as error:
        raise StageError("unsupported", f"{_UNREAD}: {reason(error)}") from error


def read_items(file: Path) -> list[dict[str, Any]]:
    """Return the items that the tuner wrote for its stages: id, prompt (text or messages), completion."""
    items: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
    return items


def end_token(tokenizer: Any) -> int:
    """Return the end-of-text token. Raises StageError (`unsupported`) where the tokenizer has none."""
    if tokenizer.eos_token_id is None:
        raise StageError("unsupported", "the model's tokenizer names no end-of-text token; set its eos_token")
    return int(tokenizer.eos_token_id)


def end_tokens(folder: Path, tokenizer: Any) -> frozenset[int]:
    """Return the tokens that end a text: the tokenizer's, and those at which the model's settings stop generating."""
    found = {end_token(tokenizer)}
    for name in ("genai_config.json", "generation_config.json", "config.json"):
        if (folder / name).is_file():
            settings = json.loads((folder / name).read_text(encoding="utf-8"))
            ids = settings.get("model", settings).get("eos_token_id")
            found |= set(ids) if isinstance(ids, list) else {ids} - {None}
    return frozenset(found)


def context_length(folder: Path) -> int | None:
    """Return how many tokens a model's positions reach, or None where its settings do not say."""
    for name, key in (("genai_config.json", "context_length"), ("config.json", "max_position_embeddings")):
        if (folder / name).is_file():
            settings = json.loads((folder / name).read_text(encoding="utf-8"))
            found = settings.get("model", settings).get(key)
            if isinstance(found, int):
                return found
    return None


def encode(tokenizer: Any, items: list[dict[str, Any]], max_length: int, longest: int = 0) -> tuple[list[Encoded], int]:
    """Encode items; a prompt that is too long loses its beginning, a plain text its end. Returns them and how many were cut.

    Of a plain text the first token, which nothing predicts, is the prompt.

    With `longest`, every prompt leaves room for that many tokens: otherwise the length of a cut prompt would tell how
    long the right label is. Raises StageError (`failed`) where a completion alone, with its end, is longer than
    `max_length` tokens.
    """
    encoded: list[Encoded] = []
    cut = 0
    for item in items:
        if not item["prompt"]:
            whole = tuple(tokenizer.encode(item["completion"]))
            if not whole:
                raise StageError(
                    "failed", f"a text has no tokens ({item['completion'][:40]!r}); take it out of the data"
                )
            kept = whole[: max_length - 1]
            cut += len(kept) < len(whole)
            encoded.append(Encoded(item["id"], kept[:1], kept[1:] or (end_token(tokenizer),), item["completion"]))
            continue
        prompt = prompt_ids(tokenizer, item["prompt"])
        completion = tuple(tokenizer.encode(item["completion"], add_special_tokens=False))
        answer = max(len(completion), longest)
        room = max_length - answer - 1
        if room < 1:
            message = f"a completion of {answer} tokens does not fit into max_length {max_length}"
            raise StageError("failed", f"{message}; raise train.max_length")
        if len(prompt) > room:
            prompt = prompt[-room:]
            cut += 1
        encoded.append(Encoded(item["id"], prompt, completion, item["completion"]))
    return encoded, cut


def prompt_ids(tokenizer: Any, prompt: str | list[dict[str, str]]) -> tuple[int, ...]:
    """Return a prompt's tokens: plain text with the model's own special tokens, messages by its chat template."""
    if isinstance(prompt, str):
        ids = tokenizer.encode(prompt)
        if not ids:
            raise StageError("failed", "a prompt has no tokens; give data.prompt some text")
        return tuple(ids)
    if tokenizer.chat_template is None:
        raise StageError("failed", "data.messages needs a model with a chat template; use data.prompt")
    text = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=False)
    return tuple(tokenizer.encode(text, add_special_tokens=False))
