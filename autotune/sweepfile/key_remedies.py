"""Remedies for common mistakes in sweep files: keys in the wrong section, and keys and forms of other tools. None of them
is accepted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from autotune.data.schema import SPLITS, DataSpec
from autotune.errors import did_you_mean, nearest, shown
from autotune.metrics import METRICS
from autotune.space.parameter_tables import LORA, RECIPE
from autotune.sweepfile.schema import Budget, Document, Target, Train
from autotune.sweepfile.submit_remedies import SUBMIT

_HOMES: tuple[tuple[str, Sequence[str]], ...] = (
    ("", tuple(Document.model_fields)),
    ("data", tuple(DataSpec.model_fields)),
    ("train", tuple(Train.model_fields)),
    ("target", tuple(Target.model_fields)),
    ("budget", tuple(Budget.model_fields)),
    ("space.lora", tuple(LORA)),
    ("each recipe of space.build", tuple(RECIPE)),
    ("space", ("lora", "build", "session")),
)
_COLUMN = 'write {key}: with the column in braces, such as {key}: "{{{value}}}"'
_SEVERAL = "write data.messages: a list of messages, one of the role system"
_FOUND = "remove it: the delimiter is found by the header"
_OTHER_NAMES: dict[str, Mapping[str, str]] = {
    "data": {
        **dict.fromkeys(("delimiter", "sep", "separator", "quotechar"), _FOUND),
        **dict.fromkeys(("format", "type", "file_type"), "remove it: the ending of the file says what it holds"),
        **dict.fromkeys(("shuffle", "shuffle_seed"), "remove it: rows go to splits by their content, not by their order"),
        **dict.fromkeys(("system", "system_prompt", "system_message"), _SEVERAL),
        **dict.fromkeys(("template", "chat_template"), "write prompt and completion, or data.messages for the model's own chat template"),
        **dict.fromkeys(("split", "dataset", "name", "path"), "write train: FILE, or train: owner/name:split"),
        "config": "write train: { dataset: owner/name, config: NAME, split: train }",
        **dict.fromkeys(("filter", "filters", "col_filters", "row_filter", "query", "select", "only"), "write where: {COLUMN: VALUE}"),
    },
    "train": {
        **dict.fromkeys(("bf16", "fp16", "precision", "mixed_precision"), "write dtype in space.lora"),
        "gradient_accumulation_steps": "write accumulation in space.lora",
        **dict.fromkeys(("lr", "rate"), "write learning_rate in space.lora"),
        **dict.fromkeys(("num_train_epochs", "num_epochs"), "write epochs in space.lora"),
        "max_steps": "write steps in space.lora",
    },
    **SUBMIT,
    "": {
        **dict.fromkeys(("azureml", "slurm", "skypilot"), "write it in submit"),
        **dict.fromkeys(
            ("include", "extends", "defaults", "base", "inherit"),
            "remove it: a sweep file is whole; --set KEY=VALUE changes single keys",
        ),
        **dict.fromkeys(("output_dir", "out", "output", "results"), "remove it: the folder is named by --out DIR"),
    },
}  # fmt: skip
_HOURS = {"minutes": 1 / 60, "seconds": 1 / 3600, "days": 24, "max_hours": 1, "time_limit_s": 1 / 3600}


def of_key(path: Sequence[str | int], value: Any, fields: Sequence[str]) -> str:
    """Return the remedy for an unknown key at the end of a path; `fields`: the keys that are known there."""
    name = str(path[-1])
    here = ".".join(str(step) for step in path[:-1] if isinstance(step, str))
    plain = name.strip().lower().replace("-", "_")
    if value is None and re.fullmatch(r"[0-9]{3}", name):  # what is left of { trials: 1,000 }
        return "write the number before it without a comma, which ends it"
    if here == "" and name[:1] in ("x", ".", "_") and not name[1:2].isalpha():
        return "only known keys stand here: write an anchor (&) where its value is used first"
    if here == "budget" and plain in _HOURS and isinstance(value, int | float):
        return f"write hours: {value * _HOURS[plain]:.4g}"
    if (known := _OTHER_NAMES.get(here, {}).get(plain)) is not None:
        return known
    if here == "data" and (column := re.fullmatch(r"(\w+?)_?(?:column|field|col|key)s?", plain)):
        answers = column[1] in ("label", "target", "completion", "answer", "output", "response", "class", "y")
        text = value if isinstance(value, str) and re.fullmatch(r"\w+", value) else column[1]
        return _COLUMN.format(key="completion" if answers else "prompt", value=text)
    homes = [home for home, names in _HOMES if plain in names and home != here]
    if homes and plain not in fields and not nearest(name, fields):
        return f"write it in {homes[0]}" if homes[0] else "write it at the top of the file, in no section"
    return did_you_mean(name, list(fields))


def of_form(kind: str, path: Sequence[str | int], value: Any) -> str:
    """Return the remedy for a value in another form; empty where it is unclear what was meant."""
    key = ".".join(map(str, path))
    mapping = kind in ("model_type", "dict_type")
    if path == ["target"] and isinstance(value, str):
        return f"write target: {{ provider: {value} }}"
    if key == "target.provider" and isinstance(value, list) and all(isinstance(one, str) for one in value):
        return f"write targets: {{ {', '.join(f'{one}: {{ provider: {one} }}' for one in value[:4])} }} for several"
    if path == ["budget"] and mapping and isinstance(value, int) and not isinstance(value, bool):
        return f"write budget: {{ trials: {value} }}"
    if path == ["budget"] and isinstance(value, str) and (hours := re.fullmatch(r"([0-9.]+)\s*h(?:ours?)?", value)):
        return f"write budget: {{ hours: {hours[1]} }}"
    if path == ["objectives"] and mapping:
        named = [value] if isinstance(value, str) else value if isinstance(value, list) else []
        if named and all(isinstance(one, str) and one in METRICS for one in named):
            return f"write objectives: {{ {', '.join(f'{one}: {METRICS[one].direction}' for one in named)} }}"
    if path == ["limits"] and isinstance(value, Mapping) and value:
        return f"write limits: [{', '.join(json.dumps(_limit(str(name), bound)) for name, bound in value.items())}]"
    if path[:1] == ["limits"] and kind == "string_type" and path[-1] != 0 and isinstance(value, int):
        return "write the whole limit in quotes, with a point in its number: a comma begins another limit"
    if key == "data.max_items" and isinstance(value, int):
        return f"write max_items: {{ validation: {value} }}"
    if kind in ("list_type", "tuple_type") and isinstance(value, str) and len(value) < 60:
        # Single quotes would keep a backslash and a letter, where a line end is meant.
        quoted = shown(value) if value.isprintable() and "\\" not in value else json.dumps(value, ensure_ascii=False)
        return f"write {key}: [{quoted}]"
    return ""


def _limit(name: str, bound: Any) -> str:
    if isinstance(bound, str) and re.match(r"\s*[<>]=", bound):
        return f"{name} {bound.strip()}"
    sign = ">=" if name in METRICS and METRICS[name].direction == "maximize" else "<="
    return f"{name} {sign} {bound}"


def file_in_mapping(split: str, value: Any) -> str:
    """Return the remedy for a mapping as a source that names no data set; empty where it names one."""
    if split not in SPLITS or not isinstance(value, Mapping) or "dataset" in value:
        return ""
    file = next(
        (value[name] for name in ("path", "file", "filename", "data_files", "name", "source") if name in value), None
    )
    return f"write {split}: {file}" if isinstance(file, str) and len(file) < 200 else f"write {split}: FILE"
