"""What the page about Olive and us says of several seeds: no difference is claimed that seeds alone make."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from autotune.sweepfile.resolve import load_sweep
from benchmarks import olive_page
from benchmarks import olive_side_by_side as pair


def _score(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.05, "high": value + 0.05, "size_mb": 86.5}


def _steps(olive: list[float], us: list[float]) -> dict[str, Any]:
    about = {"wall_s": 100.0, "load": [1.0, 2.0], "built": "x", "error": "", "code": 0, "loss": 2.5,
             "passes": {"lora": 90.0, "train": 80.0}}  # fmt: skip
    return {
        "as installed": about | {"code": 1, "error": "ModuleNotFoundError: no", "passes": {}},
        "olive": [about] * len(olive), "us": [about] * len(us),
        "graphs": 1,
        "joined": {"olive": about | {"score": _score(0.5), "unbuilt": _score(0.6)},
                   "us": about | {"batch": 16, "score": _score(0.45), "unbuilt": _score(0.55)},
                   "one": about | {"batch": 1, "score": _score(0.25), "unbuilt": _score(0.3)}},
        "unbuilt olive": [_score(value + 0.1) for value in olive], "unbuilt us": [_score(value + 0.1) for value in us],
        "score olive": [_score(value) for value in olive], "score us": [_score(value) for value in us],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("olive", "us", "said"),
    [
        (
            [0.53, 0.47, 0.50],
            [0.44, 0.54, 0.49],
            "no difference of the two sides is shown; seeds of one side are up to 0.100 apart",
        ),
        ([0.53, 0.52, 0.54], [0.44, 0.45, 0.43], "the two sides differ"),
        ([0.44, 0.45, 0.43], [0.53, 0.52, 0.54], "the two sides differ"),
        ([0.5, 0.5, 0.5], [0.5, 0.5, 0.5], "seeds of one side are up to 0.000 apart"),
    ],
)
def test_a_difference_is_claimed_only_beyond_that_of_seeds(olive: list[float], us: list[float], said: str) -> None:
    lines = olive_page.worth(_steps(olive, us))
    assert [line for line in lines if said in line]
    assert f"{sum(olive) / 3:.3f} with Olive and {sum(us) / 3:.3f} with ours" in "\n".join(lines)


def test_one_seed_says_nothing_about_a_difference() -> None:
    text = "\n".join(olive_page.worth(_steps([0.525], [0.430])))
    assert "0.525 with Olive and 0.430 with ours.\n" in text
    assert "Welch" not in text


def test_the_page_has_a_row_a_seed_and_every_difference() -> None:
    versions = dict.fromkeys(pair._VERSIONS, "1.0")
    text = olive_page.page(versions, versions, _steps([0.5, 0.6, 0.4], [0.55, 0.45, 0.5]))
    assert (
        "| 1 | 2.50 | 0.700 [0.650, 0.750] | 0.600 [0.550, 0.650] | 2.50 | 0.550 [0.500, 0.600] | 0.450 [0.400, 0.500] |"
        in text
    )
    assert text.count("\n| 0 |") == text.count("\n| 2 |") == 1
    assert "are one file on both sides" in text
    assert all(f"| {where} | {theirs} | {ours} |" in text for where, theirs, ours in olive_page.DIFFERENCES)


def test_both_sides_are_given_the_seed(tmp_path: Path) -> None:
    made = [pair.configuration(tmp_path, tmp_path, 32, seed) for seed in (0, 7)]
    assert [one["passes"]["lora"]["training_args"]["seed"] for one in made] == [0, 7]


def test_a_batch_of_the_joined_file_has_the_tokens_of_its_block(tmp_path: Path) -> None:
    file = tmp_path / "olive.json"
    file.write_text(json.dumps(pair.configuration(Path("owner/m"), tmp_path, 16, 0, joined=True)), encoding="utf-8")
    (candidate,) = load_sweep(file).space.grid()
    assert candidate.lora is not None
    assert (candidate.lora.steps, candidate.lora.batch_size) == (16, 16), "32.7 tokens of a row with its marks, counted"
    text = "\n".join(olive_page.about_joined(_steps([0.5], [0.5])["joined"]))
    assert "| rows in a batch | a block of 512 tokens | 16 | 1 |" in text
    assert text.count("at int4 | 0.500 [0.450, 0.550] | 0.450 [0.400, 0.500] | 0.250 [0.200, 0.300] |") == 1
