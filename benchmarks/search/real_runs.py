"""LoRA runs of 23 models by others: how good is what is trained first?

python -m benchmarks.search.real_runs             # prints the table
python -m benchmarks.search.real_runs --write     # and writes measured/real_runs.md

The runs are those of tinker-cookbook's table (`lora_sweeps` of the test data, which `AUTOTUNE_TEST_DATA` names): learning
rate and rank of each model, 1 to 550 billion parameters, and the negative log-likelihood of held-out text. The regret
is the best of a strategy's first runs less the best of all runs of that model. Scores of the untouched models are not known.

- `frontier` is the strategy itself over this space, with the prior of the model's width. Its exponent is fitted to the runs of the
  other models, so that no model says where its own search begins; `usual width` is the prior without it.
- `formula` is the published one: 5e-4 (2000 / width) ** p, where p is 0.781 for Llama and 0.0775 for Qwen; 0 for others, of
  which it says nothing. Its rank is 32, and it has no second run. `formula, then on` begins with it at the largest rank, and
  goes on with the learning rates nearest to it. So it knows that a larger rank is better, as our prior does.
- `tpe` is Optuna's, with one random run to begin with.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import random
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna

from autotune.candidate import Lora
from autotune.strategies.frontier.constants import USUAL_WIDTH, WIDTH_EXPONENT
from autotune.strategies.frontier.priors import Prior, prior_mean
from autotune.strategies.frontier.strategy import Frontier, Levers
from autotune.strategies.protocol import Told
from autotune.sweepfile.resolve import parse_sweep

Run = tuple[float, int]
"""A learning rate and a rank."""
Table = Mapping[Run, float]
"""The held-out negative log-likelihood of each run, nats a token."""

Strategy = Callable[[Table, int], list[float]]
"""Returns the scores of its first runs on a table, from a seed."""

AFTER = (1, 2, 3, 5)
ALPHA, STEPS, ITEMS, SEEDS = 32, 780, 2000, 20
EXPONENTS = [n / 20 for n in range(17)]
SWEEP: dict[str, Any] = {
    "name": "real-runs", "model": "smollm2-135m-instruct", "objectives": {"perplexity": "minimize"},
    "data": {"train": "t.jsonl", "validation": "v.jsonl", "prompt": "{a}", "completion": " {b}", "metric": "perplexity"},
}  # fmt: skip
WIDTHS = {
    "Nemotron-3-Ultra": 8192, "Nemotron-3-Nano": 2688, "Kimi-K2": 7168, "DeepSeek-V3.1": 7168, "35B-A3B": 2048,
    "Qwen3.5-9B": 4096, "Qwen3.5-27B": 5120, "Qwen3.5-397B": 4096, "235B-A22B": 4096, "30B-A3B": 2048, "Qwen3-4B": 2560,
    "Qwen3-8B": 4096, "Llama-3.1-8B": 4096, "Llama-3.2-1B": 2048, "Llama-3.3-70B": 8192, "gpt-oss-20b": 2880,
}  # fmt: skip
"""Width of the hidden states, by a part of the model's name. Source: their published configurations."""


def width_of(model: str) -> int:
    """Return the width of a model's hidden states. Raises StopIteration where it is not known."""
    return next(width for part, width in WIDTHS.items() if part in model)


def tables(file: Path) -> dict[str, dict[Run, float]]:
    """Return the runs of each model."""
    found: dict[str, dict[Run, float]] = defaultdict(dict)
    with file.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            found[row["model"]][float(row["learning_rate"]), int(row["rank"])] = float(row["test_nll"])
    return dict(found)


def prior_with(exponent: float, width: int) -> Prior:
    """Return the prior mean with another exponent than the tool's."""
    known = -exponent * math.log10(max(width, USUAL_WIDTH) / USUAL_WIDTH)

    def prior(lora: Lora, shift: float = 0.0, steepness: float = 1.0) -> float:
        return prior_mean(lora, known + shift, steepness)

    return prior


def exponent_of(models: Mapping[str, Table]) -> float:
    """Return the exponent with which the run that promises most has the least mean regret; of several the middle one."""
    loras = {run: _lora(run) for table in models.values() for run in table}
    total = {}
    for exponent in EXPONENTS:
        total[exponent] = 0.0
        for model, table in models.items():
            prior = prior_with(exponent, width_of(model))
            first = max(table, key=lambda run: prior(loras[run], 0.0))
            total[exponent] += table[first] - min(table.values())
    least = min(total.values())
    return statistics.median(exponent for exponent, regret in total.items() if regret <= least + 1e-9)


def _lora(run: Run) -> Lora:
    """Return the settings of a run."""
    keys = {"r": run[1], "learning_rate": run[0], "alpha": ALPHA, "steps": STEPS}
    sweep = parse_sweep(SWEEP | {"space": {"lora": keys}})
    lora = next(iter(sweep.space.grid())).lora
    assert lora is not None
    return lora


