"""Writes the files beside an exported model: `run.py`, `reproduce.yaml`, and the settings that Foundry Local needs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from pprint import pformat
from typing import Any

from autotune.providers import PROVIDERS
from autotune.results.loading import opening_lines
from autotune.shipping.facts import Facts
from autotune.shipping.task import Task, filled
from autotune.sweepfile.syntax import to_yaml

CONTENT = "{Content}"
"""The placeholder of Foundry Local's templates for the user's message."""
_NEW_TOKENS = 64
"""The most tokens that `run.py` writes, if the task sets no limit."""

_HEAD = '''"""Ask the model: python run.py {usage}"""

import json
import re
import pathlib
import sys

import numpy as np
import onnxruntime_genai as og
{registering}
COLUMNS = {columns}
TURNS = {turns}
{constants}
cells = dict(zip(COLUMNS, sys.argv[1:]))
if hasattr(sys.stdout, "reconfigure"):
    sys.stdout.reconfigure(encoding="utf-8")  # on Windows a pipe takes some languages only, else
if "--help" in sys.argv or not cells:
    sys.exit(__doc__)


def cell(found):
    name, _, before = (found[1] or "").partition("?")
    return found[0][0] if found[1] is None else before + cells[name.strip()] if cells.get(name.strip()) else ""


turns = [[role, re.sub(r"\\{{\\{{|\\}}\\}}|\\{{([^{{}}]*)\\}}", cell, text)] for role, text in TURNS]
{opening}
model = og.Model(config)
tokenizer = og.Tokenizer(model)
prompt = turns[0][1]
if turns[0][0]:
    messages = json.dumps([{{"role": role, "content": text}} for role, text in turns if text.strip()])
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True)
'''

_GENERATE = """
tokens = tokenizer.encode(prompt)
parameters = og.GeneratorParams(model)
parameters.set_search_options(max_length=len(tokens) + NEW_TOKENS, do_sample=False)
generator = og.Generator(model, parameters)
generator.append_tokens(tokens)
text = ""
stream = tokenizer.create_stream()
while not generator.is_done() and not any(stop in text for stop in STOP):
    generator.generate_next_token()
    text += stream.decode(generator.get_next_tokens()[0])
print(text[: min([text.find(stop) for stop in STOP if stop in text], default=len(text))].strip())
"""

_CHOOSE = """

def likelihood(end):
    begin = list(tokenizer.encode(prompt))
    parameters = og.GeneratorParams(model)
    parameters.set_search_options(max_length=len(begin) + len(end) + 1)
    generator = og.Generator(model, parameters)
    generator.append_tokens(np.array([*begin, *end], dtype=np.int32))
    logits = generator.get_output("logits")[0, len(begin) - 1 : -1].astype(np.float64)
    logits -= logits.max(axis=-1, keepdims=True)
    return sum(row[token] - np.log(np.exp(row).sum()) for row, token in zip(logits, end))


labels = [[int(token) for token in tokenizer.encode(label)] for label in LABELS]
if any(a != b and b[: len(a)] == a for a in labels for b in labels):  # the end of the text tells them apart
    settings = pathlib.Path(__file__).parent / "onnx" / "tokenizer_config.json"
    named = json.loads(settings.read_text(encoding="utf-8"))["eos_token"]
    labels = [[*label, tokenizer.to_token_id(named["content"] if isinstance(named, dict) else named)] for label in labels]
