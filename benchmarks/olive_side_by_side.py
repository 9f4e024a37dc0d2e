"""One configuration of Olive's by Olive's newest release and by us: the same model, data and settings, seconds and scores.

`python -m benchmarks.olive_side_by_side PYTHON_OF_OLIVE --write` needs an environment of Olive's own (`pip install olive-ai
torch transformers peft datasets onnxruntime-genai`). It writes a configuration in today's spelling, gives it to Olive as
installed, then to Olive with the patches of `benchmarks/olive_in_its_place.py`, then to `autotune run`; and again with other
seeds. All built models are scored by `autotune score` on the same items, which neither was trained on. Each side begins with
an empty cache, apart from the base model; PyTorch has one thread, so that other work on the machine weighs little. What is
done in `--work` is not done again.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import psutil

from autotune.analysis.statistics import wilson
from autotune.present.workshop import workshop
from autotune.results.folder import read_results
from autotune.stages.preparation_jobs import BaseJob
from benchmarks.olive_in_its_place import PATCHES
from benchmarks.olive_page import BLOCK, BLOCKS, ITEMS, JUDGED, LAST, ONE_ROW, STEPS, page
from benchmarks.pages import put

OUT = Path(__file__).parent / "measured" / "olive_side_by_side.md"
CACHE = "AUTOTUNE_CACHE"
MODEL = "smollm2-135m-instruct"
PHRASES = Path(__file__).parent / "phrase_tone"
PROMPT, ANSWER = "### Text: {phrase}\n### The tone is:\n", "{tone}"
SEEDS = 3
"""Trainings of each side."""
QUICK = "target.timing={processes: 2, most: 2, repeats: 0}"
"""Of our runs that nobody reads a latency of."""
_VERSIONS = ("olive-ai", "torch", "transformers", "peft", "onnxruntime", "onnxruntime-genai")
_OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "ORT_DISABLE_TELEMETRY": "1",
    "OLIVE_DISABLE_TELEMETRY": "1",
}
_ONE_THREAD = {"OMP_NUM_THREADS": "1"}


def configuration(model: Path, work: Path, steps: int, seed: int, joined: bool = False) -> dict[str, Any]:
    """Return the configuration, in the spelling of today's Olive; `joined`: its rows are joined into blocks."""
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
                    "text_template": PROMPT + ANSWER, "strategy": "join" if joined else "line-by-line",
                    "max_seq_len": BLOCK if joined else 64, "pad_to_max_len": False,
                },
            }
        ],
        "passes": {
            "lora": {
                "type": "LoRA", "r": 8, "alpha": 16, "lora_dropout": 0.0, "torch_dtype": "float32",
                "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
                "train_data_config": "phrases",
                "training_args": {
                    "seed": seed, "per_device_train_batch_size": 1 if joined else 8, "gradient_accumulation_steps": 1, "max_steps": steps,
                    "gradient_checkpointing": False, "learning_rate": 1e-3, "lr_scheduler_type": "constant",
                    "save_strategy": "no", "logging_steps": LAST,
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


def by_olive(
    python: str, model: Path, work: Path, steps: int, patches: Sequence[str], seed: int = 0, joined: bool = False
) -> dict[str, Any]:
    """Let Olive run the configuration; return what it took, each pass with its seconds, and its error where it failed."""
    work.mkdir(parents=True, exist_ok=True)
    config, log = work / "olive.json", work / "log.txt"
    config.write_text(json.dumps(configuration(model, work, steps, seed, joined), indent=1), encoding="utf-8")
    script = str(Path(__file__).parent / "olive_in_its_place.py")
    about = timed([python, script, str(config), "--patches", ",".join(patches)], log, _OFFLINE | _ONE_THREAD)
    text = log.read_text(encoding="utf-8", errors="replace")
    passes = re.findall(r"Pass (\w+):\w+ finished in ([0-9.]+) seconds", text)
    errors = re.findall(r"^(?:\w+\.)*(\w*(?:Error|Exception)): (.+)$", text, re.MULTILINE)
    losses = [float(loss) for loss in re.findall(r"'loss': '?([0-9.]+)", text)]
    built = next((file.parent for file in sorted(work.glob("out/**/genai_config.json"))), None)
    return about | {
        "passes": {name: float(seconds) for name, seconds in passes},
        "error": ": ".join(errors[-1]) if errors else "",
        "loss": losses[-1] if losses else None,
        "built": str(built) if built is not None else None,
    }  # fmt: skip


def by_us(config: Path, work: Path, cache: Path, more: Sequence[str] = ()) -> dict[str, Any]:
    """Let `autotune run` run the same file; return what it took, each stage with its seconds."""
    sets = [f"data.validation={PHRASES / 'validation.jsonl'}", f"data.max_items={{validation: {JUDGED}}}"]
    words = [sys.executable, "-m", "autotune", "run", str(config), "--out", str(work / "results")]
    words += [part for one in (*sets, *more) for part in ("--set", one)]
    work.mkdir(parents=True, exist_ok=True)
    about = timed(words, work / "log.txt", {CACHE: str(cache)} | _ONE_THREAD)
    if about["code"]:
        raise SystemExit((work / "log.txt").read_text(encoding="utf-8"))
    (row,) = [row for row in read_results(work / "results") if row.trial]
    stages = ("train", "merge", "build", "check", "score", "time")
    with (work / "results" / "curves.csv").open(encoding="utf-8", newline="") as file:
        losses = [float(line["train_loss"]) for line in csv.DictReader(file) if line["train_loss"]]
    return about | {
        "passes": {stage: row.cost_s(stage) for stage in stages},
        "loss": sum(losses[-LAST:]) / LAST,
        "batch": row["lora_batch_size"],
        "built": str(work / "results/best/onnx"),
    }


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


def unbuilt(base: Path, adapter: Path) -> dict[str, Any]:
    """Score an adapter on its base in PyTorch, on the items that built models are scored on."""
    from autotune.stages.backends import TorchBackend
    from autotune.stages.score import choose_labels, label_tokens
    from autotune.stages.text import encode, load_tokenizer

    lines = (PHRASES / "test.jsonl").read_text(encoding="utf-8").splitlines()[:ITEMS]
    rows = [json.loads(line) for line in lines]
    labels = tuple(sorted({row["tone"] for row in rows}))
    tokenizer = load_tokenizer(base)
    given = [
        {"id": str(n), "prompt": PROMPT.format(**row), "completion": ANSWER.format(**row)} for n, row in enumerate(rows)
    ]
    items, _ = encode(tokenizer, given, 64)
    chosen, _, _ = choose_labels(TorchBackend(base, adapter, "cpu", 1), items, label_tokens(tokenizer, labels))
    right = sum(labels[index] == row["tone"] for index, row in zip(chosen, rows, strict=True))
    interval = wilson(right, len(rows))
    return {"value": right / len(rows), "low": interval.low, "high": interval.high}


def adapter_of(side: Path) -> Path:
    """Return where a side's run has left its adapter: Olive in its cache, ours in `best/`."""
    ours = side / "results" / "best" / "adapter"
    return ours if ours.is_dir() else next(iter(sorted(side.glob("cache/**/adapter_model.safetensors")))).parent


def versions(python: str) -> dict[str, str]:
    """Return the versions of the packages in an environment."""
    code = "import json, sys, importlib.metadata as m; print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"
    wanted = _VERSIONS if python != sys.executable else _VERSIONS[1:]
    done = subprocess.run([python, "-c", code, *wanted], capture_output=True, text=True, encoding="utf-8", check=True)
    found: dict[str, str] = json.loads(done.stdout)
    return found


def joined_sides(python: str, model: Path, place: Path, cache: Path) -> dict[str, dict[str, Any]]:
    """Do the configuration whose rows are joined, and return what each side made of it, with its score on test."""
    olive, config = place / "olive", place / "olive" / "olive.json"
    made = {
        "olive": kept(place / "olive.json", lambda: by_olive(python, model, olive, BLOCKS, list(PATCHES), joined=True)),
        "us": kept(place / "us.json", lambda: by_us(config, place / "us", cache, [QUICK])),
        "one": kept(place / "one.json", lambda: by_us(config, place / "one", cache, [QUICK, ONE_ROW])),
    }
    best = place / "us" / "results" / "best"
    for name, about in made.items():
        about["score"] = kept(
            place / f"score-{name}.json",
            lambda about=about, name=name: scored(best, Path(about["built"]), place / f"score-{name}", cache),
        )
        about["unbuilt"] = kept(
            place / f"unbuilt-{name}.json", lambda name=name: unbuilt(model, adapter_of(place / name))
        )
    return made


def of_seed(python: str, model: Path, place: Path, cache: Path, seed: int) -> dict[str, Any]:
    """Train, build and score on both sides with one seed. Returns what was found, by step; a side without a build has no score."""
    olive, config, best = place / "olive", place / "olive" / "olive.json", place / "us" / "results" / "best"
    found: dict[str, Any] = {
        "olive": kept(place / "olive.json", lambda: by_olive(python, model, olive, STEPS, list(PATCHES), seed)),
        "us": kept(place / "us.json", lambda: by_us(config, place / "us", cache, [QUICK] if seed else [])),
    }
    for name in ("olive", "us"):
        if (built := found[name]["built"]) is None:
            continue
        found[f"score {name}"] = kept(
            place / f"score-{name}.json",
            lambda name=name, built=built: scored(best, Path(built), place / f"score-{name}", cache),
        )
        found[f"unbuilt {name}"] = kept(
            place / f"unbuilt-{name}.json", lambda name=name: unbuilt(model, adapter_of(place / name))
        )
    return found


def main() -> None:
    """Do the steps, and print the page or write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("python", help="the interpreter of Olive's environment")
    parser.add_argument("--work", type=Path, default=Path("results/olive-side-by-side"))
    parser.add_argument("--seeds", type=int, default=SEEDS, help="trainings of each side")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    work, python = arguments.work.resolve(), arguments.python
    cache = work / "autotune-cache"
    os.environ[CACHE] = str(cache)
    with workshop("olive") as shop:
        model = shop.stages(BaseJob(name=MODEL)).path
    steps: dict[str, Any] = {
        "as installed": kept(work / "first.json", lambda: by_olive(python, model, work / "first", 1, ())),
        **{name: [] for name in ("olive", "us", "score olive", "score us", "unbuilt olive", "unbuilt us")},
    }
    for seed in range(arguments.seeds):
        for name, found in of_seed(python, model, work / f"seed-{seed}", cache, seed).items():
            steps[name].append(found)
    built = [Path(about["built"]) for name in ("olive", "us") for about in steps[name] if about["built"]]
    steps["graphs"] = len({sha256((folder / "model.onnx").read_bytes()).hexdigest() for folder in built})
    steps["joined"] = joined_sides(python, model, work / "joined", cache)
    text = page(versions(python), versions(sys.executable), steps)
    put(text, OUT, arguments.write)


if __name__ == "__main__":
    main()
