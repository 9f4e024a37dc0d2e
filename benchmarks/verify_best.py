"""Does `best/` do what finalists.csv says, loaded by onnxruntime_genai alone in another process?

    python -m benchmarks.verify_best results/phrase-tone-cpu

The child process imports onnxruntime_genai and numpy, nothing of autotune, torch or transformers; it tokenises and runs
the model itself: the prompt, then a label token by token, as users generate. Its predictions are compared with `outcomes/<winner>.test.json`, item by item.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

_CHILD = r"""
import json, os, sys
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import numpy as np
import onnxruntime_genai as og

folder, work = sys.argv[1], json.loads(sys.stdin.read())
model = og.Model(folder)
tokenizer = og.Tokenizer(model)
labels = [[int(t) for t in tokenizer.encode(label)] for label in work["labels"]]

def log_softmax(x):
    x = x.astype(np.float64)
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))

predicted, margins = [], []
for prompt in work["prompts"]:
    tokens = tokenizer.encode(prompt)
    scores = []
    for label in labels:
        parameters = og.GeneratorParams(model)
        parameters.set_search_options(max_length=len(tokens) + len(label) + 1)
        generator = og.Generator(model, parameters)
        generator.append_tokens(np.array(tokens, dtype=np.int32))
        score = 0.0
        for place, token in enumerate(label):
            if place:
                generator.append_tokens(np.array([label[place - 1]], dtype=np.int32))
            score += float(log_softmax(np.asarray(generator.get_logits()).reshape(-1))[token])
        scores.append(score)
    order = np.argsort(-np.array(scores), kind="stable")
    predicted.append(int(order[0]))
    margins.append(scores[order[0]] - scores[order[1]])
heavy = sorted(name for name in ("torch", "transformers", "autotune", "onnxruntime") if name in sys.modules)
print(json.dumps({"predicted": predicted, "margins": margins, "heavy": heavy}))
"""


def main(folder: Path) -> int:
    """Print what was compared. Returns 0 where all predictions are the same."""
    from autotune.data.dataset import load_dataset
    from autotune.data.schema import DataSpec
    from autotune.results.folder import read_sweep
    from autotune.results.rows import Finalist
    from autotune.results.table import read_table

    sweep = read_sweep(folder)
    assert sweep is not None
    dataset = load_dataset(DataSpec.model_validate(sweep["data"]), Path())
    winner = next(row for row in read_table(folder / "finalists.csv", Finalist) if row.role == "winner")
    kept = json.loads((folder / "outcomes" / f"{winner.candidate}.test.json").read_text(encoding="utf-8"))
    ids = json.loads((folder / "outcomes" / "items.test.json").read_text(encoding="utf-8"))
    items = {item.id: item for item in dataset.test}
    work = {"labels": list(dataset.labels), "prompts": [items[name].prompt for name in ids]}
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, str(folder / "best" / "onnx")],
        input=json.dumps(work), capture_output=True, text=True, encoding="utf-8", check=True,
    )  # fmt: skip
    found = json.loads(done.stdout.splitlines()[-1])
    right = sum(dataset.labels[p] == items[name].completion for p, name in zip(found["predicted"], ids, strict=True))
    differing = [i for i, (a, b) in enumerate(zip(found["predicted"], kept["predicted"], strict=True)) if a != b]
    print(f"items                      {len(ids)}")
    print(f"finalists.csv accuracy     {winner['accuracy']}")
    print(f"onnxruntime_genai accuracy {right / len(ids):.6g}")
    print(f"differing predictions      {len(differing)}")
    for i in differing:
        print(f"  {ids[i]}: margin {found['margins'][i]:.2g} nats there, {kept['margin'][i]:.2g} here")
    print(f"heavy modules in the child {', '.join(found['heavy']) or 'none'}")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
