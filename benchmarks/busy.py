"""How long a training step takes beside other work: waiting policies, threads, niceness and allocators, quiet and busy.

`python -m benchmarks.busy MODEL_FOLDER --out benchmarks/measured/busy.md` takes training steps of two models: a tiny random
one and that of the folder (the built-in one lies in the cache under `base/` once a sweep has run). Each configuration ("way")
has a process of its own, because OpenMP and the allocator read their environment when they are loaded. All processes live
side by side, and one at a time takes steps, beside 0, 1, 2 and 4 busy processes. A round goes through every load and every
way in a random order, so that other work on the machine affects all ways alike. `--ways` selects the ways.

The steps are those of `autotune.stages.finetune`: LoRA of rank 8 on all linear layers, 8 phrases a batch.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from autotune.machine import hardware

LOADS = (0, 1, 2, 4)
BLOCK_S = 0.4
"""Seconds of steps that make one number, and at least one step."""
ITEMS = Path(__file__).parent / "phrase_tone" / "train.jsonl"


@dataclass(frozen=True)
class Way:
    """One way of running a worker."""

    environment: dict[str, str] = field(default_factory=dict)
    threads: int | None = os.cpu_count()
    """Of PyTorch; None: as workers choose."""
    nice: int = 0
    adjusts: bool = False
    """Whether threads wait as the load of the machine asks for (`autotune.execution.openmp_waiting`)."""


HUGE = {"THP_MEM_ALLOC_ENABLE": "1"}
PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE"}
KEEP = {"MALLOC_TRIM_THRESHOLD_": "4294967296", "MALLOC_MMAP_THRESHOLD_": "4294967296"}
"""glibc keeps what is freed, and takes nothing from the kernel for one tensor alone."""
WAYS = {
    "active waiting (OpenMP's default)": Way(),
    **{
        f"short active waiting (GOMP_SPINCOUNT={n})": Way({"GOMP_SPINCOUNT": str(n)})
        for n in (1_000, 2_000, 2_500, 3_000, 10_000)
    },
    "passive waiting": Way(PASSIVE),
    "passive waiting, one thread": Way(PASSIVE, threads=1),
    "passive waiting, nice 5": Way(PASSIVE, nice=5),
    "passive waiting, huge pages": Way(PASSIVE | HUGE),
    "passive waiting, freed memory kept": Way(PASSIVE | KEEP),
    "as workers run": Way(threads=None, adjusts=True),
}

STEPS = """
import inspect, json, os, resource, sys, time
from pathlib import Path
folder, items, threads, nice, adjusts = Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:])
if nice and hasattr(os, "nice"):
    os.nice(nice)
import torch
from autotune.candidate import Lora
from autotune.stages.finetune import adapt, batches, collate, completion_loss
from autotune.stages.text import Encoded, end_token, load_tokenizer
from autotune.stages.torch_model import load_model

tokenizer = load_tokenizer(folder)
rows = [json.loads(line) for line in items.read_text(encoding="utf-8").splitlines()]
encoded = [Encoded("", tuple(tokenizer(f"Text: {row['phrase']}\\nTone:")["input_ids"]),
                   tuple(tokenizer(f" {row['tone']}", add_special_tokens=False)["input_ids"]), "") for row in rows]
lora = Lora(r=8, alpha=16, dropout=0.0, target_modules="all-linear", learning_rate=1e-3, schedule="linear", warmup=0.1,
            batch_size=8, accumulation=1, gradient_checkpointing=False, max_grad_norm=1.0, adam_beta1=0.9,
            adam_beta2=0.999, weight_decay=0.0, dtype="auto", max_length=256, steps=100)
base = load_model(folder, "cpu", torch.float32, threads=threads or None)
sliced = "logits_to_keep" in inspect.signature(base.forward).parameters
model = adapt(base, lora, 0).train()
parameters = [p for p in model.parameters() if p.requires_grad]
optimizer = torch.optim.AdamW(parameters, lr=lora.learning_rate)
end = end_token(tokenizer)
feed = batches([len(item.prompt) + len(item.completion) for item in encoded], 8, 0, 0)
# All ways take the same batches, one of them over and over: what differs is the way.
batch = collate([encoded[i] for i in next(feed)], end, end, "cpu")

def step():
    (completion_loss(model, batch, sliced) / 16).backward()
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)

step()
step()
if adjusts:
    import threading
    from autotune.execution.openmp_waiting import OpenMPWaiting
    waiting = OpenMPWaiting()
    def often():
        while True:
            waiting.adjust()
            time.sleep(0.5)
    threading.Thread(target=often, daemon=True).start()
print("ready", flush=True)
for line in sys.stdin:
    began = time.perf_counter()
    while time.perf_counter() - began < 1.5:  # what others did before has no say any more
        step()
    before, began, took = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter(), []
    while not took or time.perf_counter() - began < float(line):
        started = time.perf_counter()
        step()
        took.append(time.perf_counter() - started)
    after = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps({"step_s": sorted(took)[len(took) // 2], "user_s": after.ru_utime - before.ru_utime,
                      "kernel_s": after.ru_stime - before.ru_stime, "steps": len(took)}), flush=True)
"""
BUSY = """
import os
parent = os.getppid()
while os.getppid() == parent:
    sum(i * i for i in range(100_000))
