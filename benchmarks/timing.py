"""Does a timing call one thing two, or two things one? A noisy machine, our protocol and the usual one side by side.

`python -m benchmarks.timing MODEL_FOLDER --out ROWS.csv [--aa 100] [--apart 30]` times pairs of int4 builds of a model
of the Hugging Face kind (the built-in one lies in the cache under `base/` once a sweep has run) on the CPU:

- A/A: both are the same build. Who calls them different is wrong.
- apart: the second is the same model without its last 4 layers. Who calls them alike is blind.

A set is an A/A pair, together with a pair apart (until there are enough of those) that has the same first model. During every
other set, another job keeps the cores busy in bursts. Our protocol times the models of the set in turns, as finalists are, the
first of them twice in each round, and judges by the winner's rule (`autotune.analysis.selection`). The usual protocol runs one
process per model, with 10 warm-up sequences and 20 timed ones, and takes the mean at face value. Rows are written at once, and
the command goes on where it stopped; `--report` prints the table of the existing rows.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from autotune.analysis.latency import at_place, latency_cells, turns_of
from autotune.analysis.selection import Entry, choose
from autotune.analysis.stopping import stretch
from autotune.candidate import Recipe
from autotune.execution.local import LocalEngine
from autotune.machine import hardware, machine_digest
from autotune.stages.jobs import BuildJob, TimeJob, TurnsJob

LAYERS_LESS = 4
PROMPT, NEW = 8, 12
WARM, RUNS = 10, 20
FIELDS = ("kind", "pair", "disturbed", "rounds", "ratio", "low", "high", "different", "floor", "seconds",
          "usual_ratio", "usual_seconds", "usual_a", "usual_b", "load_avg", "foreign_cpu")  # fmt: skip

DISTURB = """
import os, random, sys, time
rng, parent = random.Random(int(sys.argv[1])), os.getppid()
while os.getppid() == parent:
    end = time.monotonic() + rng.expovariate(1 / 2)
    while time.monotonic() < end:
        sum(i * i for i in range(10_000))
    time.sleep(rng.expovariate(1 / 2))
