"""What does `accuracy_level: 4` (8-bit activations in MatMulNBits) cost in answers, and what does it buy in time?

    python -m benchmarks.accuracy_level MODEL_FOLDER [--builds FOLDER] [--write]

MODEL_FOLDER is the built-in model as safetensors. Beside it, random models of the shapes of Qwen3-0.6B and
Phi-3.5-mini, with fewer layers, stand for models with massive activations (microsoft/onnxruntime#29849): a few channels of
the residual stream, and of the input of the down projection, are hundreds of times the others. Each model is built once per
recipe. Levels are attributes of the graph's nodes, so every level runs the same weights, and changes only how activations are
rounded. Times are processor times of the built-in model on one thread: they tell a ratio of 20 from one of 1.4, and are no
benchmark.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import onnx
import onnxruntime_genai as og
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM, AutoTokenizer, Phi3Config, Qwen3Config

from autotune.candidate import Recipe
from autotune.scratch import scratch
from autotune.stages.backends import OnnxBackend, TorchBackend
from autotune.stages.build import build
from autotune.stages.check_build import agreement
from autotune.stages.jobs import BuildJob
from autotune.stages.score import choose_labels, label_tokens
from autotune.stages.text import encode, load_tokenizer

THREADS = 1
TEXTS, LENGTH = 8, 96
LABELLED = 80
VOCABULARY = 4096
"""Of random models: their heads would be most of them otherwise."""
NEW = 6
ROUNDS = 1
ITEMS = Path(__file__).parent / "phrase_tone" / "validation.jsonl"
Levels = Mapping[int, int]
"""The accuracy level of nodes by their bits."""


def recipe(precision: str, **changes: Any) -> Recipe:
    """Return a recipe at level 4."""
    settings = {"algorithm": "default", "block_size": 32, "accuracy_level": 4, "symmetric": True}
    return Recipe(precision=precision, **settings | changes)


MIXED = recipe("int4", algorithm="rtn", mixed_precision="last_matmul:int8,mixed_layers:int8")
BUILDS: dict[str, tuple[Recipe, tuple[Levels, ...]]] = {
    "int8 b32": (recipe("int8"), ({8: 4}, {8: 0}, {8: 1})),
    "int8 b128": (recipe("int8", block_size=128), ({8: 4}, {8: 1})),
    "int4 b32": (recipe("int4"), ({4: 4}, {4: 0}, {4: 1})),
    "int4 rtn, some int8": (MIXED, ({4: 4, 8: 4}, {4: 4, 8: 1}, {4: 1, 8: 1})),
}


def stamp(folder: Path, levels: Levels) -> None:
    """Set the accuracy level of every MatMulNBits node by its bits; 0: the attribute is left out."""
    model = onnx.load(str(folder / "model.onnx"), load_external_data=False)
    for node in model.graph.node:
        if node.op_type != "MatMulNBits":
            continue
        bits = next((a.i for a in node.attribute if a.name == "bits"), 4)
        for attribute in [a for a in node.attribute if a.name == "accuracy_level"]:
            node.attribute.remove(attribute)
        if levels[bits]:
            node.attribute.append(onnx.helper.make_attribute("accuracy_level", levels[bits]))
    onnx.save(model, str(folder / "model.onnx"))


@torch.no_grad()
def massive(model: Any, seed: int) -> None:
    """Give a random model the massive activations of trained ones.

    Two channels of the residual stream are 300 times the others, and their norms' weights a tenth, as trained models
    have it; of each layer, four channels that its down projection reads are 100 times the others.
    """
    generator = torch.Generator().manual_seed(seed)
    hidden = model.config.hidden_size
    channels = torch.randperm(hidden, generator=generator)[:2]
    model.get_input_embeddings().weight[:, channels] *= 300
    for name, weight in model.named_parameters():
        if "layernorm" in name or name.endswith("model.norm.weight"):
            weight[channels] *= 0.1
    for layer in model.model.layers:
        inner = torch.randperm(model.config.intermediate_size, generator=generator)[:4]
        up = layer.mlp.gate_up_proj.weight if hasattr(layer.mlp, "gate_up_proj") else layer.mlp.up_proj.weight
        offset = model.config.intermediate_size if hasattr(layer.mlp, "gate_up_proj") else 0
        up[offset + inner] *= 100
        layer.mlp.down_proj.weight[:, inner] /= 30


def random_model(kind: str, folder: Path, tokenizer: Any, outliers: bool) -> Path:
    """Write a random model of a shape: weights of standard deviation 0.02 as trained ones have, one layer or three.

    It has a head of its own: a random model that ties it to the embedding repeats its input.
    """
    if kind == "Qwen3-0.6B":
        config: Any = Qwen3Config(
            vocab_size=VOCABULARY, hidden_size=1024, intermediate_size=3072, num_hidden_layers=3,
            num_attention_heads=16, num_key_value_heads=8, head_dim=128, tie_word_embeddings=False,
        )  # fmt: skip
    else:
        config = Phi3Config(
            vocab_size=VOCABULARY, hidden_size=3072, intermediate_size=8192, num_hidden_layers=1,
            num_attention_heads=32, num_key_value_heads=32, pad_token_id=0, tie_word_embeddings=False,
        )  # fmt: skip
    config.bos_token_id = config.eos_token_id = 0
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        # A trained model is sure of its next token; logits of a random one are all alike.
        model.get_output_embeddings().weight *= 4
    if outliers:
        massive(model, 1)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@dataclass(frozen=True)
class Row:
    """One build at one setting of its levels."""

    model: str
    build: str
    levels: str
    kl_torch: float
    greedy_torch: float
    kl: float
    changed: float
    label_changed: float | None
    label_kl: float | None
    accuracy: float | None
    folder: Path


def softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return probabilities (items, labels)."""
    likely = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(likely / likely.sum(axis=1, keepdims=True))


