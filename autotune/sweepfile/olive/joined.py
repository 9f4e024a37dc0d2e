"""The batch of a file whose rows Olive joins: it takes as many rows as Olive's blocks would hold.

Olive joins the texts and cuts them into blocks of the most tokens of a text, so that a step of one block of 2,048 tokens sees
dozens of short rows. Here each row is a text of its own. With the file's own batch size a step would see one of them, and the
file's steps would train on a small part of what they train on there; its epochs would have as many times more steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autotune.data.dataset import load_dataset
from autotune.data.schema import DataSpec, Item
from autotune.data.sources import hub_source
from autotune.errors import UsageError
from autotune.space.parameter_tables import LORA

BYTES = 4.0
"""UTF-8 bytes of a token, about: of English text, and of most others with the tokenizers of today."""
AROUND = 5
"""Tokens that Olive puts around a row: marks with spaces, and what joins it to the next."""
_BATCH, _ITEMS = "space.lora.batch_size", "data.max_items.train"


def fit_batch(sweep: Mapping[str, Any], root: Path, origins: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Change `space.lora.batch_size`, and a bound on the rows, from blocks to the rows that they would hold.

    Of `origins` only what the command line has not changed is there, and changed here. Returns their new origins, and what
    the user is told; where the rows are not at hand, that alone.
    """
    space, train = sweep.get("space"), sweep.get("train")
    lora = space.get("lora") if isinstance(space, Mapping) else None
    length = train.get("max_length") if isinstance(train, Mapping) else None
    if not isinstance(lora, dict) or _BATCH not in origins or not isinstance(length, int):
        return {}, []
    items = _rows(sweep.get("data"), root)
    if not items:
        blocks = f"a batch has batch_size rows, and Olive's has as many blocks of {length} tokens, each with several short rows"
        said = [f"{_BATCH}: {blocks}; if yours are short, set it to the rows that such blocks would hold"]
        if _ITEMS in origins:
            said.append(
                f"{_ITEMS}: so many rows are trained on, and Olive takes as many blocks; if yours are short, raise it"
            )
        return {}, said
    each = max(1, round(length / _tokens(items, length)))
    if each == 1:
        return {}, []
    why = f"a block of {length} tokens would hold about {each} rows, and a row is a text of its own"
    before = lora.get("batch_size")
    after = _times(before, each, int(LORA["batch_size"].high))
    found, told = {}, []
    if after != before:
        lora["batch_size"] = after
        found[_BATCH] = f"{origins[_BATCH]}; {why}"
        told.append(f"{_BATCH}: {_said(after)} rows in place of {_said(before)} of Olive's blocks: {why}")
    data = sweep.get("data")
    most = data.get("max_items") if isinstance(data, Mapping) else None
    if _ITEMS in origins and isinstance(most, dict) and isinstance(most.get("train"), int):
        most["train"] *= each
        found[_ITEMS] = f"{origins[_ITEMS]}; {why}"
    return found, told


def _times(value: Any, each: int, most: int) -> Any:
    """Return a batch size, or a choice of several, times the rows of a block."""
    if isinstance(value, int):
        return min(most, value * each)
    if isinstance(value, Mapping) and isinstance(value.get("choice"), list):
        return {"choice": list(dict.fromkeys(_times(one, each, most) for one in value["choice"]))}
    return value


def _said(value: Any) -> str:
    return " or ".join(map(str, value["choice"])) if isinstance(value, Mapping) else str(value)


def _rows(data: Any, root: Path) -> tuple[Item, ...]:
    """Return the rows that are trained on; none where they are not on this machine, or wrong, which is said elsewhere."""
    try:
        spec = DataSpec.model_validate(data)
        sources = (spec.train, spec.validation, spec.test)
        if any(hub_source(source, root) is not None for source in sources):
            return ()
        return tuple(load_dataset(spec, root).train)
    except (UsageError, ValueError):
        return ()


def _tokens(items: tuple[Item, ...], most: int) -> float:
    """Return about how many tokens a row has in Olive's blocks, on average."""

    def size(item: Item) -> float:
        prompt = item.prompt if isinstance(item.prompt, str) else "".join(turn.content for turn in item.prompt)
        return len((prompt + item.completion).encode()) / BYTES + AROUND

    return sum(min(float(most), size(item)) for item in items) / len(items)
