"""A kept model writes what was scored, where its user says nothing of it."""

from __future__ import annotations

import errno
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from autotune.results.layout import fill

PLAIN = {"do_sample": False, "num_beams": 1, "repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "top_k": 50}


def kept(folder: Path, search: dict[str, Any], about: dict[str, Any] | None = None) -> dict[str, Any]:
    source = folder / "built"
    source.mkdir()
    settings = {"model": {"pad_token_id": 0, "type": "llama"}, "search": search}
    (source / "genai_config.json").write_text(json.dumps(settings), encoding="utf-8")
    aside = fill(folder / "aside", {"onnx": source}, about or {})
    assert json.loads((source / "genai_config.json").read_text(encoding="utf-8")) == settings, "the cache stays"
    found: dict[str, Any] = json.loads((aside / "onnx" / "genai_config.json").read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize(
    "said",
    [
        {"do_sample": True},
        {"num_beams": 4, "num_return_sequences": 2},
        {"repetition_penalty": 1.3},
        {"no_repeat_ngram_size": 3},
    ],
)
def test_what_a_models_own_settings_say_of_the_search_is_not_kept(said: dict[str, Any], tmp_path: Path) -> None:
    search = kept(tmp_path, PLAIN | said)["search"]
    assert {name: search[name] for name in PLAIN} == PLAIN
    assert search.get("num_return_sequences", 1) == 1


def test_other_settings_stay(tmp_path: Path) -> None:
    found = kept(tmp_path, PLAIN | {"max_length": 99}, {"task": {"pad": 7}})
    assert found == {"model": {"pad_token_id": 7, "type": "llama"}, "search": PLAIN | {"max_length": 99}}


@pytest.mark.skipif(sys.platform == "win32", reason="a limit for the size of files stands for a full disk")
def test_a_copy_that_cannot_be_written_names_one_file_and_the_reason(tmp_path: Path) -> None:
    import resource

    source = tmp_path / "built"
    source.mkdir()
    for name in ("model.onnx", "model.onnx.data"):
        (source / name).write_bytes(bytes(100_000))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as refused:
            fill(tmp_path / "aside", {"merged": source}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert refused.value.errno == errno.EFBIG
    assert Path(str(refused.value.filename)).parent == tmp_path / "aside" / "merged"


@pytest.mark.skipif(sys.platform == "win32", reason="links need a right of their own there")
def test_a_copy_whose_source_is_gone_names_the_source(tmp_path: Path) -> None:
    source = tmp_path / "built"
    source.mkdir()
    (source / "model.onnx").symlink_to(tmp_path / "evicted")
    with pytest.raises(FileNotFoundError) as gone:
        fill(tmp_path / "aside", {"merged": source}, {})
    assert Path(str(gone.value.filename)) == source / "model.onnx"
