"""What does the model builder make of each architecture? Tiny random models through the real stages, against PyTorch.

    python -m benchmarks.architectures [--only NAME ...] [--write]

Builds a tiny random model of every architecture, and of its variants (`VARIANTS`), at each precision for the CPU, checks
it as a sweep does, and runs it through ONNX Runtime GenAI. It prints one line per model; `--write` writes these results to
`autotune/probed.py`, which `plan` and `run` read. It takes a few minutes. Each model has a process of its own, so a crash
loses one model.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

from autotune.architectures import PRECISIONS
from autotune.models import ARCHITECTURES
from autotune.probed import Fact

PACKAGES = ("onnxruntime-genai", "onnxruntime", "transformers")
"""Those whose versions decide what is exported and runs."""
BLOCKS: dict[str, Any] = {"algorithm": "default", "block_size": 32, "accuracy_level": 4, "symmetric": True}
LENGTHS = (40, 87, 10)
"""Tokens of the texts that are compared: the tiny models' windows hold 16, and LongRoPE's short factors 64."""
_PLAIN_SIZES = ("PhiForCausalLM", "PhiMoEForCausalLM", "OlmoForCausalLM")
"""Architectures whose heads are as large as hidden_size says."""


_OWN_ROTATION = ("Gemma3ForCausalLM", "GptOssForCausalLM")
"""Architectures that have one rotation, which is that of the plain model: one for each kind of layer, and YaRN."""


def _rope(kind: str, **more: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10000.0, **more}}


_FACTORS = {"short_factor": [1 + 0.1 * n for n in range(8)], "long_factor": [2 + 0.5 * n for n in range(8)]}
_LONG = {"original_max_position_embeddings": 64}
ROTATIONS: dict[str, dict[str, Any]] = {
    "linear rotation": _rope("linear", factor=4.0),
    "yarn rotation": _rope(
        "yarn", factor=4.0, beta_fast=8.0, beta_slow=1.0, original_max_position_embeddings=256
    ),
    "dynamic rotation": _rope("dynamic", factor=4.0),
    "llama3 rotation": _rope(
        "llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=128
    ),
    "longrope rotation": _rope("longrope", type="longrope", **_FACTORS, **_LONG) | _LONG,
    "longrope rotation without the key type": _rope("longrope", **_FACTORS, **_LONG) | _LONG,
}  # fmt: skip
_ANY: dict[str, dict[str, Any]] = {
    "": {},
    "a tied head": {"tie_word_embeddings": True},
    "a head of its own": {"tie_word_embeddings": False},
    **ROTATIONS,
}
_WINDOW = {"use_sliding_window": True, "sliding_window": 16}
_OWN: dict[str, dict[str, dict[str, Any]]] = {
    "GraniteMoeHybridForCausalLM": {
        "experts": {"num_local_experts": 4, "num_experts_per_tok": 2},
        "no rotation": {"position_embedding_type": "nope"},
        "recurrent layers": {
            "layer_types": ["mamba", "attention"], "mamba_n_heads": 4, "mamba_d_head": 32, "mamba_expand": 2,
        },
    },
    "GraniteForCausalLM": {"biases of attention": {"attention_bias": True}, "biases of the MLP": {"mlp_bias": True}},
    # As HunYuan's own models have it.
    "HunYuanDenseV1ForCausalLM": {"dynamic rotation": _rope("dynamic", factor=1.0, alpha=1000.0)},
    "LlamaForCausalLM": {"biases of attention": {"attention_bias": True}, "biases of the MLP": {"mlp_bias": True}},
    "MistralForCausalLM": {"a sliding window": {"sliding_window": 16}},
    "OlmoForCausalLM": {"clipped projections": {"clip_qkv": 1.0}, "biases of attention": {"attention_bias": True}},
    "PhiForCausalLM": {"normed queries": {"qk_layernorm": True}},
    "Phi3ForCausalLM": {"a sliding window": {"sliding_window": 16}},
    "Qwen2ForCausalLM": {"a sliding window": {**_WINDOW, "max_window_layers": 1}},
    "Qwen3ForCausalLM": {
        "a sliding window": {**_WINDOW, "max_window_layers": 1}, "biases of attention": {"attention_bias": True},
    },
    "SmolLM3ForCausalLM": {
        "layers without rotation": {"no_rope_layers": [1, 0]},
        "a sliding window": {**_WINDOW, "layer_types": ["sliding_attention", "full_attention"]},
    },
}  # fmt: skip


def variants(architecture: str) -> dict[str, dict[str, Any]]:
    """Return by feature, as `features_of` names it, what a config.json has in which an architecture is tried."""
    derived = architecture in _PLAIN_SIZES
    half = {"partial_rotary_factor": 0.5}
    always = architecture in ("PhiForCausalLM", "NemotronForCausalLM")

    def sized(head: int) -> dict[str, Any]:
        return {"hidden_size": 4 * head} if derived else {"head_dim": head}

    sizes = {
        "heads of odd size": sized(24),
        "a rotated part of odd size": {**sized(48), **half},
        "partial rotation": {} if always else {**sized(32), **half},
    }
    found = _ANY | sizes | _OWN.get(architecture, {})
    return {n: changes for n, changes in found.items() if architecture not in _OWN_ROTATION or n not in ROTATIONS}


# --- One model -------------------------------------------------------------------------------------------------------


def probe(architecture: str, feature: str, changes: dict[str, Any]) -> list[Fact]:
    """Build a tiny model at each precision, check it, and run it with ONNX Runtime GenAI."""
    from autotune.stages.library_errors import reason
    from autotune.stages.preparation_jobs import TinyJob
    from autotune.stages.tiny import tiny

    logging.disable(logging.WARNING)
    found = []
    with tempfile.TemporaryDirectory(prefix="autotune-probe-", ignore_cleanup_errors=True) as scratch:
        source = Path(scratch) / "source"
        source.mkdir()
        try:
            with contextlib.redirect_stderr(io.StringIO()):
                tiny(TinyJob(architecture=architecture, changes=changes), source)
        except Exception as error:  # noqa: BLE001 - no such model: each library has errors of its own
            return [Fact(architecture, feature, PRECISIONS, "none", reason(error)[:160], "transformers")]
        for precision in PRECISIONS:
            outcome, said, by = outcome_of(source, precision, Path(scratch) / precision)
            found.append(Fact(architecture, feature, (precision,), outcome, said, by))
    return found


def outcome_of(source: Path, precision: str, out: Path) -> tuple[str, str, str]:
    """Return what became of a build: outcome, what there is to say of it, and by whom it was refused."""
    import numpy as np

    from autotune.candidate import Recipe
    from autotune.errors import StageError
    from autotune.stages.backends import OnnxBackend, TorchBackend
    from autotune.stages.build import build
    from autotune.stages.check_build import Reference, judge
    from autotune.stages.jobs import BuildJob
    from autotune.stages.library_errors import reason

    recipe = Recipe(precision=precision, **({} if precision == "fp32" else BLOCKS))
    draw = np.random.default_rng(0)
    texts = [tuple(int(token) for token in draw.integers(5, 300, size)) for size in LENGTHS]
    out.mkdir()
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            reference = Reference(TorchBackend(source, None, "cpu", 1), texts)
            reference.logits(last=False)
    except Exception as error:  # noqa: BLE001 - PyTorch itself does not run such a model
        return "none", reason(error)[:160], "transformers"
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            build(BuildJob(source="source", recipe=recipe, provider="cpu", source_dir=source), out)
            backend = OnnxBackend(out, "cpu", 1)
            judged = judge(reference, backend, out, recipe)
        if judged["trouble"] is not None:
            return "other", f"{judged.get('computed_error') or judged['logit_error']:.0%}", ""
        served = served_error(out, backend, texts[0])
        return ("same", "", "") if served < 0.02 else ("other", f"{served:.0%} as served", "")
    except StageError as error:
        return "refused", *told(str(error), recipe)
    except Exception as error:  # noqa: BLE001 - what breaks is the finding
        return "refused", f"{type(error).__name__}: {reason(error)}"[:200], "this tuner"


def served_error(folder: Path, backend: Any, text: tuple[int, ...]) -> float:
    """Return how far logits of ONNX Runtime GenAI are from those that are scored, after a text and some more tokens."""
    import numpy as np
    import onnxruntime_genai as og

    from autotune.stages.check_build import agreement, logits_of

    model = og.Model(str(folder))
    worst = 0.0
    for most in (len(text) + 4, 128):
        parameters = og.GeneratorParams(model)
        parameters.set_search_options(max_length=most, do_sample=False)
        generator = og.Generator(model, parameters)
        generator.append_tokens(np.array(text, dtype=np.int32))
        tokens = text
        for _ in range(4):
            logits = np.asarray(generator.get_logits(), dtype=np.float32).reshape(1, -1)
            worst = max(worst, agreement(logits_of(backend, [tokens], last=True), [logits]).error)
            generator.generate_next_token()
            if generator.is_done():
                break
            tokens = tuple(int(token) for token in generator.get_sequence(0))
    return worst


def told(message: str, recipe: Any) -> tuple[str, str]:
    """Return the reason of a stage's error, and who gave it."""
    for start, by in (
        (f"the model builder refuses {recipe}: ", "the model builder"),
        ("the build does not run on cpu: ", "the runtime"),
        ("the build does not load on cpu: ", "the runtime"),
    ):
        if message.startswith(start):
            said = re.sub(r".*Status Message: ", "", message.removeprefix(start)).strip()
            return re.sub(r"\S*autotune-probe-\S*", "this", said)[:200], by
    return message[:200], "this tuner"


