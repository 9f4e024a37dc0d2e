"""One configuration of Olive's by Olive's newest release and by us: the same model, data and settings, seconds and scores.

`python -m benchmarks.olive_side_by_side PYTHON_OF_OLIVE --write` needs an environment of Olive's own (`pip install olive-ai
torch transformers peft datasets onnxruntime-genai`). It writes a configuration in today's spelling, gives it to Olive as
installed, then to Olive with the patches of `benchmarks/olive_in_its_place.py`, then to `autotune run`. Both built models are
scored by `autotune score` on the same items, which neither was trained on. Each side begins with an empty cache, apart from
the base model. What is done in `--work` is not done again.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from autotune.machine import hardware
from autotune.present.workshop import workshop
from autotune.results.folder import read_results
from autotune.stages.jobs import BaseJob
from benchmarks.olive_in_its_place import PATCHES
from benchmarks.pages import put

OUT = Path(__file__).parent / "measured" / "olive_side_by_side.md"
CACHE = "AUTOTUNE_CACHE"
MODEL = "smollm2-135m-instruct"
PHRASES = Path(__file__).parent / "phrase_tone"
STEPS, ITEMS = 32, 200
_VERSIONS = ("olive-ai", "torch", "transformers", "peft", "onnxruntime", "onnxruntime-genai")
_OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "ORT_DISABLE_TELEMETRY": "1",
    "OLIVE_DISABLE_TELEMETRY": "1",
}


def configuration(model: Path, work: Path, steps: int) -> dict[str, Any]:
    """Return the configuration, in the spelling of today's Olive."""
    return {
        "input_model": {"type": "HfModel", "model_path": str(model), "task": "text-generation"},
        "systems": {
            "here": {
                "type": "LocalSystem",
                "accelerators": [{"device": "cpu", "execution_providers": ["CPUExecutionProvider"]}],
            }
        },
        "data_configs": [
            {
                "name": "phrases", "type": "HuggingfaceContainer",
                "load_dataset_config": {
                    "data_name": "json", "data_files": str(PHRASES / "train.jsonl"), "split": "train",
                },
                "pre_process_data_config": {
                    "text_template": "### Text: {phrase}\n### The tone is:\n{tone}", "strategy": "line-by-line",
                    "max_seq_len": 64, "pad_to_max_len": False,
                },
            }
        ],
        "passes": {
            "lora": {
                "type": "LoRA", "r": 8, "alpha": 16, "lora_dropout": 0.0, "torch_dtype": "float32",
                "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
                "train_data_config": "phrases",
                "training_args": {
                    "seed": 0, "per_device_train_batch_size": 8, "gradient_accumulation_steps": 1, "max_steps": steps,
                    "gradient_checkpointing": False, "learning_rate": 1e-3, "lr_scheduler_type": "constant",
                    "save_strategy": "no", "logging_steps": 8,
                },
            },
            "merge": {"type": "MergeAdapterWeights"},
            "build": {
                "type": "ModelBuilder", "precision": "int4", "extra_options": {"block_size": 32, "accuracy_level": 4},
            },
        },
        "host": "here", "target": "here", "search_strategy": False, "evaluate_input_model": False, "log_severity_level": 1,
        "cache_dir": str(work / "cache"), "output_dir": str(work / "out"),
    }  # fmt: skip


def timed(words: Sequence[str], log: Path, more: Mapping[str, str]) -> dict[str, Any]:
    """Run a command with its output in a file; return how it ended and what it took."""
    load, began = psutil.getloadavg()[0], time.perf_counter()
    with log.open("w", encoding="utf-8") as file:
        done = subprocess.run(words, stdout=file, stderr=subprocess.STDOUT, env={**os.environ, **more}, check=False)
    return {"code": done.returncode, "wall_s": time.perf_counter() - began, "load": [load, psutil.getloadavg()[0]]}


