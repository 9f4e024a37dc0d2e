"""Which results of a cache that version 718160a filled are found again, and why are the others not?

    python -m benchmarks.cache_keys > benchmarks/measured/cache_keys.md

A job's key names its result in the cache. `cache_keys_718160a.json` holds jobs of every stage that 718160a made for the sweeps
and candidates below: each key, and the content of which it is the digest. This script makes the same jobs with the present code
and the package versions of then, and compares the keys. It exits with 1 if a result is lost without a reason in `REASONS`, or if
a reason is given for a result that is not lost.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

from autotune.candidate import Candidate, Lora, Recipe, Session
from autotune.pipeline.graph import Graph
from autotune.pipeline.inputs import Inputs
from autotune.stages.jobs import TurnsJob
from autotune.stages.preparation_jobs import BaseJob, DataJob, LengthsJob, MetricJob, ProbeJob, TaskJob, TinyJob
from autotune.stages.protocol import Job
from autotune.sweepfile.resolve import parse_sweep
from autotune.usercode import Code

THEN = Path(__file__).parent / "measured" / "cache_keys_718160a.json"
NOWHERE = Path("nowhere")
TASK = "lm-eval:task"

_WINDOW = "a model with a sliding window is built with caches that hold all positions: the runtime refuses short texts otherwise"
_CHECK = "version 2: it is also seen whether the build computes what PyTorch computes with the same rounded weights"
_PROBE = "version 2: it says how many GPUs there are, for the workers; takes seconds, once for each machine"
_TASK = (
    "version 2: it is also read whether the score is a mean; takes seconds, and scores that are means are found again"
)
_PARTS = "each item's part in a score that is no mean is kept, so that two candidates can be compared in pairs"
_ROUGE = "words are counted by rules of our own for every script, which the key names"

REASONS = {
    "probe": _PROBE,
    "task": _TASK,
    "build, int4, model with a window": _WINDOW,
    "score, choice, model with a window": _WINDOW,
    "check, fp32": _CHECK,
    "check, int4": _CHECK,
    "check, lm-eval task": _CHECK,
    "score, rouge_l": _ROUGE,
    "score, lm-eval task, no mean": _PARTS,
}
"""Why a result of 718160a is not taken any more."""

LORA = Lora(
    r=8, alpha=16.0, dropout=0.0, target_modules="all-linear", learning_rate=1e-3, schedule="linear", warmup=0.1,
    batch_size=8, accumulation=1, gradient_checkpointing=False, max_grad_norm=1.0, adam_beta1=0.9, adam_beta2=0.999,
    weight_decay=0.0, dtype="auto", max_length=256, steps=30,
)  # fmt: skip
LORAS: dict[str, dict[str, Any]] = {
    "plain": {},
    "DoRA": {"dora": True, "target_modules": "attention"},
    "rank-stabilised, epochs": {"rslora": True, "steps": None, "epochs": 1.5, "dropout": 0.1},
    "4-bit base": {"quantized_base": "nf4", "double_quant": True},
    "named modules": {"target_modules": ("q_proj", "v_proj"), "schedule": "cosine", "accumulation": 4},
}
"""By name, what is another than in `LORA`."""
INT4: dict[str, Any] = {
    "precision": "int4", "algorithm": "default", "block_size": 32, "accuracy_level": 4, "symmetric": True,
}  # fmt: skip
RECIPES: dict[str, Recipe] = {
    "fp32": Recipe(precision="fp32"),
    "int8": Recipe(precision="int8", algorithm="default", block_size=32, accuracy_level=4, symmetric=True),
    "int4": Recipe(**INT4),
    "int4, k_quant, mixed": Recipe(
        precision="int4", algorithm="k_quant", block_size=32, accuracy_level=4,
        mixed_precision="last_matmul:int8,mixed_layers:int8",
    ),
    "int4, nodes left out": Recipe(**INT4, nodes_to_exclude="/lm_head/MatMul", op_types_to_quantize="MatMul"),
    "int4, QDQ": Recipe(**INT4, use_qdq=True),
    "int4, graph options": Recipe(
        **INT4, shared_embeddings=True, fuse_qkv=False, fuse_mlp_gate_up=False, prune_lm_head=True
    ),
}  # fmt: skip


def graph_of(
    metric: str = "choice", device: str = "cpu", provider: str = "cpu", window: bool = False, **inputs: Any
) -> Graph:
    """Return the jobs of a sweep of the built-in model: made without looking at a file."""
    sweep = parse_sweep(
        {
            "name": "keys",
            "model": "smollm2-135m-instruct",
            "data": {
                "train": "train.jsonl", "validation": "validation.jsonl", "test": "test.jsonl",
                "prompt": "{text}", "completion": " {tone}",
            },
            "target": {"provider": provider, "threads": 2},
            "space": {"lora": {"r": {"choice": [4, 8]}, "steps": 30}, "build": [{"precision": "int4"}]},
        }
    )  # fmt: skip
    # A metric of the user's own, or a task, would be looked for.
    data = sweep.data.model_copy(update={"metric": metric, "max_new_tokens": 8, "stop": ("\n",)})
    sweep = sweep.model_copy(update={"data": data})
    items = {split: (f"{split} digest", NOWHERE) for split in ("train", "validation", "test")}
    made = Inputs(NOWHERE, "base digest", items, dict.fromkeys(items, 100), (" fear", " joy"), device, "machine digest")
    if window:
        made = replace(made, window=True)
    return Graph(sweep, replace(made, **inputs))


def jobs() -> dict[str, Job]:
    """Return by name what is compared: jobs of every stage."""
    code = Code(NOWHERE, None, "code digest", ())
    plain, cuda = graph_of(), graph_of(device="cuda", provider="cuda")
    tuned = {name: Candidate(lora=LORA.model_copy(update=changes)) for name, changes in LORAS.items()}
    pair = Candidate(lora=LORA, recipe=RECIPES["int4"])
    served = pair.model_copy(update={"session": Session(threads=4, arena=False, provider_options="a=1")})
    found: dict[str, Job] = {
        "base": BaseJob(name="smollm2-135m-instruct"),
        "data": DataJob(dataset="owner/name", split="train"),
        "probe": ProbeJob(machine="machine digest", packages_digest="onnxruntime-genai=1"),
        "metric": MetricJob(metric="module:function", code="code digest", file=NOWHERE),
        "task": TaskJob(metric=TASK, code="code digest", max_validation=100, file=NOWHERE),
        "lengths": LengthsJob(
            base="base digest",
            data="data digest",
            labels=(" joy",),
            max_length=256,
            base_dir=NOWHERE,
            data_file=NOWHERE,
        ),
        "tiny": TinyJob(),
        "tiny, Qwen2": TinyJob(architecture="Qwen2ForCausalLM", seed=1),
    }
    found |= {f"finetune, {name}": plain.finetune_job(candidate) for name, candidate in tuned.items()}
    found["finetune, to a rung"] = plain.finetune_job(tuned["plain"], 1 / 3)
    found["finetune, on a GPU"] = cuda.finetune_job(tuned["plain"])
    found["merge"] = plain.merge_job(tuned["plain"])
    found["merge, from a rung"] = plain.merge_job(tuned["plain"], 1 / 3)
    found |= {f"build, {name}": plain.build_job(Candidate(lora=LORA, recipe=r)) for name, r in RECIPES.items()}
    found["build, untouched model"] = plain.build_job(Candidate(recipe=RECIPES["fp32"]))
    found["build, CUDA"] = cuda.build_job(pair)
    windowed = graph_of(window=True)
    found["build, int4, model with a window"] = windowed.build_job(pair)
    found["score, choice, model with a window"] = windowed.score_job(pair, "validation")
    found["check, fp32"] = plain.check_job(Candidate(lora=LORA, recipe=RECIPES["fp32"]))
    found["check, int4"] = plain.check_job(pair)
    for metric in ("choice", "f1", "f1_micro", "exact_match", "perplexity", "rouge_l"):
        found[f"score, {metric}"] = graph_of(metric).score_job(pair, "validation")
    found["score, function of the user's"] = graph_of("module:function", code=code).score_job(pair, "validation")
    found["score, on test"] = plain.score_job(pair, "test")
    found["score, untouched model"] = plain.score_job(Candidate(recipe=RECIPES["fp32"]), "validation")
    found["score, provider options"] = plain.score_job(served, "validation")
    found["score, from a rung"] = plain.score_job(pair, "validation", 1 / 3)
    found["score, some items"] = plain.score_job(pair, "validation").model_copy(update={"block": (0, 13)})
    found["score, adapter alone by PyTorch"] = cuda.score_job(tuned["plain"], "validation")
    task = graph_of(TASK, code=code)
    found["check, lm-eval task"] = task.check_job(pair)
    found["score, lm-eval task"] = task.score_job(pair, "validation")
    aggregated = graph_of(TASK, code=code, aggregated=True)
    found["score, lm-eval task, no mean"] = aggregated.score_job(pair, "validation")
    timed = plain.time_job(pair, "build key", "graph signature")
    found["time"] = timed
    found["time, session, at a later pace"] = plain.time_job(served, "build key", "graph signature", since="d868fc7b")
    lengths = {"": ((4, 2), (32, 16))}
    found["time, lengths of the data"] = graph_of(lengths=lengths).time_job(pair, "build key", "graph signature")
    other = plain.time_job(pair, "another build", "another graph")
    found["turns"] = TurnsJob(graphs=(timed, other, timed), processes=5, most=12)
    return found


@dataclass(frozen=True)
class Compared:
    """A job of 718160a and the same job now."""

    name: str
    stage: str
    differs: tuple[str, ...]
    """In what, of all that the key is the digest of; empty: its result is found."""
    reason: str
    """Why; empty: none is given."""


def compared() -> list[Compared]:
    """Return every job of 718160a, and in what the present code's job differs from it."""
    then = json.loads(THEN.read_text(encoding="utf-8"))
    packages = then["packages"]
    with (
        patch("autotune.stages.protocol.installed", lambda name: packages.get(name, "")),
        patch("autotune.pipeline.graph.installed", lambda name: packages.get(name, "")),
    ):
        now = jobs()
        missing = sorted(set(then["jobs"]) ^ set(now))
        if missing:
            raise SystemExit(f"not made by both: {', '.join(missing)}")
        found = []
        for name, job in now.items():
            differs = _differences(then["jobs"][name]["described"], job.described())
            assert bool(differs) == (job.key != then["jobs"][name]["key"])
            found.append(Compared(name, job.stage, differs, REASONS.get(name, "")))
    return found


