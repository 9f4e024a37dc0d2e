"""Load a model's tokenizer as its `tokenizer.json` says, where transformers would make another one.

Some classes of transformers (`GPT2Tokenizer`, `Qwen2Tokenizer`, `LlamaTokenizer`, ...) take the vocabulary of that file and
build the rest themselves: how a text is normalised and split, and how tokens become text again. Where a model names such a
class and was trained with something else, numbers are split otherwise, letters lose their case, or spaces are lost, and
nothing says so (transformers#45488, #45920). What the file says is what the model was trained with, and what every other
runtime reads.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

FILE = "tokenizer.json"
_TEXTS = (
    "I felt JOY today: 1234 + 5678.90 = 'what' they'll see?\n\n  Then (again)\t#12 -- cafe\u0301 caf\u00e9 \ufb01 \u2460",
    " leading, trailing ", "def f(x):\n    return x_1 ** 2", "\u4eca\u5929\u5f88\u9ad8\u5174 \u0928\u092e\u0938\u094d\u0924\u0947",
)  # fmt: skip
"""Texts on which two ways to split are compared: case, digits, white space, accents, scripts."""


def open_tokenizer(folder: Path) -> tuple[Any, str]:
    """Return the tokenizer of a model folder, and the class that the model names where that is not taken; else "".

    The model's own code is never run. Raises what loading raises.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
    except Exception:  # a class that cannot take this vocabulary, or one of the model's own code
        if not (folder / FILE).is_file():
            raise
        try:
            as_saved = PreTrainedTokenizerFast.from_pretrained(str(folder), trust_remote_code=False)
        except Exception:  # noqa: BLE001 - the first says more
            as_saved = None
        if as_saved is None:
            raise
        return as_saved, _named_class(folder)
    if not made_otherwise(tokenizer, folder):
        return tokenizer, ""
    as_saved = PreTrainedTokenizerFast.from_pretrained(str(folder), trust_remote_code=False)
    return as_saved, type(tokenizer).__name__


def _named_class(folder: Path) -> str:
    """Return the class that a model names for its tokenizer."""
    try:
        named = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))["tokenizer_class"]
    except (OSError, ValueError, LookupError, TypeError):
        named = None
    return str(named or "AutoTokenizer")


def made_otherwise(tokenizer: Any, folder: Path) -> bool:
    """Whether transformers made another tokenizer than `tokenizer.json` says."""
    file = folder / FILE
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or type(tokenizer) is PreTrainedTokenizerFast or not file.is_file():
        return False
    saved = Tokenizer.from_file(str(file))
    for one in (saved, backend):  # what transformers sets anew for every text
        one.no_truncation()
        one.no_padding()
    apart = _ways if not _is_sentencepiece(saved) else _ids  # of that there are several ways to write the same
    try:
        return any(apart(saved, text) != apart(backend, text) for text in _TEXTS)
    except Exception:  # noqa: BLE001 - a bare one: the class asks for a token that this vocabulary has not
        return True


def _ids(tokenizer: Tokenizer, text: str) -> object:
    return tokenizer.encode(text, add_special_tokens=False).ids


def _ways(tokenizer: Tokenizer, text: str) -> object:
    """Return what becomes of a text: its pieces before the vocabulary matters, its tokens, and the text that they are."""
    normal = tokenizer.normalizer.normalize_str(text) if tokenizer.normalizer is not None else text
    splitter = tokenizer.pre_tokenizer
    pieces = [piece for piece, _ in splitter.pre_tokenize_str(normal)] if splitter is not None else [normal]
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    return pieces, ids, tokenizer.decode(ids)


def _is_sentencepiece(tokenizer: Tokenizer) -> bool:
    parts = (tokenizer.normalizer, tokenizer.pre_tokenizer, tokenizer.decoder)
    said = b"".join(part.__getstate__() for part in parts if part is not None).decode()
    return "\u2581" in said and "ByteLevel" not in said
