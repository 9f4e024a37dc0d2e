"""A kept model answers as it was scored: with the likeliest token at each step.

The model builder copies what `generation_config.json` and `config.json` say of sampling, beams and penalties into the
settings that ship, and ONNX Runtime GenAI follows them unless it is told otherwise: its answers would be other ones than
those that were scored.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from autotune.durable import write_aside
from autotune.errors import shown

PLAIN: dict[str, Any] = {
    "do_sample": False, "num_beams": 1, "num_return_sequences": 1, "repetition_penalty": 1.0, "no_repeat_ngram_size": 0,
    "min_length": 0,
}  # fmt: skip
"""The search settings of ONNX Runtime GenAI that change an answer, each at the value that changes nothing."""


def answer_greedily(file: Path) -> None:
    """Set the search settings in a `genai_config.json` to `PLAIN`; a file that has them stays as it is. Raises OSError."""
    settings = json.loads(file.read_text(encoding="utf-8"))
    search = settings.get("search")
    if isinstance(search, dict) and any(search.get(name, plain) != plain for name, plain in PLAIN.items()):
        search |= PLAIN
        write_aside(file, json.dumps(settings, indent=4))


def generation_note(folder: Path) -> list[str]:
    """Return a line where a model's own settings ask for other answers than the likeliest tokens."""
    asked: dict[str, Any] = {}
    for name in ("config.json", "generation_config.json"):
        try:
            settings = json.loads((folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            continue
        if isinstance(settings, dict):
            asked |= {key: settings[key] for key, plain in PLAIN.items() if settings.get(key) not in (None, plain)}
    if not asked:
        return []
    found = ", ".join(f"{key} {shown(value)}" for key, value in asked.items())
    return [f"model: its own settings ask for {found}; scores and best/ take the likeliest token at each step instead"]