def kept(file: Path, make: Any) -> dict[str, Any]:
    """Return what a step has left, or do it."""
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(make(), indent=1), encoding="utf-8")
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def by_olive(python: str, model: Path, work: Path, steps: int, patches: Sequence[str]) -> dict[str, Any]:
    """Let Olive run the configuration; return what it took, each pass with its seconds, and its error where it failed."""
    work.mkdir(parents=True, exist_ok=True)
    config, log = work / "olive.json", work / "log.txt"
    config.write_text(json.dumps(configuration(model, work, steps), indent=1), encoding="utf-8")
    script = str(Path(__file__).parent / "olive_in_its_place.py")
    about = timed([python, script, str(config), "--patches", ",".join(patches)], log, _OFFLINE)
    text = log.read_text(encoding="utf-8", errors="replace")
    passes = re.findall(r"Pass (\w+):\w+ finished in ([0-9.]+) seconds", text)
    errors = re.findall(r"^(?:\w+\.)*(\w*(?:Error|Exception)): (.+)$", text, re.MULTILINE)
    built = next((file.parent for file in sorted(work.glob("out/**/genai_config.json"))), None)
    return about | {
        "passes": {name: float(seconds) for name, seconds in passes},
        "error": ": ".join(errors[-1]) if errors else "",
        "built": str(built) if built is not None else None,
    }  # fmt: skip


def by_us(config: Path, work: Path, cache: Path) -> dict[str, Any]:
    """Let `autotune run` run the same file; return what it took, each stage with its seconds."""
    sets = [f"data.validation={PHRASES / 'validation.jsonl'}", f"data.max_items={{validation: {ITEMS}}}"]
    words = [sys.executable, "-m", "autotune", "run", str(config), "--out", str(work / "results")]
    words += [part for one in sets for part in ("--set", one)]
    about = timed(words, work / "log.txt", {CACHE: str(cache)})
    if about["code"]:
        raise SystemExit((work / "log.txt").read_text(encoding="utf-8"))
    (row,) = [row for row in read_results(work / "results") if row.trial]
    stages = ("train", "merge", "build", "check", "score", "time")
    return about | {"passes": {stage: row.cost_s(stage) for stage in stages}, "built": str(work / "results/best/onnx")}


def scored(best: Path, built: Path, work: Path, cache: Path) -> dict[str, Any]:
    """Score a built model with the task of `best`, on items that nobody was trained on."""
    place = work / "model"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    shutil.copyfile(best / "candidate.json", place / "candidate.json")
    shutil.copytree(built, place / "onnx")
    words = [sys.executable, "-m", "autotune", "score", str(place), "--data", str(PHRASES / "test.jsonl"), "--no-base",
             "--max-items", str(ITEMS), "--wrong", str(work / "wrong.csv"), "--json"]  # fmt: skip
    done = subprocess.run(
        words,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env={**os.environ, CACHE: str(cache)},
        check=True,
    )
    size = sum(file.stat().st_size for file in built.iterdir() if file.suffix in (".onnx", ".data")) / 1e6
    found: dict[str, Any] = json.loads(done.stdout)
    shutil.rmtree(place)
    return found | {"size_mb": size}


def versions(python: str) -> dict[str, str]:
    """Return the versions of the packages in an environment."""
    code = "import json, sys, importlib.metadata as m; print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"
    wanted = _VERSIONS if python != sys.executable else _VERSIONS[1:]
    done = subprocess.run([python, "-c", code, *wanted], capture_output=True, text=True, encoding="utf-8", check=True)
    found: dict[str, str] = json.loads(done.stdout)
    return found


def _seconds(about: Mapping[str, Any], name: str) -> str:
    value = about["passes"].get(name)
    return "" if value is None else f"{value:.1f}"


