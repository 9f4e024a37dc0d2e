"""Execution providers side by side on one machine: the untouched model at every precision of each, through whole sweeps.

    python -m benchmarks.gpu.side_by_side --out side-by-side [--providers cuda NvTensorRtRtx webgpu] [--python cuda=PYTHON]

The wheel of CUDA excludes the plain wheel, which plugins need. So `--python` names, for a provider, the Python of an environment
with `.[cuda]` or `.[webgpu,tensorrt-rtx]`; the default is the running one. `--providers cpu` tests the script without a GPU.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autotune.present.tables import number
from autotune.providers import PROVIDERS
from autotune.results.folder import read_results
from autotune.results.rows import Trial

ROOT = Path(__file__).parent.parent.parent
COLUMNS = (
    "itl_ms_p50",
    "ttft_ms_p50",
    "warm_up_s",
    "load_s",
    "provider_share",
    "accuracy",
    "size_mb",
    "peak_memory_mb",
)


def sweep(provider: str, model: str, items: int) -> dict[str, Any]:
    """Return a sweep file: the untouched model at every precision that the provider may run."""
    data = ROOT / "benchmarks" / "phrase_tone"
    return {
        "name": f"side-by-side-{provider}",
        "model": model,
        "data": {
            "train": str(data / "train.jsonl"), "validation": str(data / "validation.jsonl"),
            "prompt": "Text: {phrase}\nTone:", "completion": " {tone}", "max_items": {"validation": items},
        },
        "target": {"provider": provider},
        "space": {"build": [{"precision": precision} for precision in PROVIDERS[provider].precisions]},
        "strategy": "grid",
        "budget": {"trials": len(PROVIDERS[provider].precisions)},
    }  # fmt: skip


def table(found: dict[str, Sequence[Trial]], said: dict[str, str]) -> str:
    """Return the rows of all providers as a Markdown table, and what was said of those that ended otherwise."""
    lines = [
        "| provider | precision | status | " + " | ".join(COLUMNS) + " |",
        "|---|---|---|" + "---|" * len(COLUMNS),
    ]
    for provider, rows in found.items():
        for row in rows:
            if row.trial:
                cells = [number(row.number(name)) if row[name] is not None else "" for name in COLUMNS]
                lines.append(" | ".join([f"| {provider}", str(row["build_precision"]), row.status, *cells]) + " |")
    return "\n".join(lines) + "\n\n" + "".join(f"{provider}: {text}\n\n" for provider, text in said.items() if text)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the sweeps one after another, and write `table.md` beside their folders."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--providers", nargs="+", default=["cuda", "NvTensorRtRtx", "webgpu"], choices=list(PROVIDERS))
    parser.add_argument("--python", action="append", default=[], metavar="PROVIDER=PYTHON")
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--items", type=int, default=200, help="validation items that are scored; default: 200")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as of `autotune run`")
    arguments = parser.parse_args(argv)
    pythons = dict(one.split("=", 1) for one in arguments.python)
    found: dict[str, Sequence[Trial]] = {}
    said: dict[str, str] = {}
    arguments.out.mkdir(parents=True, exist_ok=True)
    for provider in arguments.providers:
        file, folder = arguments.out / f"{provider}.json", arguments.out / provider
        file.write_text(json.dumps(sweep(provider, arguments.model, arguments.items), indent=1), encoding="utf-8")
        command = [pythons.get(provider, sys.executable), "-m", "autotune", "run", str(file), "--out", str(folder)]
        command += [part for one in arguments.set for part in ("--set", one)]
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True, encoding="utf-8", check=False)
        lines = [line for line in done.stderr.splitlines() if line.startswith(("autotune:", "left out:", "device:"))]
        said[provider] = "; ".join(lines)
        if (folder / "results.csv").exists():
            found[provider] = read_results(folder)
    text = table(found, said)
    (arguments.out / "table.md").write_text(text, encoding="utf-8")
    print(text)
    return 0 if found else 3


if __name__ == "__main__":
    sys.exit(main())
