"""Does any random change of an Olive configuration cause a traceback, or a key that is neither mapped nor refused?

python -m benchmarks.fuzz_olive --files 20000 --seed 0

It changes the files of tests/olive/files, and those of ../shared/olive if they exist (see AUTOTUNE_TEST_DATA). If a changed file is
neither read nor refused key by key, it prints the file and exits with 1.
"""

from __future__ import annotations

import argparse
import json
import random
import time
import traceback
from collections import Counter

from autotune.errors import UsageError
from autotune.sweepfile.olive.ledger import leaves, text_of
from autotune.sweepfile.olive.reader import import_olive, is_olive, read_olive
from autotune.sweepfile.resolve import parse_sweep
from benchmarks.olive_files import mutate, own, public


def tried(document: dict[str, object], search: bool) -> str:
    """Read one file; return `refused`, `read`, or `read, and refused as a sweep`. Raises AssertionError for a lost key."""
    imported = read_olive(document, search)
    account = dict(imported.ledger.account())
    lost = [text_of(path) for path in leaves(document) if path and path not in account]
    assert not lost, f"lost: {', '.join(lost)}"
    for path, entry in account.items():
        said = entry.to if entry.fate == "mapped" else entry.why
        assert said, f"no word on {text_of(path)}"
    if is_olive(document):
        try:
            import_olive(document, "olive.json", search)
        except UsageError as error:
            unclear = [str(problem) for problem in error.problems if not problem.remedy or "\n" in str(problem)]
            if unclear:
                raise ValueError(f"unclear: {unclear}") from error
            return "refused"
    try:
        parse_sweep(imported.sweep)
    except UsageError:
        return "read, and refused as a sweep"
    return "read"


def main() -> int:
    """Change files, read them, and count what became of them."""
    parser = argparse.ArgumentParser(description="Fuzz the reader of Olive configurations.")
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    documents = [*own().values(), *public().values()]
    counts: Counter[str] = Counter()
    began = time.monotonic()
    for number in range(arguments.files):
        rng = random.Random(f"{arguments.seed}/{number}")
        document = mutate(rng.choice(documents), rng, documents)
        try:
            counts[tried(document, rng.random() < 0.3)] += 1
        except Exception:  # noqa: BLE001 - whatever it is, it is what is looked for
            counts["wrong"] += 1
            if counts["wrong"] <= 3:
                print(f"file {number}:", traceback.format_exc(), json.dumps(document), sep="\n")
    print(
        f"{arguments.files} changed files of {len(documents)}, seed {arguments.seed}, {time.monotonic() - began:.0f} s:"
    )
    for name, count in counts.most_common():
        print(f"  {name}: {count}")
    return 1 if counts["wrong"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
