"""The columns of the tables: one list for each table decides header, order, types and documentation."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from autotune.candidate import Lora, Recipe, Session
from autotune.metrics import METRICS, PER_WORKLOAD
from autotune.space.own_stages import OWN_STAGES
from autotune.space.parameter_tables import LORA, RECIPE, SESSION

Cell = str | int | float | bool | None
Cells = dict[str, Cell]
"""Some cells of a row by column: what a stage has measured, or a candidate's settings."""

STATUSES = {
    "ok": "fully measured; whether it keeps the limits is judged on reading",
    "over_limit": "given up unmeasured, because a limit was certain to break",
    "stopped": "left by the strategy at a rung or on some of the items, and perhaps taken up again later",
    "diverged": "the training loss or the weights became infinite or not a number",
    "out_of_memory": "the machine's memory or the GPU's did not suffice",
    "timeout": "a stage ran past its time",
    "failed": "a stage failed, or built something else than was asked",
    "unsupported": "the builder, the runtime or the model cannot do this",
    "lost": "a worker was lost through no fault of the candidate; it is tried again",
}


@dataclass(frozen=True)
class Column:
    """One column of a table: its type is what a filled cell holds."""

    name: str
    type: type
    meaning: str
    low: float = -math.inf
    high: float = math.inf
    """A number must lie between `low` and `high`."""


def _settings() -> list[Column]:
    lora = [
        Column(f"lora_{name}", LORA[name].type, LORA[name].meaning) for name in Lora.model_fields if name != "loss_on"
    ]
    own = [name for name in Recipe.model_fields if name not in OWN_STAGES]
    return lora + [Column(f"build_{name}", RECIPE[name].type, RECIPE[name].meaning) for name in own]


FIRST_SCORES = ("accuracy", "exact_match", "f1", "perplexity")
"""The scores of the first version, whose columns stand together; columns of later scores are at the end."""


def _scores(first: bool) -> list[Column]:
    columns = []
    for metric in METRICS.values():
        if metric.kind == "score" and (metric.name in FIRST_SCORES) == first:
            low = -math.inf if metric.turns else 0.0
            high = 1.0 if metric.name in _PROPORTIONS else math.inf
            columns += [
                Column(metric.name, float, f"{metric.meaning}, on validation", low, high),
                Column(f"{metric.name}_low", float, "lower end of its 95 % interval", low, high),
                Column(f"{metric.name}_high", float, "upper end of its 95 % interval", low, high),
                Column(f"{metric.name}_n", int, "items behind it", 1, 1e9),
            ]
    return columns


_PROPORTIONS = ("accuracy", "exact_match", "f1", "f1_micro", "rouge_l")


LATENCY = (
    Column("ttft_ms_p50", float, METRICS["ttft_ms_p50"].meaning),
    Column("ttft_ms_p90", float, METRICS["ttft_ms_p90"].meaning + "; empty below 64 samples"),
    Column("itl_ms_p50", float, METRICS["itl_ms_p50"].meaning + " (mean over processes of each one's median)"),
    Column("itl_ms_p50_low", float, "lower end of its 95 % interval over processes"),
    Column("itl_ms_p50_high", float, "upper end of its 95 % interval over processes"),
    Column("itl_ms_p90", float, METRICS["itl_ms_p90"].meaning + "; empty below 64 samples"),
    Column("decode_tps", float, METRICS["decode_tps"].meaning),
    Column("graph", str, "signature of the ONNX graph without its weights, that the latency belongs to"),
    Column("size_mb", float, METRICS["size_mb"].meaning),
    Column("peak_memory_mb", float, METRICS["peak_memory_mb"].meaning),
    Column("load_s", float, METRICS["load_s"].meaning),
)

CONDITIONS = (
    Column("load_avg", float, "load average of the last minute when it was timed, mean over processes", 0.0),
    Column("foreign_cpu", float, "cores that other programs kept busy meanwhile, mean over processes", 0.0),
    Column("cpu_mhz", float, "clock of the processor when it was timed, as far as the system tells, MHz", 0.0),
    Column("gpu_processes", float, "other processes on the GPU when it was timed, mean over processes", 0.0),
)

SERVED = (
    Column("gpu_memory_mb", float, METRICS["gpu_memory_mb"].meaning + "; empty where no NVIDIA GPU serves it"),
    Column(
        "threads", int, "threads that one operator was shared among, as counted in the process that was timed (CPU)", 1
    ),
)

SPREAD = (
    Column("processes", int, "fresh processes behind the timing", 1),
    *(
        Column(f"{name}_{end}", float, f"{which} end of the 95 % interval of {name} over processes")
        for name in (
            "ttft_ms_p50",
            "ttft_ms_p90",
            "itl_ms_p90",
            "decode_tps",
            "peak_memory_mb",
            "load_s",
            "gpu_memory_mb",
        )
        for end, which in (("low", "lower"), ("high", "upper"))
    ),
)
"""The uncertainty of a timing; the interval of `itl_ms_p50` stands beside its column."""