# --- The table -------------------------------------------------------------------------------------------------------


def all_facts(only: list[str]) -> Iterator[Fact]:
    """Yield what was found, one fact for the precisions of a variant that came out alike."""
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(1, context)
    for architecture in ARCHITECTURES:
        if only and architecture.removesuffix("ForCausalLM") not in only:
            continue
        for feature, changes in variants(architecture).items():
            try:
                found = pool.submit(probe, architecture, feature, changes).result()
            except BrokenProcessPool:
                pool = ProcessPoolExecutor(1, context)
                found = [Fact(architecture, feature, PRECISIONS, "refused", "its process crashed", "the runtime")]
            found = [fact for fact in found if fact.outcome != "none"]
            for (outcome, by), alike in groupby(found, key=lambda fact: (fact.outcome, fact.by)):
                members = list(alike)
                precisions = tuple(precision for fact in members for precision in fact.precisions)
                yield Fact(architecture, feature, precisions, outcome, members[0].said, by)
    pool.shutdown()


def source_of(facts: list[Fact]) -> str:
    """Return `autotune/probed.py`."""
    file = Path(__file__).parent.parent / "autotune" / "probed.py"
    head, _, _ = file.read_text(encoding="utf-8").partition("\nVERSIONS")
    versions = {package: version(package) for package in PACKAGES}
    lines = ["VERSIONS: dict[str, str] = {", *(f'    "{name}": "{value}",' for name, value in versions.items()), "}"]
    lines += ["FACTS: tuple[Fact, ...] = (", *(f"    {fact!r}," for fact in facts), ")"]
    return head + "\n" + "\n".join(lines) + "\n"


def main() -> int:
    """Print the facts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[], help="architectures, without ForCausalLM")
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    facts = []
    for fact in all_facts(given.only):
        facts.append(fact)
        who = f" by {fact.by}" if fact.by else ""
        what = f"{fact.architecture.removesuffix('ForCausalLM'):18} {fact.feature or 'plain':40} {' '.join(fact.precisions):16}"
        print(f"{what} {fact.outcome}{who}{': ' * bool(fact.said)}{fact.said}", flush=True)
    if given.write:
        file = Path(__file__).parent.parent / "autotune" / "probed.py"
        file.write_text(source_of(facts), encoding="utf-8", newline="\n")
        subprocess.run([sys.executable, "-m", "ruff", "format", "-q", str(file)], check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
