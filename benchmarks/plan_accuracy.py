"""Does a sweep take what `plan` says? Ten small sweeps of different kinds, planned and then run.

python -m benchmarks.plan_accuracy --work FOLDER --out benchmarks/measured/plan_accuracy.md

Models are tiny and random, and every stage is real. One sweep runs first; the machine "that has run once" knows the seconds of
its stages, and none of its results. Each of the ten sweeps is planned on a new machine (an empty cache), then on one that has run
once, and then run there, timed as a whole command. A finished sweep in `--work` is not repeated.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from autotune.machine import hardware
from autotune.stages.preparation_jobs import TinyJob
from autotune.stages.protocol import function_of

AIMS = (1.5, 3.0)
"""By which factor a plan may be wrong, on a machine that has run once and on a new one."""
TONES = ("fear", "joy", "sadness", "surprise")
DATA: dict[str, Any] = {
    "train": "train.jsonl", "validation": "validation.jsonl", "test": "test.jsonl", "prompt": "Text: {text}\nTone:", "completion": " {tone}",
}  # fmt: skip
LORA: dict[str, Any] = {"r": {"choice": [2, 4]}, "learning_rate": 1e-2, "steps": 6, "batch_size": 4}
WIDE: dict[str, Any] = LORA | {"r": {"choice": [2, 4, 8]}, "learning_rate": {"loguniform": [1e-3, 1e-1]}}
FP32, INT8, INT4 = ({"precision": name} for name in ("fp32", "int8", "int4"))
TIMED: dict[str, Any] = {
    "provider": "cpu", "threads": 1, "workload": {"prompt_tokens": 8, "new_tokens": 6},
    "timing": {"processes": 2, "most": 3, "repeats": 0},
}  # fmt: skip
AIMED: dict[str, Any] = {"accuracy": "maximize", "itl_ms_p50": "minimize", "size_mb": "minimize"}
FIRST: dict[str, Any] = {"space": {"lora": WIDE, "build": [FP32, INT4]}, "strategy": "random", "budget": {"trials": 3}}
KINDS: dict[str, dict[str, Any]] = {
    "grid, two recipes": {"space": {"lora": LORA, "build": [FP32, INT4]}, "strategy": "grid", "budget": {"trials": 9}},
    "random, six trials": {"space": {"lora": WIDE, "build": [INT8, INT4]}, "strategy": "random", "budget": {"trials": 6}},
    "frontier": {"space": {"lora": WIDE, "build": [FP32, INT8, INT4]}, "strategy": "frontier", "budget": {"trials": 4}},
    "tpe": {"space": {"lora": WIDE, "build": [INT4]}, "strategy": "tpe", "budget": {"trials": 4}},
    "adapters alone": {"space": {"lora": WIDE}, "strategy": "random", "budget": {"trials": 6}, "objectives": {"accuracy": "maximize"}},
    "recipes alone": {"space": {"build": [FP32, INT8, {"precision": "int4", "block_size": [32, 64, 128]}]}, "strategy": "grid"},
    "generated text, another model": {
        "space": {"lora": LORA, "build": [FP32, INT4]}, "strategy": "grid", "model": "qwen2",
        "data": DATA | {"metric": "exact_match"}, "objectives": {"exact_match": "maximize", "size_mb": "minimize"},
    },
    "sessions and workloads": {
        "space": {"lora": LORA | {"r": 4}, "build": [INT8, INT4], "session": [{"threads": [1, 2]}]}, "strategy": "grid",
        "target": {"provider": "cpu", "timing": TIMED["timing"],
                   "workloads": {"short": {"prompt_tokens": 8, "new_tokens": 6}, "long": {"prompt_tokens": 200, "new_tokens": 6}}},
    },
    "long trainings": {"space": {"lora": WIDE | {"steps": 400}, "build": [INT4]}, "strategy": "random", "budget": {"trials": 3}},
    "perplexity of many items": {
        "space": {"lora": LORA, "build": [INT8]}, "strategy": "grid", "data": DATA | {"metric": "perplexity", "validation": "many.jsonl"},
        "objectives": {"perplexity": "minimize", "size_mb": "minimize"},
    },
}  # fmt: skip


def prepared(work: Path) -> None:
    """Write models and data."""
    for name, architecture in (("llama", "LlamaForCausalLM"), ("qwen2", "Qwen2ForCausalLM")):
        folder = work / name
        if not (folder / "config.json").exists():
            folder.mkdir(parents=True, exist_ok=True)
            job = TinyJob(architecture=architecture)
            function_of(job)(job, folder)
    for split, start, count in (("train", 0, 60), ("validation", 100, 60), ("test", 200, 40), ("many", 1000, 1500)):
        rows = [
            {"text": f"{n} " + "on it goes " * (n % 3) + f"I felt {TONES[n % 4]} today", "tone": TONES[n % 4]}
            for n in range(start, start + count)
        ]
        (work / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def written(work: Path, number: int, kind: dict[str, Any]) -> Path:
    """Write the sweep file of a kind."""
    sweep = {
        "name": f"plan-{number}",
        "data": DATA,
        "train": {"max_length": 64},
        "target": TIMED,
        "objectives": AIMED,
        **kind,
    }
    sweep["model"] = str(work / str(kind.get("model", "llama")))
    file = work / f"plan-{number}.yaml"
    file.write_text(yaml.safe_dump(sweep), encoding="utf-8")
    return file


def command(cache: Path, *arguments: str) -> tuple[str, float]:
    """Run a command of ours with a cache of its own. Returns what it printed, and its seconds. Raises CalledProcessError."""
    began = time.perf_counter()
    # Other sweeps on this host do not wait for these, nor these for them.
    environment = {**os.environ, "AUTOTUNE_CACHE": str(cache), "XDG_RUNTIME_DIR": str(cache.parent)}
    done = subprocess.run(
        [sys.executable, "-m", "autotune", *arguments], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode not in (0, 4):
        sys.stderr.write(done.stdout + done.stderr)
        raise subprocess.CalledProcessError(done.returncode, arguments)
    return done.stdout, time.perf_counter() - began


def planned(cache: Path, file: Path) -> dict[str, Any]:
    """Return what `plan` says."""
    plan: dict[str, Any] = json.loads(command(cache, "plan", str(file), "--json")[0])
    return plan


def one(work: Path, number: int, kind: dict[str, Any], history: Path) -> dict[str, Any]:
    """Plan a sweep on both machines, and run it."""
    file, cache = written(work, number, kind), work / f"cache-{number}"
    shutil.rmtree(cache, ignore_errors=True)
    shutil.rmtree(work / f"out-{number}", ignore_errors=True)
    new = planned(cache, file)
    shutil.copytree(history, cache / "costs", dirs_exist_ok=True)
    once = planned(cache, file)
    _, seconds = command(cache, "run", str(file), "--out", str(work / f"out-{number}"))
    shutil.rmtree(cache)
    kept = ("total_s", "low_s", "high_s", "seconds")
    return {"took_s": seconds, **{
        name: {key: plan["estimate"][key] for key in kept} | {"trials": plan["trials"]} for name, plan in (("new", new), ("once", once))
    }}  # fmt: skip


def report(found: dict[str, dict[str, Any]]) -> str:
    """Return the table, and by how much the plans were wrong."""
    lines = ["| sweep | took, s | plan on a new machine, s | took / plan | plan after one sweep, s | took / plan | within its interval |",
             "|---|--:|--:|--:|--:|--:|---|"]  # fmt: skip
    factors: dict[str, list[float]] = {"new": [], "once": []}
    for name, one_ in found.items():
        took, cells = one_["took_s"], []
        for machine, values in factors.items():
            said = one_[machine]
            values.append(took / said["total_s"])
            cells += [f"{said['total_s']} ({said['low_s']} to {said['high_s']})", f"{values[-1]:.2f}"]
        inside = one_["once"]["low_s"] <= took <= one_["once"]["high_s"]
        lines.append(f"| {name} | {took:.0f} | {' | '.join(cells)} | {'yes' if inside else 'no'} |")
    lines.append("")
    for (machine, values), aim in zip(factors.items(), AIMS[::-1], strict=True):
        wrong = [max(value, 1 / value) for value in values]
        words = {"new": "On a new machine", "once": "On a machine that has run once"}[machine]
        lines.append(
            f"{words}: within a factor of {aim:g} in {sum(w <= aim for w in wrong)} of {len(wrong)}, "
            f"at most {max(wrong):.2f}, in the geometric mean {math.exp(statistics.fmean(map(math.log, wrong))):.2f}."
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and report. Returns 1 where a plan was further from the truth than it may be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("results/plan-accuracy"))
    parser.add_argument("--out", type=Path, help="file to write the table to, too")
    parser.add_argument("--only", type=int, nargs="*", help="numbers of the sweeps to do now, from 1")
    asked = parser.parse_args(arguments)
    work = asked.work.resolve()
    prepared(work)
    history = work / "history"
    if not history.exists():
        shutil.rmtree(work / "out-0", ignore_errors=True)
        command(work / "cache-0", "run", str(written(work, 0, FIRST)), "--out", str(work / "out-0"))
        shutil.copytree(work / "cache-0" / "costs", history)
        shutil.rmtree(work / "cache-0")
    found = {}
    for number, (name, kind) in enumerate(KINDS.items(), start=1):
        file = work / f"done-{number}.json"
        if not file.exists() and (asked.only is None or number in asked.only):
            file.write_text(json.dumps(one(work, number, kind, history)), encoding="utf-8")
        if file.exists():
            found[name] = json.loads(file.read_text(encoding="utf-8"))
    machine = hardware()
    head = f"`python -m benchmarks.plan_accuracy`; {machine['processor']}, {machine['cores']} cores"
    missing = [name for name in KINDS if name not in found]
    left = f"\n\nNot done yet: {', '.join(missing)}." if missing else ""
    text = f"{head}\n\n{report(found)}{left}\n"
    sys.stdout.write(text)
    if asked.out is not None:
        asked.out.write_text(text, encoding="utf-8")
    wrong = [
        max(one["took_s"] / one[machine]["total_s"], one[machine]["total_s"] / one["took_s"]) > aim
        for one in found.values()
        for machine, aim in (("once", AIMS[0]), ("new", AIMS[1]))
    ]
    return int(any(wrong))


if __name__ == "__main__":
    sys.exit(main())