ON_PROVIDER = (
    Column(
        "warm_up_s",
        float,
        "what the first sequence took in a fresh process, in which shaders are compiled and engines built, seconds, mean "
        "over processes; no latency holds it",
        0.0,
    ),
    Column(
        "provider_share",
        float,
        "share of the nodes with weights and of attention that the execution provider took; the CPU ran the others; empty "
        "on the CPU",
        0,
        1,
    ),
)
"""The columns about the execution provider."""

TIMING = frozenset(column.name for column in (*LATENCY, *SERVED, *CONDITIONS, *SPREAD, ON_PROVIDER[0]))
"""The columns that a timing fills."""

STAGES = {
    "train": "training",
    "merge": "merging",
    "build": "building",
    "score": "scoring",
    "time": "timing",
    "check": "checking",
}
"""The stages with a column for their cost, and the words for them."""

COLUMNS: tuple[Column, ...] = (
    Column("candidate", str, "digest of the settings: the candidate's name"),
    Column(
        "trial",
        int,
        "number of the trial in this sweep, from 1; a `stopped` row was on the way to the trial of its number, and does not count; 0: the untouched model, which limits refer to: at fp32, or what is most exact on the provider",
        0,
    ),
    Column("attempt", int, "number of the attempt at this candidate, from 1; the last one counts"),
    Column("kind", str, "base: the untouched model in a recipe; adapter: without a recipe; pair: adapter and recipe"),
    Column("status", str, "; ".join(f"{name}: {meaning}" for name, meaning in STATUSES.items())),
    Column("error", str, "one line, where the status is not ok"),
    Column("started", str, "ISO 8601, UTC"),
    Column("ended", str, "ISO 8601, UTC"),
    *_settings(),
    *_scores(first=True),
    *LATENCY,
    Column("adapter", str, "key of the adapter in the cache"),
    Column("train_steps", int, "optimiser steps done"),
    Column("train_loss", float, "training loss over the last tenth of the steps, nats a token"),
    *(
        Column(f"cost_{stage}_s", float, f"seconds that this row spent on {what}; empty where it came from the cache")
        for stage, what in STAGES.items()
        if stage != "check"
    ),
    Column("cached", str, "stages whose result was there already, joined by +"),
    Column("wall_s", float, "wall-clock of this attempt, seconds, whatever the clock of the machine said"),
    *_scores(first=False),
    Column("score_name", str, "what custom or lm_eval stands for: module:function, or lm-eval:task"),
    Column("score_direction", str, "maximize or minimize: which way custom or lm_eval is better in this sweep"),
    Column(
        "kl_nats", float, "mean KL divergence of the build's next-token distributions from PyTorch's, nats a token", 0
    ),
    Column("greedy_agreement", float, "share of positions with the same most likely token as in PyTorch", 0, 1),
    Column("check_items", int, "held-out texts on which the build was compared with PyTorch", 1),
    Column(
        "cost_check_s", float, f"seconds that this row spent on {STAGES['check']}; empty where it came from the cache"
    ),
    Column(
        "pace",
        str,
        "names the machine and a period in which its speed did not change; only timings with the same value are compared",
    ),
    *CONDITIONS,
    *SERVED,
    *(
        Column(f"session_{name}", SESSION[name].type, f"{SESSION[name].meaning}; empty: as the target says")
        for name in Session.model_fields
    ),
    Column("rung", float, "share of its steps that the adapter was trained to; empty: all", 0, 1),
    Column("items", int, "validation items that the strategy asked for; empty: all", 0),
    Column(
        "probability",
        float,
        "mean probability of the right label on validation, where the metric chooses among labels: it ranks adapters before they are trained to the end",
        0,
        1,
    ),
    Column(
        "prompts_cut", int, "validation prompts, of all, that lost their beginning because train.max_length is short", 0
    ),
    Column(
        "train_cut", int, "training prompts, of all, that lost their beginning because train.max_length is short", 0
    ),
    *SPREAD,
    Column("target", str, "the target that the row was measured for; empty where the sweep has one"),
    Column(
        "merged", str, "key of the merged model in the cache; it may have been removed, and is made again in seconds"
    ),
    Column("built", str, "key of the build in the cache"),
    Column("lora_loss_on", str, "what the training loss was the mean of: completion or text; empty: completion"),
    *ON_PROVIDER,
    *(Column(f"build_{name}", str, RECIPE[name].meaning) for name in OWN_STAGES),
)
"""The columns of every sweep; several workloads add columns at the end, see `with_workloads`."""

