"""A sweep on an NVIDIA GPU: doctor, bf16 LoRA and QLoRA through CUDA builds, and step times beside the CPU's.

    python -m benchmarks.gpu.sweep_cuda --out gpu-results [--provider cuda] [--trials 8]

`--provider cpu` runs the same on a machine without a GPU, to see that the script itself works.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from autotune.artifacts.store import Cache, default_root
from autotune.cli import main as autotune
from autotune.errors import StageError
from autotune.execution.executor import Stages
from autotune.execution.local import LocalEngine
from autotune.pipeline.graph import Graph
from autotune.pipeline.measure import Pipeline
from autotune.pipeline.prepare import prepare
from autotune.sweepfile.resolve import parse_sweep
from autotune.sweepfile.schema import Sweep

ROOT = Path(__file__).parent.parent.parent
STEPS = 12


def sweep(provider: str, device: str, trials: int, model: str) -> Sweep:
    """Return the sweep: the built-in model on our own phrases, every precision that the provider runs."""
    data = ROOT / "benchmarks" / "phrase_tone"
    precisions = {"cuda": ["bf16", "fp16", "int8", "int4"], "cpu": ["fp32", "int8", "int4"]}[provider]
    return parse_sweep(
        {
            "name": f"gpu-{provider}", "model": model,
            "data": {
                "train": str(data / "train.jsonl"), "validation": str(data / "validation.jsonl"),
                "test": str(data / "test.jsonl"), "prompt": "Text: {phrase}\nTone:", "completion": " {tone}",
                "max_items": {"validation": 200, "test": 200},
            },
            "train": {"device": device},
            "target": {"provider": provider},
            "space": {
                "lora": {
                    "r": 16, "learning_rate": 2e-3, "steps": 40, "quantized_base": {"choice": ["none", "nf4"]},
                },
                "build": [{"precision": precision} for precision in precisions],
            },
            "strategy": "grid",
            "budget": {"trials": trials},
        },
        shown=f"gpu-{provider}.json",
    )  # fmt: skip


def step_times(device: str, model: str) -> dict[str, float | str]:
    """Return the median seconds of a training step of 8 phrases by kind of base, on one device."""
    found: dict[str, float | str] = {}
    cache = Cache(default_root())
    for base in ("none", "nf4"):
        wanted = sweep("cpu", device, 1, model)
        with LocalEngine() as engine:
            stages = Stages(cache, engine, lambda: default_root() / "logs" / "gpu.log", wanted.model)
            wanted, _, inputs = prepare(wanted, stages, cache.root)
            candidate = wanted.space.candidate(
                {"r": 16, "learning_rate": 1e-3, "quantized_base": base, "steps": STEPS}, None
            )
            try:
                result = stages(
                    Pipeline(Graph(wanted, inputs), wanted.aims, stages).graph.finetune_job(candidate)
                ).result
                found[base] = float(result["step_s"])
            except StageError as error:
                found[base] = str(error)
    return found


def main() -> int:
    """Run all parts; `step_times.json` stands beside the sweep's folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--provider", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    autotune(["doctor"])
    device = "cuda" if arguments.provider == "cuda" else "cpu"
    times = {name: step_times(name, arguments.model) for name in dict.fromkeys((device, "cpu"))}
    (arguments.out / "step_times.json").write_text(json.dumps(times, indent=1), encoding="utf-8")
    print(json.dumps(times, indent=1), flush=True)
    wanted = sweep(arguments.provider, device, arguments.trials, arguments.model)
    file = arguments.out / "sweep.json"
    file.write_text(json.dumps(wanted.resolved()), encoding="utf-8")
    return autotune(["run", str(file), "--out", str(arguments.out / "sweep"), "--hours", str(arguments.hours)])


if __name__ == "__main__":
    sys.exit(main())
