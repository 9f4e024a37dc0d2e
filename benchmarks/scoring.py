"""How fast are label choices scored, against lm-evaluation-harness's own `onnxruntime-genai` backend and the processor?

    python -m benchmarks.scoring MODEL_FOLDER [--data ../shared/data/snips/validation.jsonl] [--items 500] [--write]

Needs the `bench` extra. Both score the same items on the same built model with the same threads, in turns, in one
process; the ratio is taken in every round, so that a busy machine disturbs both sides of it. Then: whose predictions
differ, and by how little; perplexity of both on the same texts; and the share reached of what the processor does when it
multiplies matrices of the model's own shapes (512 rows at a time) and does nothing else.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import onnx
import onnxruntime as ort
from lm_eval.api.instance import Instance
from lm_eval.models.onnxruntime_genai import ONNXRuntimeGenAILM
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from autotune.stages.backends import OnnxBackend
from autotune.stages.score import choose_labels, completion_nll, label_tokens
from autotune.stages.text import Encoded, encode, load_tokenizer

PROMPTS = {"text": "Request: {}\nIntent:", "banking": "Customer: {}\nIntent:"}


def read(file: Path, count: int) -> tuple[list[dict[str, str]], tuple[str, ...]]:
    """Return items spread over a data file (snips' JSON lines, banking77's CSV) and all its labels."""
    with file.open(encoding="utf-8", newline="") as stream:
        if file.suffix == ".csv":
            rows = [(row["text"], row["category"]) for row in csv.DictReader(stream)]
        else:
            rows = [(row["text"], row["intent"]) for row in map(json.loads, stream)]
    prompt = PROMPTS["banking" if file.suffix == ".csv" else "text"]
    picked = [rows[k * len(rows) // count] for k in range(min(count, len(rows)))]
    items = [
        {"id": str(k), "prompt": prompt.format(text), "completion": f" {label}"}
        for k, (text, label) in enumerate(picked)
    ]
    return items, tuple(sorted({f" {label}" for _, label in rows}))


class Counted(OnnxBackend):
    """Counts what is run: tokens (with padding), and positions given to the head."""

    tokens = 0
    head_rows = 0

    def call(self, ids: Any, lengths: Any, read: Any, cache: Any, keep: bool) -> Any:
        """Count and call."""
        self.tokens += ids.size
        self.head_rows += len(read)
        return super().call(ids, lengths, read, cache, keep)


def harness(folder: Path, threads: int, into: Path) -> ONNXRuntimeGenAILM:
    """Return the harness's model on the same files; its settings differ in the number of threads alone."""
    for file in folder.iterdir():
        (into / file.name).symlink_to(file.resolve())
    settings = json.loads((folder / "genai_config.json").read_text(encoding="utf-8"))
    settings["model"]["decoder"].setdefault("session_options", {})["intra_op_num_threads"] = threads
    (into / "genai_config.json").unlink()
    (into / "genai_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return ONNXRuntimeGenAILM(pretrained=str(into), execution_provider="cpu")


def likelihoods(lm: ONNXRuntimeGenAILM, pairs: list[tuple[str, str]]) -> list[float]:
    """Return the harness's log-likelihood of each continuation of each context."""
    requests = [Instance("loglikelihood", {}, pair, k) for k, pair in enumerate(pairs)]
    return [value for value, _ in lm.loglikelihood(requests, disable_tqdm=True)]


def products(folder: Path) -> tuple[Counter[tuple[Any, ...]], tuple[Any, ...]]:
    """Return the matrix products with weights at every position, (kind, K, N, attributes) counted, and the head's."""
    graph = onnx.load(str(folder / "model.onnx"), load_external_data=False).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    found: Counter[tuple[Any, ...]] = Counter()
    head: tuple[Any, ...] = ()
    for node in graph.node:
        key: tuple[Any, ...]
        if node.op_type == "MatMulNBits":
            given = {a.name: helper.get_attribute_value(a) for a in node.attribute}
            key = ("MatMulNBits", given["K"], given["N"], given["bits"], given["block_size"], given["accuracy_level"])
        elif node.op_type == "MatMul" and len(shapes.get(node.input[1], ())) == 2:
            key = ("MatMul", *shapes[node.input[1]])
        elif node.op_type == "MatMul" and "logits" in node.output:  # tied to the embedding, through a Transpose
            rows, columns = max(shapes.values(), key=math.prod)
            key = ("MatMul", columns, rows)
        else:
            continue
        if "logits" in node.output:
            head = key
        else:
            found[key] += 1
    return found, head


def one_product(key: tuple[Any, ...], rows: int, threads: int) -> Any:
    """Return a function that multiplies a matrix of `rows` rows with random weights of one of the model's shapes."""
    kind, k, n = key[:3]
    rng = np.random.default_rng(0)
    if kind == "MatMul":
        weights: dict[str, NDArray[Any]] = {"b": rng.standard_normal((k, n), dtype=np.float32)}
        given: dict[str, Any] = {}
    else:
        bits, block, level = key[3:]
        blocks = math.ceil(k / block)
        weights = {
            "b": rng.integers(0, 256, (n, blocks, block * bits // 8), dtype=np.uint8),
            "scales": rng.random((n * blocks,), dtype=np.float32),
        }
        given = {"K": k, "N": n, "bits": bits, "block_size": block, "accuracy_level": level, "domain": "com.microsoft"}
    node = helper.make_node(kind, ["a", *weights], ["y"], **given)
    a = helper.make_tensor_value_info("a", TensorProto.FLOAT, ["m", k])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["m", n])
    held = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(helper.make_graph([node], "one", [a], [y], held), opset_imports=opsets, ir_version=10)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    values = {"a": rng.standard_normal((rows, k), dtype=np.float32)}
    return lambda: session.run(["y"], values)


def seconds(function: Any, times: int = 5) -> float:
    """Return the median processor time of some calls, of all threads together."""
    function()
    found = []
    for _ in range(times):
        start = time.process_time()
        function()
        found.append(time.process_time() - start)
    return statistics.median(found)


def operations(key: tuple[Any, ...]) -> int:
    """Return the operations of a product for one row."""
    return 2 * int(key[1]) * int(key[2])


def perplexity(nll: list[float], tokens: int) -> float:
    """Return the perplexity of texts from their negative log-likelihoods (nats)."""
    return math.exp(sum(nll) / tokens)


@dataclass
class Sides:
    """Both sides of the comparison on one model, and their answers so far."""

    items: list[dict[str, str]]
    labels: tuple[str, ...]
    tokenizer: Any
    tokens: Any
    """The tokens of each label."""
    ours: Counted
    lm: ONNXRuntimeGenAILM
    chosen: list[int] = field(default_factory=list)
    """The label that autotune predicts for each item."""
    theirs: list[list[float]] = field(default_factory=list)
    """The harness's log-likelihood of each label of each item."""

    def encoded(self, items: list[dict[str, str]]) -> Any:
        """Return items as autotune encodes them."""
        return encode(self.tokenizer, items, 4096, max(map(len, self.tokens)))[0]

    def warm_up(self) -> None:
        """Let both score a little."""
        likelihoods(self.lm, [(self.items[0]["prompt"], self.labels[0])])
        choose_labels(self.ours, self.encoded(self.items[:8]), self.tokens)

    def score(self, who: str, part: list[dict[str, str]]) -> None:
        """Let one side choose among the labels of some items."""
        if who == "ours":
            self.chosen += choose_labels(self.ours, self.encoded(part), self.tokens)[0]
        else:
            found = likelihoods(self.lm, [(item["prompt"], label) for item in part for label in self.labels])
            self.theirs += np.array(found).reshape(len(part), -1).tolist()


class Alone:
    """The model's matrix products alone: how many it does, and how long one row takes."""

    def __init__(self, folder: Path, threads: int) -> None:
        self.body, self.head = products(folder)
        self.probes = {key: one_product(key, 512, threads) for key in (*self.body, self.head)}
        self.square = one_product(("MatMul", 2048, 2048), 2048, threads)

    def operations(self, run: int, read: int) -> int:
        """Return the operations of `run` tokens of which `read` go through the head."""
        return run * sum(operations(key) * n for key, n in self.body.items()) + read * operations(self.head)

    def seconds(self, run: int, read: int) -> float:
        """Return the processor seconds of the same products, measured now."""
        spent = {key: seconds(probe) / 512 for key, probe in self.probes.items()}
        return run * sum(spent[key] * n for key, n in self.body.items()) + read * spent[self.head]


@dataclass(frozen=True)
class Turn:
    """One round, in which both sides score the same items."""

    items: int
    took: dict[str, float]
    """Seconds, by side."""
    used: dict[str, float]
    """Processor seconds, by side."""
    run: int
    """Tokens that autotune runs, padding included."""
    read: int
    """Rows that it gives to the head."""
    done: int
    """Operations of its products."""
    least: float
    """Processor seconds of the same products alone."""
    float32: float
    """Operations a processor second of a square product."""

    @property
    def ratio(self) -> float:
        """How many times the harness's items a second."""
        return self.took["theirs"] / self.took["ours"]

    @property
    def processor(self) -> float:
        """The same by processor time."""
        return self.used["theirs"] / self.used["ours"]

    @property
    def share(self) -> float:
        """The share of autotune's processor time that the products alone take."""
        return self.least / self.used["ours"]

    def row(self, number: int) -> str:
        """Return the round as a row of the table."""
        n, took, used = self.items, self.took, self.used
        return (
            f"| {number} | {n / took['theirs']:.2f} | {n / took['ours']:.2f} | {self.ratio:.2f} | "
            f"{used['theirs'] / n:.3f} | {used['ours'] / n:.3f} | {self.processor:.2f} | "
            f"{self.run / n:.1f} + {self.read / n:.1f} | {self.done / n / 1e9:.2f} | "
            f"{self.done / used['ours'] / 1e9:.0f} | {self.done / self.least / 1e9:.0f} | {self.float32 / 1e9:.0f} | {self.share:.0%} |"
        )


def turn_of(sides: Sides, alone: Alone, part: list[dict[str, str]], order: Sequence[str]) -> Turn:
    """Let both sides score some items, in this order."""
    took, used = {}, {}
    for who in order:
        sides.ours.tokens = sides.ours.head_rows = 0
        start, busy = time.perf_counter(), time.process_time()
        sides.score(who, part)
        if who == "ours":
            run, read_ = sides.ours.tokens, sides.ours.head_rows
        took[who], used[who] = time.perf_counter() - start, time.process_time() - busy
    least, square_s = alone.seconds(run, read_), seconds(alone.square, 3)
    return Turn(len(part), took, used, run, read_, alone.operations(run, read_), least, 2 * 2048**3 / square_s)


def speed(turns: Sequence[Turn], args: argparse.Namespace, sides: Sides) -> list[str]:
    """Return the table of the rounds, and what it says."""
    ratios, processor = [turn.ratio for turn in turns], [turn.processor for turn in turns]
    count = len(sides.items)
    return [
        f"## {args.name or args.folder.name}, {args.data.parent.name}: {count} items, {len(sides.labels)} labels, "
        f"{args.threads} threads",
        "",
        f"`python -m benchmarks.scoring MODEL --data {args.data.name} --items {count} --rounds {args.rounds}`; "
        f"load average {os.getloadavg()[0]:.1f} at the end."
        if hasattr(os, "getloadavg")
        else "",
        "",
        "| round | harness, items/s | autotune, items/s | ratio | harness, processor s an item | autotune | ratio | tokens "
        "run + rows through the head, an item | 10^9 operations an item | 10^9 per processor second | the same products "
        "alone | a 2,048-square float32 product | share of the products alone |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
        *(turn.row(number) for number, turn in enumerate(turns, 1)),
        "",
        f"- **{statistics.median(ratios):.1f} times** the harness's items per second (median of {args.rounds} rounds; "
        f"{min(ratios):.1f} to {max(ratios):.1f}); by processor time, which other jobs disturb less, "
        f"{statistics.median(processor):.1f} times ({min(processor):.1f} to {max(processor):.1f}). It is "
        f"{statistics.median(turn.share for turn in turns):.0%} of what the processor reaches where it only multiplies such matrices.",
    ]


def predictions(sides: Sides) -> tuple[list[str], float]:
    """Return on which items the predictions differ, and by how little; and the share on which they agree."""
    items, labels, chosen, theirs = sides.items, sides.labels, sides.chosen, sides.theirs
    encoded = sides.encoded(items)
    differing = [k for k, row in enumerate(theirs) if int(np.argmax(row)) != chosen[k]]
    agreement = 1 - len(differing) / len(items)
    right = [sum(labels[c] == i["completion"] for c, i in zip(which, items, strict=True)) / len(items)
             for which in (chosen, [int(np.argmax(row)) for row in theirs])]  # fmt: skip
    lines = [
        f"- Predictions agree on {agreement:.2%} of the items ({len(differing)} differ); accuracy {right[0]:.3f}, the "
        f"harness's {right[1]:.3f}."
    ]
    for k in differing:
        own = [
            -v for v in completion_nll(sides.ours, [Encoded("", encoded[k].prompt, one, "") for one in sides.tokens])
        ]
        a, b = chosen[k], int(np.argmax(theirs[k]))
        same = all(
            sides.lm.tok_encode(items[k]["prompt"] + label) == [*encoded[k].prompt, *label_ids]
            for label, label_ids in zip(labels, sides.tokens, strict=True)
        )
        lines.append(
            f"  - {items[k]['prompt']!r}: autotune{labels[a]}, harness{labels[b]}. Lead of the first over the second (nats): "
            f"label by label in one pass each {own[a] - own[b]:+.4f}, harness {theirs[k][a] - theirs[k][b]:+.4f}; "
            f"the tokens are {'the same' if same else 'not the same'}."
        )
    return lines, agreement


def perplexities(sides: Sides, split: list[tuple[str, str]], text_theirs: list[float]) -> tuple[list[str], bool]:
    """Return the perplexities of both on the labels and on the requests, and whether they are the same.

    `split`: the beginning and the rest of each request; `text_theirs`: the harness's negative log-likelihoods of the rests.
    """
    items, tokenizer = sides.items, sides.tokenizer
    gold_theirs = [-row[sides.labels.index(item["completion"])] for row, item in zip(sides.theirs, items, strict=True)]
    plain = [
        Encoded("", tuple(tokenizer.encode(lead)), tuple(tokenizer.encode(rest, add_special_tokens=False)), rest)
        for lead, rest in split
    ]
    lines, same = [], True
    for what, theirs_nll, texts in (
        ("the labels after their prompts", gold_theirs, sides.encoded(items)),
        ("the requests", text_theirs, plain),
    ):
        count = sum(len(item.completion) for item in texts)
        mine, other = perplexity(completion_nll(sides.ours, texts), count), perplexity(theirs_nll, count)
        lines.append(
            f"- Perplexity of {what} ({count} tokens): {mine:.5f}, the harness's {other:.5f}: {mine / other - 1:+.4%}."
        )
        same = same and abs(mine / other - 1) <= 1e-3
    return lines, same


def arguments() -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(description="Time the scoring of label choices beside lm-evaluation-harness.")
    parser.add_argument("folder", type=Path, help="a built model")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/snips/validation.jsonl"))
    parser.add_argument("--items", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--name", default="", help="what the model is called in the report")
    parser.add_argument("--write", action="store_true", help="append to benchmarks/measured/scoring.md")
    return parser.parse_args()


def main() -> int:
    """Print the tables. Returns 0 where the claims hold."""
    args = arguments()
    items, labels = read(args.data, args.items)
    tokenizer = load_tokenizer(args.folder)
    ours, alone = Counted(args.folder, "cpu", args.threads), Alone(args.folder, args.threads)
    turns: list[Turn] = []
    with tempfile.TemporaryDirectory() as place:
        lm = harness(args.folder, args.threads, Path(place))
        sides = Sides(items, labels, tokenizer, label_tokens(tokenizer, labels), ours, lm)
        sides.warm_up()
        for number in range(args.rounds):
            part = items[number * len(items) // args.rounds : (number + 1) * len(items) // args.rounds]
            turns.append(turn_of(sides, alone, part, ("ours", "theirs") if number % 2 else ("theirs", "ours")))
            print(turns[-1].row(number + 1), flush=True)
        texts = [item["prompt"].split(":", 1) for item in items]
        split = [(f"{lead}:", rest.rsplit("\n", 1)[0]) for lead, rest in texts]
        text_theirs = [-value for value in likelihoods(lm, split)]
    told, agreement = predictions(sides)
    on_texts, same = perplexities(sides, split, text_theirs)
    report = "\n".join([*speed(turns, args, sides), *told, *on_texts])
    print(report)
    if args.write:
        with Path("benchmarks/measured/scoring.md").open("a", encoding="utf-8") as file:
            file.write(report + "\n\n")
    return 0 if statistics.median(turn.ratio for turn in turns) >= 5 and agreement >= 0.995 and same else 1


if __name__ == "__main__":
    sys.exit(main())
