"""Our own dataset is what its README and the docs say."""

import json
import re
from collections import Counter
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "benchmarks" / "phrase_tone"
SPLITS = ("train", "validation", "test")
TONES = {"fear", "joy", "sadness", "surprise"}


def rows(split: str) -> list[dict[str, str]]:
    text = (FOLDER / f"{split}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def normal(phrase: str) -> str:
    return re.sub(r"\W+", " ", phrase.casefold()).strip()


def test_many_different_sentences_balanced_in_every_split() -> None:
    every = [row for split in SPLITS for row in rows(split)]
    assert len(every) >= 1200
    assert len({normal(row["phrase"]) for row in every}) == len(every)
    for split in SPLITS:
        counts = Counter(row["tone"] for row in rows(split))
        assert set(counts) == TONES
        assert len(set(counts.values())) == 1


def test_no_templates() -> None:
    """Hardly any four words open several sentences, and none in a row occur in more than a few."""
    every = [normal(row["phrase"]).split() for split in SPLITS for row in rows(split)]
    openings = Counter(tuple(words[:4]) for words in every if len(words) >= 4)
    assert max(openings.values()) <= 3
    runs = Counter(run for words in every for run in {tuple(words[i : i + 4]) for i in range(len(words) - 3)})
    assert max(runs.values()) <= 8


def test_from_easy_to_hard_alike_in_all_tones() -> None:
    for split in SPLITS:
        shares = {tone: Counter(r["difficulty"] for r in rows(split) if r["tone"] == tone) for tone in TONES}
        for level in ("easy", "medium", "hard"):
            counts = [share[level] for share in shares.values()]
            assert min(counts) >= 0.2 * sum(next(iter(shares.values())).values())
            assert max(counts) - min(counts) <= 3
