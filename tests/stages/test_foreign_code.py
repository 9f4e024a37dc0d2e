"""A model folder cannot make a worker run its code: neither modules of its own nor pickled weights."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import pytest

from autotune.models import shape_of
from autotune.stages.text import load_tokenizer
from autotune.stages.torch_model import load_model


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return (open, (str(self.file), "w"))


@pytest.fixture
def hostile(tiny_llama: Path, tmp_path: Path) -> Path:
    """The tiny model, with code of its own named in its config, and a pickled checkpoint beside its safetensors."""
    folder = tmp_path / "hostile"
    shutil.copytree(tiny_llama, folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["auto_map"] = {
        "AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel", "AutoTokenizer": "own.OwnTokenizer",
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')", encoding="utf-8")
    for name in ("pytorch_model.bin", "model.ckpt", "training_args.bin"):
        (folder / name).write_bytes(pickle.dumps(Trap(tmp_path / "ran")))
    return folder


def test_a_hostile_folder_is_loaded_without_what_is_hostile(hostile: Path, tmp_path: Path) -> None:
    pickle.loads((hostile / "pytorch_model.bin").read_bytes()).close()
    assert (tmp_path / "ran").exists(), "the trap works"
    (tmp_path / "ran").unlink()
    assert shape_of(str(hostile), Path()) is not None
    load_model(hostile, "cpu")
    load_tokenizer(hostile)
    assert not (tmp_path / "ran").exists()


def test_pickled_weights_alone_are_not_loaded(hostile: Path, tmp_path: Path) -> None:
    (hostile / "model.safetensors").unlink()
    with pytest.raises(OSError, match="safetensors"):
        load_model(hostile, "cpu")
    assert not (tmp_path / "ran").exists()