print(LABELS[max(range(len(LABELS)), key=lambda place: likelihood(labels[place]))].strip())
"""

_ADAPTER = '''"""Ask the model: python run.py PROMPT  (BASE may name another copy of the base model)"""

import os
import sys
from pathlib import Path

from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

BASE = os.environ.get("BASE", {base!r})
if "--help" in sys.argv or len(sys.argv) < 2:
    sys.exit(__doc__)
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(BASE), Path(__file__).resolve().parent / "adapter")
tokenizer = AutoTokenizer.from_pretrained(BASE)
if hasattr(sys.stdout, "reconfigure"):
    sys.stdout.reconfigure(encoding="utf-8")  # on Windows a pipe takes some languages only, else
tokens = tokenizer(sys.argv[1], return_tensors="pt")
written = model.generate(**tokens, max_new_tokens={new}, do_sample=False)
print(tokenizer.decode(written[0, tokens["input_ids"].shape[1] :], skip_special_tokens=True))
'''


def run_script(facts: Facts, task: Task) -> str:
    """Return `run.py`, which needs onnxruntime-genai alone; for an adapter without a build, transformers and peft."""
    recipe, new = facts.candidate.recipe, task.max_new_tokens or _NEW_TOKENS
    if recipe is None:
        return _ADAPTER.format(base=facts.base_model if facts.on_hub else str(facts.sweep["model"]), new=new)
    columns = task.columns()
    choose = bool(task.labels) and not recipe.prune_lm_head
    if choose:
        constants = f"LABELS = {pformat(list(task.labels), width=110)}\n"
    else:
        constants = f"NEW_TOKENS = {new}\nSTOP = {list(task.stop)!r}\n"
    usage = " ".join(f"'{name.upper()}'" for name in columns).replace('"', "").replace("\\", "")
    registering, opening = (
        opening_lines(PROVIDERS[task.provider]) if task.provider in PROVIDERS else opening_lines(PROVIDERS["cpu"])
    )
    text = _HEAD.format(
        registering="\n".join([*registering, ""] if registering else []),
        opening="\n".join(opening),
        usage=usage,
        columns=columns,
        turns=pformat([list(turn) for turn in task.turns()], width=110),
        constants=constants,
    )
    if not choose:
        text = text.replace("import numpy as np\n", "")
    return text + (_CHOOSE if choose else _GENERATE)


def reproduction(facts: Facts) -> str:
    """Return `reproduce.yaml`: a sweep that makes and measures this candidate alone."""
    sweep = dict(facts.sweep)
    candidate = facts.candidate
    space: dict[str, Any] = {}
    if candidate.lora is not None:
        lora = candidate.lora.model_dump(mode="json", exclude_none=True)
        space["lora"] = lora
    if candidate.recipe is not None:
        space["build"] = [candidate.recipe.model_dump(exclude_none=True)]
    if candidate.session is not None:
        session = candidate.session.model_dump(exclude_none=True)
        if candidate.session.provider_options:
            session["provider_options"] = candidate.session.options
        space["session"] = [session]
    sweep |= {
        "name": f"{sweep.get('name') or 'sweep'}-{candidate.id[:8]}"[:64], "space": space, "limits": [],
        "strategy": "grid", "budget": {"trials": 1},
    }  # fmt: skip
    packages = facts.machine.get("packages") or {}
    lines = [
        f"# Candidate {candidate.id} of the sweep {facts.sweep.get('name')}, alone: autotune run reproduce.yaml",
        "# Paths are as that sweep named them.",
        *(
            f"# Digest of its {name}: {facts.inputs[name]}"
            for name in ("model", "train", "validation")
            if name in facts.inputs
        ),
        *([f"# Packages: {', '.join(f'{name} {version}' for name, version in packages.items())}"] if packages else []),
    ]
    return "\n".join(lines) + "\n" + to_yaml(sweep)


def foundry(name: str, prompt: str) -> str:
    """Return `inference_model.json`, which describes a model to Foundry Local. `prompt`: its template, see `conversation`."""
    return (
        json.dumps(
            {"Name": name, "PromptTemplate": {"assistant": CONTENT, "prompt": prompt}}, indent=1, ensure_ascii=False
        )
        + "\n"
    )


def conversation(task: Task) -> list[dict[str, str]] | str:
    """Return the prompt for a user's message `{Content}`: messages for the chat template, or the whole prompt.

    If prompts have one column, the message takes the place of its cell. If they have several, it is the whole prompt.
    """
    columns = task.columns()
    turns = task.turns()
    if len(columns) != 1:
        return CONTENT if not turns[0][0] else [{"role": "user", "content": CONTENT}]
    texts = [(role, filled(text, CONTENT)) for role, text in turns]
    if not turns[0][0]:
        return texts[0][1]
    return [{"role": role, "content": text} for role, text in texts]


def parts_of(folder: Path, about: Mapping[str, str]) -> dict[str, str]:
    """Return the entries of `about` whose file or folder exists in a folder."""
    return {name: what for name, what in about.items() if (folder / name.rstrip("/")).exists()}