def of_frontier(table: Table, prior: Prior, seed: int = 0) -> list[float]:
    """Return the scores of the first runs that `frontier` proposes."""
    rates, ranks = sorted({rate for rate, _ in table}), sorted({rank for _, rank in table})
    keys = {"r": {"choice": ranks}, "learning_rate": {"choice": rates}, "alpha": ALPHA, "steps": STEPS}
    sweep = parse_sweep(SWEEP | {"space": {"lora": keys}})
    strategy = Frontier(sweep.space, sweep.objectives, seed, ITEMS, Levers(rungs=False), prior)
    for adapter in strategy.observations.adapters.values():
        adapter.in_space = (adapter.lora.learning_rate, adapter.lora.r) in table
    scores: list[float] = []
    while len(scores) < min(max(AFTER), len(table)) and (proposals := strategy.ask(1, ())):
        lora = proposals[0].candidate.lora
        assert lora is not None
        scores.append(table[lora.learning_rate, lora.r])
        measured = {"perplexity": math.exp(scores[-1])}
        told = Told(tuple(measured.values()), {}, measured, None, {"train": 60.0, "score": 5.0}, 1.0, ITEMS)
        strategy.tell(proposals[0], told)
    return scores


def of_random(table: Table, seed: int) -> list[float]:
    """Return the scores of runs that are drawn."""
    return random.Random(seed).sample(list(table.values()), min(max(AFTER), len(table)))


def of_tpe(table: Table, seed: int) -> list[float]:
    """Return the scores of the first runs that Optuna's TPE proposes; what has no run, or had one, is no run."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=1))
    rates, ranks = sorted({rate for rate, _ in table}), sorted({rank for _, rank in table})
    seen: dict[Run, float] = {}
    for _ in range(200):
        if len(seen) >= min(max(AFTER), len(table)):
            break
        trial = study.ask()
        run = trial.suggest_categorical("rate", rates), trial.suggest_categorical("rank", ranks)
        if run not in table:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            continue
        seen.setdefault(run, table[run])
        study.tell(trial, table[run])
    return list(seen.values())


def of_formula(model: str, table: Table, goes_on: bool) -> list[float]:
    """Return the scores of the published formula: at rank 32, or at the largest rank and then at the nearest rates."""
    name = model.lower()
    power = 0.781 if "llama" in name else 0.0775 if "qwen" in name else 0.0
    rate = 5e-4 * (2000 / width_of(model)) ** power
    largest = max(rank for _, rank in table)

    def away(run: Run) -> tuple[float, float]:
        return abs(math.log(run[1] / (largest if goes_on else 32))), abs(math.log(run[0] / rate))

    runs = sorted(table, key=away)
    return [table[run] for run in (runs if goes_on else runs[:1])]


def regrets(scores: Sequence[float], table: Table) -> list[float]:
    """Return the regret after each of `AFTER` runs, nats a token."""
    return [min(scores[:count]) - min(table.values()) for count in AFTER]


def measured(models: Mapping[str, Table]) -> dict[str, list[list[float]]]:
    """Return the regrets of each strategy, model by model."""
    found: dict[str, list[list[float]]] = defaultdict(list)
    for model, table in models.items():
        others = {name: own for name, own in models.items() if name != model}
        fitted = prior_with(exponent_of(others), width_of(model))
        found["frontier"].append(regrets(of_frontier(table, fitted), table))
        found["frontier, usual width"].append(regrets(of_frontier(table, prior_mean), table))
        found["formula"].append(regrets(of_formula(model, table, goes_on=False), table))
        found["formula, then on"].append(regrets(of_formula(model, table, goes_on=True), table))
        drawn: dict[str, Strategy] = {"tpe": of_tpe, "random": of_random}
        for name, strategy in drawn.items():
            each = [regrets(strategy(table, seed), table) for seed in range(SEEDS)]
            found[name].append([statistics.fmean(column) for column in zip(*each, strict=True)])
    return found


def report(models: Mapping[str, Table]) -> str:
    """Return the page."""
    lines = [
        "# LoRA runs of 23 models by others",
        "",
        "Made by `python -m benchmarks.search.real_runs --write`, whose docstring says what is compared. Mean regret over the",
        f"models after so many runs, thousandths of a nat a token; {len(models)} models, one left out at a time.",
        "",
        "| strategy | " + " | ".join(f"{count} run{'s' * (count > 1)}" for count in AFTER) + " | most, after 2 |",
        "|---|" + "--:|" * (len(AFTER) + 1),
    ]
    for name, each in measured(models).items():
        means = [f"{1000 * statistics.fmean(column):.2f}" for column in zip(*each, strict=True)]
        lines.append(f"| {name} | {' | '.join(means)} | {1000 * max(one[1] for one in each):.1f} |")
    lines += ["", f"Fitted to all models the exponent is {exponent_of(models):.3g}; the tool has {WIDTH_EXPONENT}.", ""]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print, and write where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write measured/real_runs.md")
    asked = parser.parse_args(arguments)
    data: Any = os.environ.get("AUTOTUNE_TEST_DATA", Path(__file__).parents[3] / "shared" / "data")
    text = report(tables(Path(data) / "lora_sweeps" / "runs.csv"))
    sys.stdout.write(text)
    if asked.write:
        (Path(__file__).parents[1] / "measured" / "real_runs.md").write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