def _differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of what differs."""
    names = [name for name in ("stage", "version", "packages") if then[name] != now[name]]
    inputs = {**then["inputs"], **now["inputs"]}
    return (*names, *(name for name in inputs if then["inputs"].get(name) != now["inputs"].get(name)))


def unexplained(found: Iterable[Compared]) -> list[str]:
    """Return what is lost without a reason, and what is found although a reason says that it is lost."""
    return [one.name for one in found if bool(one.differs) != bool(one.reason)]


def table(found: Sequence[Compared]) -> str:
    """Return what was compared, as Markdown."""
    hits = sum(not one.differs for one in found)
    lines = [f"{hits} of {len(found)} results of 718160a are found again.", ""]
    lines += ["| job | stage | found | differs in | why |", "|---|---|---|---|---|"]
    for one in found:
        lines.append(
            f"| {one.name} | {one.stage} | {'no' if one.differs else 'yes'} | {', '.join(one.differs)} | {one.reason} |"
        )
    return "\n".join(lines)


def main() -> int:
    """Print the table. Returns 1 where a loss is not explained."""
    found = compared()
    print(table(found))
    for name in unexplained(found):
        print(f"not explained: {name}", file=sys.stderr)
    return 1 if unexplained(found) else 0


if __name__ == "__main__":
    sys.exit(main())
