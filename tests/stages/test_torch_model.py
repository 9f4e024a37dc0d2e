"""How many threads a model is computed with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from autotune.stages import torch_model
from autotune.stages.preparation_jobs import TinyJob
from autotune.stages.tiny import tiny


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("asked", "small", "expected"), [(None, None, 1), (None, 1000, 2), (2, None, 2), (3, 1000, 3)])
def test_a_small_model_takes_one_thread_unless_the_job_says_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: int | None, small: int | None, expected: int
) -> None:
    tiny(TinyJob(), tmp_path)
    monkeypatch.setattr(torch_model, "_THREADS", 2)
    if small is not None:
        monkeypatch.setattr(torch_model, "SMALL", small)
    torch_model.load_model(tmp_path, "cpu", threads=asked)
    assert torch.get_num_threads() == expected