def page(theirs: Mapping[str, str], ours: Mapping[str, str], steps: Mapping[str, Any]) -> str:
    """Return the whole page."""
    machine, first, olive, us = hardware(), steps["as installed"], steps["olive"], steps["us"]
    lines = [
        "# One configuration, by Olive and by us", "",
        f"Made by `python -m benchmarks.olive_side_by_side PYTHON_OF_OLIVE --write` on {machine['processor']}, "
        f"{machine['cores']} cores. Olive {theirs['olive-ai']} has an environment of its own with torch {theirs['torch']}, "
        f"transformers {theirs['transformers']}, peft {theirs['peft']} and onnxruntime-genai {theirs['onnxruntime-genai']}; ours has "
        f"{ours['torch']}, {ours['transformers']}, {ours['peft']} and {ours['onnxruntime-genai']}. The file trains LoRA (r 8, all linear "
        f"layers, learning rate 0.001, {STEPS} steps of 8 texts) on the phrases of `benchmarks/phrase_tone`, merges, and builds at int4. "
        f"`autotune run` takes the same file. Both models are scored by `autotune score` on the same {ITEMS} phrases.", "",
        "## Olive as installed", "",
    ]  # fmt: skip
    if first["code"] == 0 and first["built"]:
        lines += ["It runs to the end.", ""]
    else:
        lines += [
            f"It ends with `{first['error'] or 'no model'}` (passes that finished: {', '.join(first['passes']) or 'none'}).",
            "",
        ]
    lines += ["## What had to be patched", ""]
    lines += [f"- {why[0].upper()}{why[1:]}." for _, why in PATCHES.values()] if first["error"] else ["Nothing."]
    if not olive["built"]:
        return "\n".join([*lines, "", f"With that it ends with `{olive['error']}`, and builds no model.", ""])
    lines += [
        "", "## Side by side", "", "| | Olive, patched | autotune |", "|---|--:|--:|",
        f"| training, s | {_seconds(olive, 'lora')} | {_seconds(us, 'train')} |",
        f"| merging, s | {_seconds(olive, 'merge')} | {_seconds(us, 'merge')} |",
        f"| building, s | {_seconds(olive, 'build')} | {_seconds(us, 'build')} |",
        f"| the build compared with PyTorch, s | not done | {_seconds(us, 'check')} |",
        f"| scored on {ITEMS} phrases, s | not done | {_seconds(us, 'score')} |",
        f"| timed in fresh processes, s | not done | {_seconds(us, 'time')} |",
        f"| the whole command, s | {olive['wall_s']:.0f} | {us['wall_s']:.0f} |",
        f"| load average before, after | {olive['load'][0]:.1f}, {olive['load'][1]:.1f} | {us['load'][0]:.1f}, {us['load'][1]:.1f} |",
        f"| MB of the built model | {steps['score olive']['size_mb']:.1f} | {steps['score us']['size_mb']:.1f} |",
        f"| accuracy on test [95 %] | {_score(steps['score olive'])} | {_score(steps['score us'])} |",
        "",
        "The two draw other batches and other first weights from the same seed, so that equal scores are not expected. Our command "
        "also measures the untouched model and times the finalists in turns; Olive's does neither.", "",
    ]  # fmt: skip
    return "\n".join(lines)


def _score(found: Mapping[str, Any]) -> str:
    return f"{found['value']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"


def main() -> None:
    """Do the steps, and print the page or write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("python", help="the interpreter of Olive's environment")
    parser.add_argument("--work", type=Path, default=Path("results/olive-side-by-side"))
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    work, python = arguments.work.resolve(), arguments.python
    cache = work / "autotune-cache"
    os.environ[CACHE] = str(cache)
    with workshop("olive") as shop:
        model = shop.stages(BaseJob(name=MODEL)).path
    steps = {
        "as installed": kept(work / "first.json", lambda: by_olive(python, model, work / "first", 1, ())),
        "olive": kept(work / "olive.json", lambda: by_olive(python, model, work / "olive", STEPS, list(PATCHES))),
    }
    config = work / "olive" / "olive.json"
    steps["us"] = kept(work / "us.json", lambda: by_us(config, work, cache))
    best = work / "results" / "best"
    for name in ("olive", "us"):
        built = steps[name]["built"]
        if built is not None:
            steps[f"score {name}"] = kept(
                work / f"score-{name}.json",
                lambda built=built, name=name: scored(best, Path(built), work / f"score-{name}", cache),
            )
    text = page(versions(python), versions(sys.executable), steps)
    put(text, OUT, arguments.write)


if __name__ == "__main__":
    main()
