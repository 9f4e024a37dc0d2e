"""Write the page of `benchmarks.olive_side_by_side` from its measurements: one configuration run by Olive and by autotune."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from autotune.analysis.statistics import t_interval, welch_p
from autotune.machine import hardware
from benchmarks.olive_in_its_place import PATCHES

STEPS, ITEMS, LAST = 32, 400, 8
"""Of a training; phrases that a model is scored on; steps at the end that a loss is the mean of."""
BLOCK, BLOCKS = 512, 16
"""Where rows are joined: tokens of a block, and steps of one block each."""
ONE_ROW = "space.lora.batch_size=1"
JUDGED = 200
"""Phrases of validation that `autotune run` scores a candidate on."""
DIFFERENCES = (
    (
        "around a text",
        "begin mark, space, text, space, end mark (`add_special_tokens`, on where a file is silent)",
        "text, end mark: a built model is given its prompt without a mark",
    ),
    ("which texts share a batch", "drawn at random", "texts of similar length, of which 64 are drawn at random"),
    (
        "first weights of the adapter",
        "drawn before a seed is set: others in each run",
        "drawn from the seed: equal in each run",
    ),
)
"""What differs between the two trainings, found by reading both: where, Olive's, ours."""
SAME = (
    "The rest is the same: the texts, full batches, no padding in the loss, the loss on the whole text as the mean over its tokens, "
    "AdamW (0.9, 0.999, no decay), gradients clipped at 1.0, a constant learning rate, float32, no dropout, and what is merged "
    "and built."
)


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
        f"`autotune run` takes the same file. PyTorch has one thread on both sides. All models are scored by `autotune score` on the "
        f"same {ITEMS} phrases.", "",
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
    if not olive[0]["built"]:
        return "\n".join([*lines, "", f"With that it ends with `{olive[0]['error']}`, and builds no model.", ""])
    lines += [
        "", "## Side by side", "", "| | Olive, patched | autotune |", "|---|--:|--:|",
        f"| training, s | {_seconds(olive[0], 'lora')} | {_seconds(us[0], 'train')} |",
        f"| merging, s | {_seconds(olive[0], 'merge')} | {_seconds(us[0], 'merge')} |",
        f"| building, s | {_seconds(olive[0], 'build')} | {_seconds(us[0], 'build')} |",
        f"| the build compared with PyTorch, s | not done | {_seconds(us[0], 'check')} |",
        f"| scored on {JUDGED} phrases, s | not done | {_seconds(us[0], 'score')} |",
        f"| timed in fresh processes, s | not done | {_seconds(us[0], 'time')} |",
        f"| the whole command, s | {olive[0]['wall_s']:.0f} | {us[0]['wall_s']:.0f} |",
        f"| load average before, after | {_load(olive[0])} | {_load(us[0])} |",
        f"| MB of the built model | {steps['score olive'][0]['size_mb']:.1f} | {steps['score us'][0]['size_mb']:.1f} |",
        "",
        "Our command also measures the untouched model and times the finalists in turns; Olive's does neither.", "",
        "## What the trained models are worth", "",
    ]  # fmt: skip
    return "\n".join([*lines, *worth(steps), *about_joined(steps["joined"])])


def worth(steps: Mapping[str, Any]) -> list[str]:
    """Return the lines about accuracy: each seed, the means, whether they differ, and what differs in the trainings."""
    values = {
        kind: [[found["value"] for found in steps[f"{kind} {side}"]] for side in ("olive", "us")]
        for kind in ("unbuilt", "score")
    }
    lines = [
        f"Accuracy on test, with its 95 % interval: of the adapter on its base in PyTorch, and of the model built at int4. The loss "
        f"is that of the last {LAST} steps, in nats a token; Olive's is lower because it counts the marks and spaces around a text.",
        "",
        "| seed | Olive: loss | in PyTorch | at int4 | autotune: loss | in PyTorch | at int4 |",
        "|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for seed in range(len(steps["us"])):
        cells = (
            f"{steps[side][seed]['loss']:.2f} | {_score(steps[f'unbuilt {side}'][seed])} | {_score(steps[f'score {side}'][seed])}"
            for side in ("olive", "us")
        )
        lines.append(f"| {seed} | {' | '.join(cells)} |")
    said = [_compared(name, *values[kind]) for kind, name in (("unbuilt", "In PyTorch"), ("score", "At int4"))]
    number = steps["graphs"]
    graphs = (
        "one file on both sides: only weights differ" if number == 1 else f"{number} files: not only weights differ"
    )
    return [*lines, "", *said, f"The graphs that are built (`model.onnx`) are {graphs}.", "", *_differences()]


def _compared(where: str, olive: Sequence[float], us: Sequence[float]) -> str:
    """Return a sentence about two means over seeds, and whether their difference is more than that of two seeds."""
    means = sum(olive) / len(olive), sum(us) / len(us)
    said = f"{where} the mean of {len(us)} seeds is {means[0]:.3f} with Olive and {means[1]:.3f} with ours"
    if min(len(olive), len(us)) < 2:
        return f"{said}."
    halves = [(found.high - found.low) / 2 for found in (t_interval(olive), t_interval(us))]
    p = welch_p(means[0] - means[1], halves[0], len(olive), halves[1], len(us))
    spread = max(max(side) - min(side) for side in (olive, us))
    verdict = (
        "the two sides differ"
        if p < 0.05
        else f"no difference of the two sides is shown; seeds of one side are up to {spread:.3f} apart"
    )
    return f"{said}: by Welch's test p is {p:.2f}, so that {verdict}."


def _differences() -> list[str]:
    lines = [
        "What differs between the two trainings, by reading both:",
        "",
        "| | Olive | autotune |",
        "|---|---|---|",
    ]
    lines += [f"| {where} | {theirs} | {ours} |" for where, theirs, ours in DIFFERENCES]
    return [*lines, "", SAME, ""]


def about_joined(sides: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the lines about a file whose rows Olive joins: by Olive, by us, and by us with one row a step."""
    rows: list[tuple[str, Callable[[Mapping[str, Any]], str]]] = [
        ("rows in a batch", lambda one: str(one.get("batch", f"a block of {BLOCK} tokens"))),
        (f"loss of the last {LAST} of {BLOCKS} steps", lambda one: f"{one['loss']:.2f}"),
        ("accuracy on test in PyTorch", lambda one: _score(one["unbuilt"])),
        ("at int4", lambda one: _score(one["score"])),
    ]
    lines = [
        "## Where rows are joined", "",
        f"With `strategy: join`, as in the published guide's files and where a file is silent, Olive joins the rows and cuts them into "
        f"blocks. Here the file asks for {BLOCKS} steps of one block of {BLOCK} tokens. A row stays a text of its own in ours, and a "
        "batch takes as many rows as its blocks would hold; the last column is what the file's own batch size would do with rows.", "",
        f"| | Olive, patched | autotune | autotune with `--set {ONE_ROW}` |", "|---|--:|--:|--:|",
    ]  # fmt: skip
    lines += [f"| {name} | {' | '.join(cell(sides[side]) for side in sides)} |" for name, cell in rows]
    return [*lines, ""]


def _load(about: Mapping[str, Any]) -> str:
    before, after = about["load"]
    return f"{before:.1f}, {after:.1f}"


def _score(found: Mapping[str, Any]) -> str:
    return f"{found['value']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"