"""


class Stepper:
    """A process that takes training steps when it is asked to. Use it as a context."""

    def __init__(self, model: Path, way: Way) -> None:
        own = {name: value for name, value in os.environ.items() if name not in _SET}
        command = [sys.executable, "-c", STEPS, str(model), str(ITEMS), str(way.threads or 0), str(way.nice)]
        command.append(str(int(way.adjusts)))
        self.process = subprocess.Popen(
            command,
            env=own | way.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        assert self.process.stdout is not None
        if self.process.stdout.readline() != "ready\n":
            raise RuntimeError(f"no steps with {way}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.communicate()

    def take(self) -> dict[str, float]:
        """Take steps for a while. Returns the median step, and what they took of the processor in all, seconds."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{BLOCK_S}\n")
        self.process.stdin.flush()
        found: dict[str, float] = json.loads(self.process.stdout.readline())
        return found


_SET = {name for way in WAYS.values() for name in way.environment}


@contextlib.contextmanager
def busy(processes: int) -> Iterator[None]:
    """Keep so many processes busy, each of one thread."""
    jobs = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(processes)]
    try:
        yield
    finally:
        for job in jobs:
            job.kill()
            job.wait()


def measure(
    model: Path, ways: dict[str, Way], loads: Sequence[int], rounds: int, seconds: float
) -> dict[tuple[str, int], list[Any]]:
    """Take steps in every way beside every load, in rounds, at most so long. Returns what each block of steps took."""
    found: dict[tuple[str, int], list[Any]] = {(name, load): [] for name in ways for load in loads}
    draw, began = random.Random(0), time.perf_counter()
    with contextlib.ExitStack() as stack:
        steppers = {name: stack.enter_context(Stepper(model, way)) for name, way in ways.items()}
        for number in range(rounds):
            if number and (time.perf_counter() - began) * (number + 1) / number > seconds:
                break
            for load in draw.sample(loads, len(loads)):
                with busy(load):
                    for name in draw.sample(list(ways), len(ways)):
                        found[name, load].append(steppers[name].take())
            sys.stderr.write(f"round {number + 1} of {rounds}, {time.perf_counter() - began:.0f} s\n")
    return found


def report(title: str, found: dict[tuple[str, int], list[Any]]) -> str:
    """Return the table of one model."""
    ways, loads = (list(dict.fromkeys(place)) for place in zip(*found, strict=True))
    rounds = len(next(iter(found.values())))
    lines = [
        f"{title}: seconds of a step, median of {rounds} rounds, and how many times the same way's quiet step that is",
        "",
        f"| way | {' | '.join(f'beside {load} busy' if load else 'quiet' for load in loads)} | quiet, to the first way's | "
        "in the kernel, quiet |",
        "|---|" + "--:|" * (len(loads) + 2),
    ]
    for name in ways:
        level = {load: statistics.median(block["step_s"] for block in found[name, load]) for load in loads}
        # In pairs, round by round: a disturbance of the machine hits both.
        pairs = zip(found[name, 0], found[ways[0], 0], strict=True)
        ratio = statistics.median(own["step_s"] / first["step_s"] for own, first in pairs)
        spent = {kind: sum(block[kind] for block in found[name, 0]) for kind in ("user_s", "kernel_s")}
        cells = [f"{level[0]:.3g}", *(f"{level[load]:.3g} (x {level[load] / level[0]:.1f})" for load in loads[1:])]
        kernel = spent["kernel_s"] / (spent["user_s"] + spent["kernel_s"])
        lines.append(f"| {name} | {' | '.join(cells)} | {ratio - 1:+.1%} | {kernel:.0%} |")
    return "\n".join(lines)


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "model", type=Path, nargs="?", help="folder of a model of the Hugging Face kind; none: tiny only"
    )
    parser.add_argument("--out", type=Path, help="file to write the tables to, too")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=300.0, help="of each model's rounds, about, at most")
    parser.add_argument("--ways", nargs="*", choices=list(WAYS), default=list(WAYS), metavar="WAY")
    parser.add_argument("--loads", nargs="*", type=int, default=LOADS, help="busy processes beside it; 0 is always one")
    parser.add_argument("--no-tiny", action="store_true", help="leave the tiny model out, and add to the file")
    arguments = parser.parse_args()
    ways = {name: WAYS[name] for name in WAYS if name in arguments.ways}
    loads = sorted({0, *arguments.loads})
    machine = hardware()
    parts = (
        [] if arguments.no_tiny else [f"{machine['processor']}, {machine['cores']} cores; `python -m benchmarks.busy`"]
    )
    if not arguments.no_tiny:
        with tempfile.TemporaryDirectory() as scratch:
            tiny = Path(scratch) / "tiny"
            code = "import sys; from pathlib import Path; from autotune.stages.preparation_jobs import TinyJob\n"
            code += "from autotune.stages.tiny import tiny\nout = Path(sys.argv[1]); out.mkdir(); tiny(TinyJob(), out)"
            subprocess.run([sys.executable, "-c", code, str(tiny)], check=True, stderr=subprocess.DEVNULL)
            parts.append(report("A tiny random model", measure(tiny, ways, loads, arguments.rounds, arguments.seconds)))
    if arguments.model is not None:
        found = measure(arguments.model.resolve(), ways, loads, arguments.rounds, arguments.seconds)
        parts.append(report("The model of the folder", found))
    text = "\n\n".join(parts) + "\n"
    sys.stdout.write(text)
    if arguments.out is not None:
        with arguments.out.open("a" if arguments.no_tiny else "w", encoding="utf-8") as stream:
            stream.write("\n" * arguments.no_tiny + text)


if __name__ == "__main__":
    main()
