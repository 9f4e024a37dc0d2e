"""`run.py` beside an exported model chooses the label that the score chose, also where labels begin one another."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import Do, tone_items
from odd_models import copied, with_json

from autotune.candidate import Candidate, Recipe
from autotune.results.rows import Trial
from autotune.shipping.facts import Facts
from autotune.shipping.files import run_script
from autotune.shipping.task import Task
from autotune.stages.backends import OnnxBackend
from autotune.stages.jobs import BuildJob
from autotune.stages.score import choose_labels, label_tokens
from autotune.stages.text import encode, load_tokenizer

FP32 = Recipe(precision="fp32")


@pytest.mark.parametrize("labels", [(" joy", " joy today", " fear"), (" joy", " joyful", " f"), (" joy", " fear")])
def test_labels_are_told_apart_as_in_the_score(
    labels: tuple[str, ...], do: Do, tiny_llama: Path, tmp_path: Path
) -> None:
    """Generation ends at several tokens, of which the first is not the tokenizer's own."""
    model = with_json(copied(tiny_llama, tmp_path / "model"), "generation_config.json", eos_token_id=[2, 0])
    built, _ = do(BuildJob(source="s", recipe=FP32, provider="cpu", source_dir=model))
    assert json.loads((built / "genai_config.json").read_text(encoding="utf-8"))["model"]["eos_token_id"] == [2, 0]

    tokenizer = load_tokenizer(built)
    prompts = [f"{item['prompt']} {n}" for n, item in enumerate(tone_items(10))]
    items, _ = encode(
        tokenizer, [{"id": str(n), "prompt": p, "completion": labels[0]} for n, p in enumerate(prompts)], 128
    )
    chosen, margins, _ = choose_labels(OnnxBackend(built, "cpu", 1), items, label_tokens(tokenizer, labels))
    clear = [n for n, margin in enumerate(margins) if margin > 1e-3]

    folder = tmp_path / "export"
    folder.mkdir()
    shutil.copytree(built, folder / "onnx")
    given: dict[str, Any] = {
        "folder": tmp_path, "sweep": {"name": "s", "model": "m"}, "candidate": Candidate(recipe=FP32), "row": Trial({}),
        "base": None, "final": None, "final_base": None, "machine": {}, "inputs": {}, "base_model": "o/m", "on_hub": False,
        "licence": None,
    }  # fmt: skip
    task = Task(metric="choice", prompt="{text}", completion="{label}", labels=labels, max_length=128)
    (folder / "run.py").write_text(run_script(Facts(**given), task), encoding="utf-8")
    asked = "import json, runpy, sys\nfor text in json.loads(sys.stdin.read()):\n    sys.argv = ['run.py', text]\n    runpy.run_path('run.py')\n"
    said = subprocess.run(
        [sys.executable, "-c", asked], input=json.dumps(prompts), capture_output=True, text=True, encoding="utf-8", check=True,
        cwd=folder,
    )  # fmt: skip
    answers = said.stdout.splitlines()
    assert [answers[n] for n in clear] == [labels[chosen[n]].strip() for n in clear]
    assert len(clear) > 5