"""
USUAL = """
import json, sys, time
import numpy as np
from autotune.candidate import Session
from autotune.stages.timing import load, sequence
from pathlib import Path
folder, prompt, new, warm, runs = Path(sys.argv[1]), *map(int, sys.argv[2:])
model = load(folder, "cpu", Session())
vocabulary = json.loads((folder / "genai_config.json").read_text(encoding="utf-8"))["model"]["vocab_size"]
tokens = np.random.default_rng(0).integers(vocabulary // 10, vocabulary, prompt).astype(np.int32)
gaps = []
for run in range(warm + runs):
    for name, values in sequence(model, tokens, prompt + new, 1):
        if run >= warm and name == "itl_ms":
            gaps += values
print(sum(gaps) / len(gaps))
"""


@contextmanager
def disturbing(seed: int, processes: int | None = None) -> Iterator[None]:
    """Keep so many cores busy (None: all) in bursts of two seconds on average, half of the time."""
    count = processes or os.cpu_count() or 1
    jobs = [subprocess.Popen([sys.executable, "-c", DISTURB, str(seed + n)]) for n in range(count)]
    try:
        yield
    finally:
        for job in jobs:
            job.kill()
            job.wait()


def shorter(model: Path, out: Path) -> None:
    """Write the model without its last layers."""
    from safetensors.numpy import load_file, save_file

    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    config["num_hidden_layers"] -= LAYERS_LESS
    if "layer_types" in config:
        config["layer_types"] = config["layer_types"][: config["num_hidden_layers"]]
    gone = tuple(f"model.layers.{config['num_hidden_layers'] + n}." for n in range(LAYERS_LESS))
    out.mkdir()
    for file in model.iterdir():
        if file.suffix == ".safetensors":
            tensors = {name: tensor for name, tensor in load_file(file).items() if not name.startswith(gone)}
            save_file(tensors, out / file.name, metadata={"format": "pt"})
        elif file.name != "config.json":
            (out / file.name).write_bytes(file.read_bytes())
    (out / "config.json").write_text(json.dumps(config), encoding="utf-8")


def timed(folder: Path) -> TimeJob:
    """Return the job that times a build."""
    return TimeJob(graph=folder.name, provider="cpu", prompt_tokens=PROMPT, new_tokens=NEW, machine=machine_digest(),
                   model_dir=folder)  # fmt: skip


def ours(engine: LocalEngine, folders: Sequence[Path], most: int, log: Path) -> tuple[list[dict[str, Any]], float]:
    """Time builds in turns and let the winner's rule judge each against the first. Returns what it says, and seconds."""
    jobs = [timed(folder) for folder in folders]
    rounds, seconds = engine.time_in_turns(TurnsJob(graphs=(*jobs, jobs[0]), most=most), log)
    names = [str(place) for place in range(len(folders))]
    turns = turns_of([*names, names[0]], rounds, 1, wider=stretch(TurnsJob.model_fields["processes"].default, most))
    cells = [latency_cells(at_place(rounds, place), 1) for place in range(len(folders))]
    entries = [
        Entry(name, {"itl_ms_p50": float(cell["itl_ms_p50"] or 0)}, graph=name)
        for name, cell in zip(names, cells, strict=True)
    ]
    found = []
    for entry in entries[1:]:
        ratio = turns.ratio("itl_ms_p50", entry.id, names[0])
        assert ratio is not None
        step = choose([entries[0], entry], {"itl_ms_p50": "minimize"}, [], None, turns=turns).steps[0]
        found.append({
            "rounds": len(rounds), "ratio": ratio.value, "low": ratio.low, "high": ratio.high,
            "different": int(bool(step.beaten)), "floor": turns.noise_floor("itl_ms_p50"),
            "load_avg": cells[0].get("load_avg"), "foreign_cpu": cells[0].get("foreign_cpu"),
        })  # fmt: skip
    return found, seconds


def usual(folder: Path) -> tuple[float, float]:
    """Time a build in one process, as is usual. Returns the mean between tokens, milliseconds, and the seconds it took."""
    began = time.perf_counter()
    command = [sys.executable, "-c", USUAL, str(folder), *map(str, (PROMPT, NEW, WARM, RUNS))]
    mean = float(subprocess.run(command, check=True, capture_output=True, text=True, encoding="utf-8").stdout)
    return mean, time.perf_counter() - began


def measure(model: Path, out: Path, counts: dict[str, int], most: int) -> None:
    """Time the pairs that are not in the rows yet."""
    done = {(row["kind"], int(row["pair"])) for row in rows_of(out)}
    sets = [
        (pair, [kind for kind in ("aa", "apart") if pair < counts[kind] and (kind, pair) not in done])
        for pair in range(max(counts.values()))
    ]
    # Disturbed or not, with a third or without, are mixed in time, so that no hour of the day favours one.
    todo = [(pair, kinds) for pair, kinds in sets if kinds]
    random.Random(len(done)).shuffle(todo)
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        shorter(model, place / "short")
        folders = {}
        with LocalEngine() as engine:
            for name, source in (("whole", model), ("short", place / "short")):
                recipe = Recipe(precision="int4", algorithm="default", block_size=32, accuracy_level=4, symmetric=True)
                folders[name] = place / f"{name}-int4"
                engine.run(
                    BuildJob(source=name, recipe=recipe, provider="cpu", source_dir=source),
                    folders[name],
                    place / "log",
                )
        engine = LocalEngine()  # without the worker that built them
        for number, (pair, kinds) in enumerate(todo):
            models = [folders["whole"], *(folders["whole" if kind == "aa" else "short"] for kind in kinds)]
            with disturbing(1000 * pair) if pair % 2 == 1 else nullcontext():
                found, seconds = ours(engine, models, most, place / "log")
                (first, first_s), *others = map(usual, models)
            for kind, row, (mean, mean_s) in zip(kinds, found, others, strict=True):
                row |= {"kind": kind, "pair": pair, "disturbed": pair % 2, "seconds": seconds * 3 / (len(models) + 1)}
                row |= {
                    "usual_ratio": mean / first,
                    "usual_seconds": first_s + mean_s,
                    "usual_a": first,
                    "usual_b": mean,
                }
                add(out, row)
                said = f"{row['ratio']:.3f} [{row['low']:.3f}, {row['high']:.3f}], usual {row['usual_ratio']:.3f}"
                print(f"{number + 1}/{len(todo)} {kind} {said}, {row['rounds']} rounds, {seconds:.0f} s", flush=True)


def add(out: Path, row: dict[str, Any]) -> None:
    """Append a row, and see that it is on the disk."""
    new = not out.exists()
    with out.open("a", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, FIELDS, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow({n: f"{v:.6g}" if isinstance(v, float) else v for n, v in row.items()})
        stream.flush()
        os.fsync(stream.fileno())


def rows_of(out: Path) -> list[dict[str, str]]:
    """Return the rows that are there."""
    if not out.exists():
        return []
    with out.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def report(rows: Sequence[dict[str, str]]) -> str:
    """Return the table of what each protocol said."""
    lines = ["| pairs | another job | pairs | ours: called different | rounds, median | interval, median half width | "
             "usual: over 1 % apart | over 3 % | over 5 % | worst | our s a pair | usual s |",
             "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|"]  # fmt: skip
    names = {"aa": "A/A", "apart": f"{LAYERS_LESS} layers less"}
    for kind in ("aa", "apart"):
        for disturbed in ("0", "1"):
            part = [row for row in rows if (row["kind"], row["disturbed"]) == (kind, disturbed)]
            if not part:
                continue

            def column(name: str, part: Sequence[dict[str, str]] = part) -> Any:
                return np.array([float(row[name]) for row in part])

            apart = np.abs(column("usual_ratio") - 1)
            half = np.median((column("high") - column("low")) / 2 / column("ratio"))
            shares = " | ".join(f"{np.sum(apart > limit)}" for limit in (0.01, 0.03, 0.05))
            lines.append(
                f"| {names[kind]} | {'in bursts' if disturbed == '1' else 'none'} | {len(part)} | "
                f"{int(column('different').sum())} ({column('different').mean():.0%}) | {np.median(column('rounds')):.0f} | "
                f"{half:.1%} | {shares} | {apart.max():.0%} | {np.mean(column('seconds')):.0f} | "
                f"{np.mean(column('usual_seconds')):.0f} |"
            )
    apart_rows = [row for row in rows if row["kind"] == "apart"]
    if apart_rows:
        ratios = np.array([float(row["ratio"]) for row in apart_rows])
        wrong = sum(float(row["usual_ratio"]) >= 1 for row in apart_rows)
        low, middle, high = np.percentile(ratios, [5, 50, 95])
        lines += ["", f"True difference by ours: {middle:.3f} (5th to 95th percentile {low:.3f} to {high:.3f}); "
                  f"the usual protocol called the shorter model the slower one in {wrong} of {len(apart_rows)} pairs."]  # fmt: skip
    return "\n".join(lines)


def main() -> None:
    """Measure, or report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("--out", type=Path, default=Path("timing.csv"))
    parser.add_argument("--aa", type=int, default=100)
    parser.add_argument("--apart", type=int, default=30)
    parser.add_argument(
        "--most", type=int, default=TurnsJob.model_fields["most"].default, help="rounds of a set at most"
    )
    parser.add_argument("--report", action="store_true")
    arguments = parser.parse_args()
    if not arguments.report:
        if arguments.model is None:
            parser.error("name the folder of a model")
        counts = {"aa": arguments.aa, "apart": arguments.apart}
        measure(arguments.model.resolve(), arguments.out, counts, arguments.most)
    machine = hardware()
    print(f"\n{machine['processor']}, {machine['cores']} cores; int4, {PROMPT} tokens of prompt, {NEW} new\n")
    print(report(rows_of(arguments.out)))


if __name__ == "__main__":
    main()