def plain_build(name: str, title: str, source: Path, builds: Path) -> Path:
    """Build a model in a recipe at level 4, unless it is there; return the folder."""
    folder = builds / name.replace(" ", "_").replace(",", "") / title.replace(" ", "_").replace(",", "")
    if not (folder / "model.onnx").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        build(BuildJob(source=name, recipe=BUILDS[title][0], provider="cpu", source_dir=source), folder)
    return folder


def rows_of(name: str, source: Path, builds: Path, labelled: bool) -> list[Row]:
    """Build a model in every recipe and run it at every level."""
    tokenizer = load_tokenizer(source)
    records = [json.loads(line) for line in ITEMS.read_text(encoding="utf-8").splitlines()][:LABELLED]
    items = [
        {"id": str(n), "prompt": f"Text: {r['phrase']}\nTone:", "completion": f" {r['tone']}"}
        for n, r in enumerate(records)
    ]
    encoded, _ = encode(tokenizer, items, 256)
    labels = tuple(sorted({item["completion"] for item in items}))
    tokens = label_tokens(tokenizer, labels)
    stream = [token for item in encoded for token in item.prompt + item.completion]
    if not labelled:
        stream = [token % VOCABULARY for token in stream]
    texts = [tuple(stream[n * LENGTH : (n + 1) * LENGTH]) for n in range(TEXTS)]
    torch_backend = TorchBackend(source, None, "cpu", THREADS)
    reference = [torch_backend.run(np.array([text]))[0][0] for text in texts]
    del torch_backend
    found = []
    for title, (_, variants) in BUILDS.items():
        folder = plain_build(name, title, source, builds)
        exact: list[NDArray[np.float32]] = []
        exact_scores: NDArray[np.float64] | None = None
        for levels in sorted(variants, key=lambda levels: sum(level == 4 for level in levels.values())):
            words = ", ".join(f"{bits}-bit: {level}" for bits, level in levels.items())
            mine = folder.with_name(f"{folder.name}-" + "-".join(f"{b}at{v}" for b, v in levels.items()))
            if not mine.is_dir():
                mine.mkdir()
                for file in folder.iterdir():
                    (mine / file.name).hardlink_to(file) if file.name != "model.onnx" else (
                        mine / file.name
                    ).write_bytes(file.read_bytes())
                stamp(mine, levels)
            backend = OnnxBackend(mine, "cpu", THREADS)
            logits = [backend.run(np.array([text]))[0][0] for text in texts]
            accuracy = label_changed = label_kl = None
            if labelled:
                chosen, _, scores = choose_labels(backend, encoded, tokens)
                accuracy = float(np.mean([labels[c] == i["completion"] for c, i in zip(chosen, items, strict=True)]))
                if exact_scores is None:
                    exact_scores = scores
                label_changed = float(np.mean(scores.argmax(1) != exact_scores.argmax(1)))
                p, q = softmax(exact_scores), softmax(scores)
                label_kl = float((p * (np.log(p) - np.log(q))).sum(1).mean())
            exact = exact or logits
            torch_, same = agreement(reference, logits), agreement(exact, logits)
            row = Row(
                name, title, words, torch_.kl, torch_.greedy, same.kl, 1 - same.greedy, label_changed, label_kl,
                accuracy, mine,
            )  # fmt: skip
            print(row, file=sys.stderr, flush=True)
            found.append(row)
    return found