FINALISTS: tuple[Column, ...] = (
    Column(
        "role",
        str,
        "winner: the model in best/; base: the untouched model; rival: could win by its scores, and was timed only",
    ),
    Column("candidate", str, "as in results.csv"),
    Column("split", str, "the items of the scores: test"),
    *(replace(c, meaning=c.meaning.replace("on validation", "on test")) for c in _scores(first=True)),
    *LATENCY,
    *(replace(c, meaning=c.meaning.replace("on validation", "on test")) for c in _scores(first=False)),
    *SERVED,
    *CONDITIONS,
    Column("itl_ratio", float, "time between tokens over the untouched model's, timed in turns", 0.0),
    Column("itl_ratio_low", float, "lower end of its 95 % interval over rounds", 0.0),
    Column("itl_ratio_high", float, "upper end of its 95 % interval over rounds", 0.0),
    Column("rounds", int, "rounds of the timing in turns: one fresh process of each finalist a round", 2),
    Column(
        "noise_floor",
        float,
        "share by which the winner's time between tokens may seem to differ from itself (A/A, timed in turns)",
        0.0,
    ),
    Column("prompts_cut", int, "test prompts, of all, that lost their beginning because train.max_length is short", 0),
    Column(
        "verified",
        bool,
        "whether best/, loaded by onnxruntime-genai alone in a process of its own and given the prompts as text, answers as is recorded; empty: not tried",
    ),
    Column("verified_items", int, "items on which that was tried", 0),
    Column("verify_error", str, "what differed, in one line, where verified is false"),
    *SPREAD,
    Column("target", str, "the target that it is a finalist of; empty where the sweep has one"),
)

CURVES: tuple[Column, ...] = (
    Column("adapter", str, "key of the adapter in the cache"),
    Column("step", int, "optimiser steps done"),
    Column("train_loss", float, "training loss of this step, nats a token"),
    Column("learning_rate", float, "learning rate of this step"),
    Column("metric", str, "name of the score, where the adapter was scored at this step"),
    Column("score", float, "that score on validation"),
    Column("score_n", int, "items behind it"),
)


RUNS: tuple[Column, ...] = (
    Column("started", str, "ISO 8601, UTC"),
    Column("wall_s", float, "wall-clock of this run of the command, seconds"),
    Column("stages_s", float, "of those, seconds inside stages"),
    Column("trials", int, "trials of this run"),
    Column("ended", str, "done; interrupted: Ctrl-C or SIGTERM; stopped: by an error; killed: found by the next run"),
    Column("rows", int, "rows of results.csv that counted when it ended: of each candidate the last attempt"),
)


TIMELINE: tuple[Column, ...] = (
    Column("stage", str, "what ran"),
    Column("began", float, "seconds since 1970, UTC"),
    Column("ended", float, "seconds since 1970, UTC"),
    Column("alone", bool, "whether nothing else might run on this host meanwhile: a timing"),
    Column("host", str, "the host of a cluster that it ran on; empty: the tuner's own"),
    Column("result", str, "of a copy from or to a shared cache (stage fetch or send): stage and key of the result"),
    Column("moved_mb", float, "of such a copy: what was copied, MB (10^6 bytes)"),
)


def _of_workload(name: str) -> Column | None:
    """Return the column of a metric in a workload (`itl_ms_p50@long`), or of an end of its interval; None for other names."""
    plain, at, workload = name.partition("@")
    metric = plain.removesuffix("_low").removesuffix("_high")
    column = next((column for column in (*LATENCY, *SERVED, *SPREAD) if column.name == plain), None)
    of_metric = metric in PER_WORKLOAD and f"{metric}{at}{workload}" in METRICS
    if column is None or not (of_metric or (plain == "processes" and f"itl_ms_p50{at}{workload}" in METRICS)):
        return None
    return replace(column, name=name, meaning=f"{column.meaning}, in the workload {workload}") if at else None


def with_workloads(columns: Sequence[Column], names: Iterable[str]) -> tuple[Column, ...]:
    """Return the columns, followed by those among `names` that hold a metric in one of several workloads."""
    known = {column.name for column in columns}
    more = (_of_workload(name) for name in dict.fromkeys(names) if name not in known)
    return (*columns, *filter(None, more))


def workload_names(suffix: str) -> list[str]:
    """Return the names of a workload's columns; `suffix` is `@long`."""
    names = [column.name for column in (*LATENCY, *SERVED, *SPREAD)]
    return [name + suffix for name in names if suffix and _of_workload(name + suffix)]


def in_workload(cells: Mapping[str, Cell], suffix: str) -> Cells:
    """Return the cells of a timing under a workload's names; `suffix` is `@long`, or empty for a sweep's first."""
    if not suffix:
        return dict(cells)
    return {name: cells[plain] for name in workload_names(suffix) if (plain := name.removesuffix(suffix)) in cells}


def bounds_of(column: Column) -> str:
    """Return the rule for a column's cells, in words."""
    name = _TYPE_NAMES[column.type]
    if math.isfinite(column.high):
        return f"{name} from {column.low:g} to {column.high:g}"
    return f"{name} of at least {column.low:g}" if math.isfinite(column.low) else name


_TYPE_NAMES = {str: "text", int: "whole number", float: "number", bool: "true or false"}


def markdown(columns: Sequence[Column]) -> str:
    """Return the table of columns for the docs."""
    lines = ["| column | type | what |", "|---|---|---|"]
    lines += [f"| `{c.name}` | {_TYPE_NAMES[c.type]} | {c.meaning} |" for c in columns]
    return "\n".join(lines) + "\n"
