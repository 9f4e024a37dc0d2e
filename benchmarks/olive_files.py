"""Olive configurations for testing the reader: our own ones like the guide's, in both spellings, and functions that mutate them."""

from __future__ import annotations

import copy
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from autotune.sweepfile.olive.ledger import Path as Key

FILES = Path(__file__).parent.parent / "tests" / "olive" / "files"
PUBLIC = Path(os.environ.get("AUTOTUNE_TEST_DATA", "../shared/data")).parent / "olive"
"""The published guide's files and recipes, beside the public data that tests read."""


def read(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def own() -> dict[str, dict[str, Any]]:
    """Our own configurations, by name."""
    return {file.stem: read(file) for file in sorted(FILES.glob("*.json"))}


def public() -> dict[str, dict[str, Any]]:
    """The published files, by name; empty where they are not there."""
    return {file.stem: read(file) for file in sorted([*PUBLIC.glob("*.json"), *PUBLIC.glob("recipes/*.json")])}


def todays(document: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration of the guide in today's spelling: flat, HfModel, and the names of today."""
    new = copy.deepcopy(document)
    old = new["input_model"]["config"]
    hf = old["hf_config"]
    loading = hf.get("model_loading_args") or hf.get("from_pretrained_args") or {}
    path = old.get("model_path", hf["model_name"])
    if isinstance(path, dict):
        path = {"type": path["type"], **path["config"]}
    new["input_model"] = {"type": "HfModel", "model_path": path, "task": hf["task"], "load_kwargs": loading}
    for config in new["data_configs"]:
        loaded = config["load_dataset_config"]["params"]
        if isinstance(loaded["data_files"], dict):
            loaded["data_files"] = {"type": loaded["data_files"]["type"], **loaded["data_files"]["config"]}
        config["load_dataset_config"] = loaded
        made = config["pre_process_data_config"]["params"]
        made.pop("dataset_type")
        made["strategy"], made["max_seq_len"] = made.pop("corpus_strategy"), made.pop("source_max_len")
        config["pre_process_data_config"] = made
    for name, system in new.get("systems", {}).items():
        new["systems"][name] = {"type": system["type"], **system["config"]}
    lora = new["passes"]["lora"]["config"]
    lora["r"], lora["alpha"] = lora.pop("lora_r"), lora.pop("lora_alpha")
    arguments = lora["training_args"]
    arguments["eval_strategy"] = arguments.pop("evaluation_strategy")
    for name, one in new["passes"].items():
        new["passes"][name] = {"type": one["type"].lower(), **one.get("config", {})}
    return {**{key: value for key, value in new.items() if key != "engine"}, **new["engine"]}


def at(document: Any, path: Key) -> Any:
    for step in path:
        document = document[step]
    return document


def put(document: Any, path: Key, value: Any) -> None:
    at(document, path[:-1])[path[-1]] = value


def mappings(value: Any, path: Key = ()) -> Iterator[Key]:
    """Yield the paths of all mappings in a document."""
    if isinstance(value, dict):
        yield path
        for name, part in value.items():
            yield from mappings(part, (*path, name))
    elif isinstance(value, list):
        for place, part in enumerate(value):
            yield from mappings(part, (*path, place))


def places(value: Any, path: Key = ()) -> Iterator[Key]:
    """Yield the paths of all values in a document but itself."""
    parts: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, part in parts:
        yield (*path, name)
        yield from places(part, (*path, name))


ODD: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2.5, 1e308, -0.0, 10**40, "", " ", "x", "true", "1e-4", "\u202e", "a" * 300, [], {}, [[]], [{}],
    {"a": {}}, [1, 2], ["x", 1], {"type": "Categorical", "support": [1, 2]}, {"type": "Categorical", "support": []},
    "SEARCHABLE_VALUES", "DEFAULT_VALUE", {"config": None}, {"config": {"config": {}}}, "CPUExecutionProvider", "hf_abcdefghijklmnopqrst",
    {"type": None}, [None], "train[:]", "train[::2]", "{a}{b}", "{", "{}", 8, 64, "int4", "LoRA", "local_system",
)  # fmt: skip
"""Values that no key expects, or some other key does."""


def mutate(document: dict[str, Any], rng: random.Random, others: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a configuration with a few random changes; `others`: configurations from which parts are taken."""
    new: dict[str, Any] = copy.deepcopy(document)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        paths = list(places(new))
        if not paths:
            break
        path = rng.choice(paths)
        kind = rng.randrange(8)
        if kind == 0:  # another value
            put(new, path, copy.deepcopy(rng.choice(ODD)))
        elif kind == 1:  # a key gone
            del at(new, path[:-1])[path[-1]]
        elif kind in (2, 3):  # a key renamed, or one more
            _misspell(at(new, path[:-1]), path[-1], rng, rename=kind == 2)
        elif kind == 4:  # a value from elsewhere in the same document
            put(new, path, copy.deepcopy(at(new, rng.choice(paths))))
        elif kind == 5:  # a part of another document
            source = rng.choice(others)
            from_there = rng.choice(list(places(source)))
            parent = at(new, path[:-1])
            if isinstance(parent, dict):
                parent[str(from_there[-1])] = copy.deepcopy(at(source, from_there))
            else:
                put(new, path, copy.deepcopy(at(source, from_there)))
        elif kind == 6:  # wrapped, or unwrapped
            value = at(new, path)
            inside = value[0] if isinstance(value, list) and value else value
            put(new, path, rng.choice(([value], {"config": value}, inside)))
        else:  # a number or truth nudged
            put(new, path, _nudged(at(new, path), rng))
    return new


def _misspell(parent: Any, key: Any, rng: random.Random, rename: bool) -> None:
    """Give a mapping a misspelt key: renamed from `key`, or beside it with an odd value."""
    if not isinstance(parent, dict):
        return
    name = str(key)
    cut = rng.randrange(len(name) + 1)
    misspelt = rng.choice((name[:cut] + rng.choice("xA_ .é0") + name[cut:], name[:cut] + name[cut + 1 :], name.upper()))
    parent[misspelt] = parent.pop(key) if rename else copy.deepcopy(rng.choice(ODD))


def _nudged(value: Any, rng: random.Random) -> Any:
    """Return another value of the same type; mappings, lists and null as they are."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return rng.choice((-value, value * 1000, value / 3, str(value)))
    if isinstance(value, str):
        return value[: rng.randrange(len(value) + 1)] + rng.choice(("", "x", "\n", "{q}"))
    return value