def decode_ms(folders: list[Path]) -> list[tuple[float, float]]:
    """Return of each build the median processor time to the first token and between tokens (ms), all in turns."""
    loaded = []
    for folder in folders:
        config = og.Config(str(folder))
        config.overlay(json.dumps({"model": {"decoder": {"session_options": {"intra_op_num_threads": THREADS}}}}))
        loaded.append(og.Model(config))
    first: list[list[float]] = [[] for _ in loaded]
    between: list[list[float]] = [[] for _ in loaded]
    for turn in range(ROUNDS + 1):
        for n, model in enumerate(loaded):
            params = og.GeneratorParams(model)
            params.set_search_options(max_length=32 + NEW + 1, min_length=32 + NEW + 1, batch_size=1)
            generator = og.Generator(model, params)
            began = time.process_time()
            generator.append_tokens(np.arange(5, 37, dtype=np.int32))
            generator.generate_next_token()
            ends = [time.process_time()]
            for _ in range(NEW - 1):
                generator.generate_next_token()
                ends.append(time.process_time())
            if turn:  # the first is a warm-up
                first[n].append(1e3 * (ends[0] - began))
                between[n] += [1e3 * (b - a) for a, b in pairwise(ends)]
    return [(statistics.median(a), statistics.median(b)) for a, b in zip(first, between, strict=True)]


def table(rows: list[Row], times: dict[Path, tuple[float, float]]) -> list[str]:
    """Return the results as a Markdown table."""

    def share(value: float | None) -> str:
        return "" if value is None else f"{value:.1%}"

    lines = [
        "| model | build | level | KL to PyTorch | greedy as PyTorch | KL to level 1 | greedy changed | labels changed | "
        "label KL | accuracy | first token, CPU ms | token, CPU ms |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        first, token = (f"{ms:.2f}" for ms in times[row.folder]) if row.folder in times else ("", "")
        label_kl = "" if row.label_kl is None else f"{row.label_kl:.2g}"
        lines.append(
            f"| {row.model} | {row.build} | {row.levels} | {row.kl_torch:.2g} | {share(row.greedy_torch)} | {row.kl:.2g} | "
            f"{share(row.changed)} | {share(row.label_changed)} | {label_kl} | {share(row.accuracy)} | "
            f"{first} | {token} |"
        )
    return lines


def slug(name: str) -> str:
    """Return the name of a model's folder or file."""
    return name.replace(" ", "_").replace(",", "")


def sources_of(model: Path, builds: Path, only: str) -> dict[str, Path]:
    """Return the folders of the models by name, the trained one first; random ones whose name holds `only` are made."""
    sources = {"smollm2-135m-instruct": model}
    tokenizer = AutoTokenizer.from_pretrained(str(model), trust_remote_code=False)
    for kind in ("Qwen3-0.6B", "Phi-3.5-mini"):
        for outliers in (False, True):
            name = f"random {kind}" + (", massive activations" if outliers else "")
            folder = builds / "sources" / slug(name)
            if only in name and not (folder / "config.json").is_file():
                random_model(kind, folder, tokenizer, outliers)
            sources[name] = folder
    return sources


def kept_rows(name: str, source: Path, builds: Path, labelled: bool) -> list[Row]:
    """Return the rows of a model; what was measured before is not measured again."""
    kept = builds / f"{slug(name)}.json"
    if not kept.is_file():
        made = rows_of(name, source, builds, labelled=labelled)
        kept.write_text(json.dumps([vars(row) | {"folder": str(row.folder)} for row in made]), encoding="utf-8")
    return [Row(**one | {"folder": Path(one["folder"])}) for one in json.loads(kept.read_text(encoding="utf-8"))]


def write(text: str) -> None:
    """Write measured/accuracy_level.md."""
    head = (
        "# Accuracy levels of MatMulNBits\n\nMade by `python -m benchmarks.accuracy_level MODEL_FOLDER --write` on "
        f"{platform.machine()}, {os.cpu_count()} cores, {THREADS} threads, onnxruntime-genai {og.__version__}.\n\n"
        f"{TEXTS} texts of {LENGTH} tokens, {LABELLED} labelled phrases; 32 prompt tokens and {NEW} new ones, {ROUNDS} round after a warm-up.\n"
        "`KL to level 1` and what is changed compare with the same weights where activations are not rounded.\n\n"
    )
    file = Path(__file__).parent / "measured" / "accuracy_level.md"
    file.write_text(head + text + "\n", encoding="utf-8")


def main() -> None:
    """Measure, print the table, and with `--write` keep it in measured/accuracy_level.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--builds", type=Path)
    parser.add_argument("--only", default="", help="a part of the names of the models to run")
    parser.add_argument("--part", choices=("builds", "answers", "times", "all"), default="all")
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(THREADS)
    with scratch("levels") as folder:
        builds = args.builds or folder
        builds.mkdir(parents=True, exist_ok=True)
        rows: list[Row] = []
        times: dict[Path, tuple[float, float]] = {}
        for name, source in sources_of(args.model, builds, args.only).items():
            if args.only not in name:
                continue
            if args.part == "builds":
                for title in BUILDS:
                    plain_build(name, title, source, builds)
                continue
            mine = kept_rows(name, source, builds, labelled=source == args.model)
            rows += mine
            if args.part != "answers" and source == args.model:
                times |= {row.folder: decode_ms([row.folder])[0] for row in mine}
        if args.part in ("builds", "answers"):
            return
        text = "\n".join(table(rows, times))
    print(text)
    if args.write:
        write(text)


if __name__ == "__main__":
    main()
