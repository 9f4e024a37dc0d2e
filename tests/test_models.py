"""Which models are taken: by name, by folder, by what config.json says; nothing is loaded for it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from bad_inputs import CONFIG, write_model

from autotune.errors import UsageError
from autotune.models import (
    ARCHITECTURES,
    BUILT_IN,
    SMOLLM2,
    check_architecture,
    check_export,
    config_of,
    context_of,
    digest_folder,
    is_remote,
    local_folder,
    parameters_of,
    shape_from,
    shape_of,
)
from autotune.space.recipes import ModelShape


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_model(tmp_path / "model")
    return tmp_path


def refusal(name: str, root: Path) -> str:
    with pytest.raises(UsageError) as caught:
        shape_of(name, root)
    (problem,) = caught.value.problems
    assert problem.key == "model"
    assert problem.remedy
    return str(problem)


# --- Names ---------------------------------------------------------------------------------------------------------


def test_a_folder_is_found_from_the_sweep_file_and_from_here(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert local_folder("model", root) == root / "model"
    assert local_folder(str(root / "model"), Path("nowhere")) == root / "model"
    here = root / "here"
    here.mkdir()
    write_model(here / "model")
    monkeypatch.chdir(here)
    assert local_folder("model", root) == Path("model"), "the working directory goes first"
    monkeypatch.setenv("HOME", str(root))
    if os.name == "posix":
        assert local_folder("~/model", here) == root / "model"


@pytest.mark.parametrize(
    "name", ["gone", "~nobody_has_this_name/model", "a" * 5000, "\0", "\ud800", "model/config.json"]
)
def test_what_is_no_folder_is_none(name: str, root: Path) -> None:
    assert local_folder(name, root) is None


@pytest.mark.parametrize(
    ("name", "remote"),
    [
        ("HuggingFaceTB/SmolLM2-135M-Instruct", True),
        ("a/b.c-d_e", True),
        ("smollm2-135m-instruct", False),
        ("model", False),
        ("./model", False),
        ("../x/y", False),
        ("a/b/c", False),
        ("/a/b", False),
        ("a/b:main", False),
        ("a/ b", False),
    ],
)
def test_names_on_the_hub(name: str, remote: bool, root: Path) -> None:
    assert is_remote(name, root) == remote


def test_a_folder_named_like_one_on_the_hub_is_that_folder(root: Path) -> None:
    (root / "owner").mkdir()
    write_model(root / "owner" / "name")
    assert not is_remote("owner/name", root)
    assert shape_of("owner/name", root) == ModelShape((64, 128), tied=True)
    assert shape_of("owner/other", root) is None


def test_a_misspelt_folder_is_guessed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    assert "did you mean 'model'?" in refusal("modl", root)
    assert f"did you mean '{root / 'model'}'?" in refusal(str(root / "modell"), Path())
    assert "did you mean 'smollm2-135m-instruct'?" in refusal("smollm2-135m-instruc", root)
    assert "name a local folder, owner/name on the hub, or smollm2-135m-instruct" in refusal("gpt-4", root)


# --- Folders -------------------------------------------------------------------------------------------------------


def test_a_whole_folder_is_taken(root: Path) -> None:
    assert config_of("model", root) == CONFIG
    assert shape_of("model", root) == ModelShape((64, 128), tied=True)


@pytest.mark.parametrize("tokenizer", ["tokenizer.json", "tokenizer.model", "vocab.json"])
def test_any_kind_of_tokenizer_will_do(tokenizer: str, root: Path) -> None:
    (root / "model" / "tokenizer.json").rename(root / "model" / tokenizer)
    assert shape_of("model", root) is not None


def test_weights_in_several_files_are_taken(root: Path) -> None:
    sharded(root / "model", {"a": SHARD})
    assert shape_of("model", root) is not None


SHARD = "model-00001-of-00001.safetensors"
INDEX = "model.safetensors.index.json"


def sharded(folder: Path, weights: Any) -> None:
    (folder / "model.safetensors").rename(folder / SHARD)
    (folder / INDEX).write_text(json.dumps({"weight_map": weights}), encoding="utf-8")


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ({"a": SHARD, "b": "pytorch_model.bin"}, f"safetensors only, and {INDEX} names pytorch_model.bin"),
        ({"a": "pytorch_model-00001-of-00002.bin"}, "names pytorch_model-00001-of-00002.bin"),
        ({"a": "model.ckpt"}, "names model.ckpt"),
        ({"a": SHARD, "b": "model-2.safetensors"}, f"{INDEX} names model-2.safetensors, which is not in the folder"),
        ({"a": f"../other/{SHARD}"}, "which is not in the folder"),
        ({"a": "\0.safetensors"}, "which is not in the folder"),
        ({"a": 7}, "names no files of weights"),
        ({}, "names no files of weights"),
        ([], "names no files of weights"),
    ],
)
def test_an_index_must_name_safetensors_that_are_there(weights: Any, said: str, root: Path) -> None:
    write_model(root / "other")
    (root / "other" / "model.safetensors").rename(root / "other" / SHARD)
    (root / "model" / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    sharded(root / "model", weights)
    assert said in refusal("model", root)


def test_safetensors_of_another_name_are_refused(root: Path) -> None:
    (root / "model" / "model.safetensors").rename(root / "model" / "adapter_model.safetensors")
    assert "needs model.safetensors" in refusal("model", root)


def test_pickled_weights_beside_whole_safetensors_do_not_matter(root: Path) -> None:
    (root / "model" / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    assert shape_of("model", root) is not None


@pytest.mark.parametrize("file", ["pytorch_model.bin", "consolidated.00.pth", "model.pt", "model.ckpt", "model.pkl"])
def test_pickled_weights_are_refused(file: str, root: Path) -> None:
    (root / "model" / "model.safetensors").rename(root / "model" / file)
    said = refusal("model", root)
    assert "safetensors only" in said
    assert f"this folder holds {file}" in said


@pytest.mark.parametrize(
    ("file", "remedy"),
    [
        ("model-Q4_K_M.gguf", "gguf_file"),
        ("model.onnx", "name the model that it was made from"),
        ("a.TFLITE", "made from"),
    ],
)
def test_a_model_in_another_form_is_named_with_what_to_do(file: str, remedy: str, root: Path) -> None:
    (root / "model" / "model.safetensors").rename(root / "model" / file)
    said = refusal("model", root)
    assert f"this folder holds {file}" in said
    assert remedy in said


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("config.json", "needs a config.json"),
        ("model.safetensors", "safetensors only"),
        ("tokenizer.json", "tokenizer"),
    ],
)
def test_a_folder_that_lacks_a_part_is_refused(missing: str, said: str, root: Path) -> None:
    (root / "model" / missing).unlink()
    assert said in refusal("model", root)


@pytest.mark.parametrize(
    ("file", "what"), [("adapter_config.json", "an adapter"), ("genai_config.json", "a built model")]
)
def test_a_folder_of_something_else_is_named(file: str, what: str, root: Path) -> None:
    (root / "model" / "config.json").rename(root / "model" / file)
    assert f"this one holds {what}" in refusal("model", root)


@pytest.mark.parametrize("content", [b"{", b"[]", b"1", b"\xff\xfe", b"[" * 100_000])
def test_a_broken_config_is_refused(content: bytes, root: Path) -> None:
    (root / "model" / "config.json").write_bytes(content)
    assert "config.json" in refusal("model", root)


@pytest.mark.parametrize(
    "file", ["generation_config.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"]
)
@pytest.mark.parametrize("content", [b"{", b"[]", b"", b"\xff\xfe", b"[" * 100_000])
def test_broken_settings_beside_it_are_refused_by_name(file: str, content: bytes, root: Path) -> None:
    (root / "model" / file).write_bytes(content)
    said = refusal("model", root)
    assert file in said
    assert f"remove {file}" in said
    assert len(said) < 1000


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json", "tokenizer.model", "generation_config.json"])
def test_a_clone_without_lfs_is_told_how_to_fetch(file: str, root: Path) -> None:
    (root / "model" / file).write_bytes(POINTER)
    said = refusal("model", root)
    assert f"{file} is only a pointer of Git LFS" in said
    assert "git lfs pull" in said


def test_a_shard_that_is_a_pointer_is_found_and_a_text_about_pointers_is_none(root: Path) -> None:
    (root / "model" / "README.md").write_bytes(POINTER)
    (root / "model" / "notes.json").write_bytes(POINTER + b" " * 1024)
    assert shape_of("model", root) is not None
    sharded(root / "model", {"a": SHARD, "b": "model-2.safetensors"})
    (root / "model" / "model-2.safetensors").write_bytes(POINTER)
    assert "model-2.safetensors is only a pointer" in refusal("model", root)


@pytest.mark.parametrize("ends", ["4", True, 4.5, [4, "5"], [[4]], {"a": 4}])
def test_ends_of_a_text_must_be_tokens(ends: Any, root: Path) -> None:
    (root / "model" / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}), encoding="utf-8")
    assert "eos_token_id in generation_config.json must be a whole number" in refusal("model", root)


@pytest.mark.parametrize("ends", [None, 4, [4, 5], []])
def test_ends_of_a_text_that_are_usual(ends: Any, root: Path) -> None:
    (root / "model" / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}), encoding="utf-8")
    assert shape_of("model", root) is not None


# --- What config.json says -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_architectures_that_the_builder_exports(architecture: str) -> None:
    check_architecture(CONFIG | {"architectures": [architecture]}, "model")


@pytest.mark.parametrize(
    ("named", "said"),
    [
        (["BertForMaskedLM"], "BertForMaskedLM"),
        (["GPT2LMHeadModel"], "GPT2LMHeadModel"),
        (["T5ForConditionalGeneration", "LlamaForCausalLM"], "T5ForConditionalGeneration"),
        ([], "config.json names none"),
        (None, "config.json names none"),
        ("LlamaForCausalLM", "config.json names none"),
        (7, "config.json names none"),
        ([["LlamaForCausalLM"]], "LlamaForCausalLM"),
    ],
)
def test_another_architecture_is_refused_by_name(named: Any, said: str, root: Path) -> None:
    write_model(root / "model", architectures=named)
    told = refusal("model", root)
    assert "the model builder cannot export this architecture" in told
    assert said in told
    assert "it exports" in told


@pytest.mark.parametrize("named", [None, []])
def test_where_no_architecture_is_named_that_of_the_model_type_is_offered(named: Any, root: Path) -> None:
    write_model(root / "model", architectures=named, model_type="qwen2")
    assert 'write "architectures": ["Qwen2ForCausalLM"] into config.json' in refusal("model", root)


@pytest.mark.parametrize("architecture", ["ChatGLMModel", "InternLM2ForCausalLM", "Phi3SmallForCausalLM"])
def test_a_model_that_needs_its_own_code_is_refused_by_name(architecture: str, root: Path) -> None:
    write_model(root / "model", architectures=[architecture], auto_map={"AutoModel": "modeling_own.Model"})
    assert f"{architecture} needs code from the model's own folder, which is never run" in refusal("model", root)


def test_a_models_own_code_beside_a_built_in_architecture_does_not_matter(root: Path) -> None:
    write_model(root / "model", model_type="llama", auto_map={"AutoModelForCausalLM": "modeling_own.Model"})
    assert shape_of("model", root) is not None
    write_model(root / "model", model_type="own", auto_map={"AutoModelForCausalLM": "modeling_own.Model"})
    assert "LlamaForCausalLM needs code from the model's own folder" in refusal("model", root)


def test_a_name_with_a_line_end_is_not_on_the_hub(root: Path) -> None:
    assert not is_remote("owner/name\n", root)


def test_a_config_as_deep_as_it_is_wrong_is_refused_in_one_line(root: Path) -> None:
    deep: Any = []
    for _ in range(900):
        deep = [deep]
    for changes in ({"architectures": deep}, {"hidden_size": deep}, {"head_dim": 10**400}, {"vocab_size": 2**31}):
        write_model(root / "model", **changes)
        said = refusal("model", root)
        assert len(said) < 1000
        assert "\n" not in said


def test_the_context_of_a_model() -> None:
    assert context_of(SMOLLM2.config) == 8192
    for value in (None, 0, True, "8", 1.5):
        assert context_of({"max_position_embeddings": value}) is None


@pytest.mark.parametrize("key", ["quantization_config", "quantization", "compression_config"])
def test_a_quantised_checkpoint_is_refused(key: str, root: Path) -> None:
    write_model(root / "model", **{key: {"quant_method": "awq", "bits": 4, "group_size": 64}})
    assert "already quantised" in refusal("model", root)


@pytest.mark.parametrize("value", ["64", 64.5, -1, True, [64], {"a": 1}])
def test_sizes_must_be_numbers(value: Any, root: Path) -> None:
    write_model(root / "model", intermediate_size=value)
    assert "intermediate_size in config.json must be a whole number" in refusal("model", root)


def test_shapes() -> None:
    assert shape_from(SMOLLM2.config) == ModelShape((576, 1536), tied=True)
    own = {"hidden_size": 1024, "num_attention_heads": 16, "head_dim": 128, "intermediate_size": 3072}
    assert shape_from(own) == ModelShape((1024, 2048, 3072), tied=False)
    assert shape_from({}) == ModelShape((), tied=False)


def test_parameters_are_counted() -> None:
    assert parameters_of(SMOLLM2.config) == pytest.approx(134_515_008, rel=0.001)
    qwen = {"hidden_size": 896, "num_attention_heads": 14, "num_key_value_heads": 2, "num_hidden_layers": 24,
            "intermediate_size": 4864, "vocab_size": 151_936, "tie_word_embeddings": True}  # fmt: skip
    assert parameters_of(qwen) == pytest.approx(494_032_768, rel=0.001)
    assert parameters_of(qwen | {"tie_word_embeddings": False}) - parameters_of(qwen) == 151_936 * 896
    assert parameters_of({}) == 0


def test_the_built_in_models_are_exportable() -> None:
    for name, model in BUILT_IN.items():
        assert name == model.name
        assert shape_of(name, Path()) == shape_from(model.config)
        assert len(model.sha256) == 64


# --- Digests -------------------------------------------------------------------------------------------------------


def test_a_digest_is_of_what_the_model_does(root: Path) -> None:
    folder = root / "model"
    before = digest_folder(folder)
    (folder / "README.md").write_text("about it", encoding="utf-8")
    (folder / "manifest.json").write_text('{"made": 1}', encoding="utf-8")  # the cache's: when it was fetched
    (folder / "onnx").mkdir()
    os.utime(folder / "config.json", (1, 1))
    assert digest_folder(folder) == before
    write_model(root / "copy")
    assert digest_folder(root / "copy") == before
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        write_model(root / "copy")
        with (root / "copy" / name).open("ab") as stream:
            stream.write(b" ")
        assert digest_folder(root / "copy") != before, name
    write_model(root / "copy")
    (root / "copy" / "tokenizer.json").rename(root / "copy" / "tokeniser.json")
    assert digest_folder(root / "copy") != before


def test_a_memo_saves_reading_and_notices_changes(root: Path) -> None:
    memo: dict[str, str] = {}
    before = digest_folder(root / "model", memo)
    assert len(memo) == 3
    known = json.dumps(memo)
    assert digest_folder(root / "model", memo) == before == digest_folder(root / "model")
    assert json.dumps(memo) == known
    (root / "model" / "config.json").write_text(json.dumps(CONFIG | {"vocab_size": 300}), encoding="utf-8")
    assert digest_folder(root / "model", memo) == digest_folder(root / "model") != before


# --- Folders and settings that hold something else ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said", "remedy"),
    [
        (
            {"attn_implementation": "flash_attention_2"},
            "a way to compute attention",
            "remove the key attn_implementation",
        ),
        (
            {"_attn_implementation": "flash_attention_3"},
            "a way to compute attention",
            "remove the key _attn_implementation",
        ),
        ({"pad_token_id": 99_999}, "must be one of the model's", "correct it there"),
        ({"pad_token_id": [0, 1]}, "must be one of the model's", "correct it there"),
        ({"pad_token_id": True}, "must be one of the model's", "correct it there"),
    ],
)
def test_settings_that_no_model_can_have(changes: dict[str, Any], said: str, remedy: str, root: Path) -> None:
    write_model(root / "odd", **changes)
    told = refusal("odd", root)
    assert said in told
    assert remedy in told


@pytest.mark.parametrize(
    "changes", [{"attn_implementation": "sdpa"}, {"pad_token_id": -1}, {"pad_token_id": 0}, {"pad_token_id": None}]
)
def test_settings_that_are_usual(changes: dict[str, Any], root: Path) -> None:
    write_model(root / "usual", **changes)
    assert shape_of("usual", root) is not None


@pytest.mark.parametrize("nothing", [None, {}])
def test_a_builder_takes_nothing_for_an_unquantised_model(nothing: Any) -> None:
    check_architecture(CONFIG | {"quantization_config": nothing}, "m")
    with pytest.raises(UsageError, match=r"is empty, and the model builder takes") as caught:
        check_export(CONFIG | {"quantization_config": nothing}, "m", "cpu")
    assert caught.value.problems[0].remedy == "remove that key from config.json"


@pytest.mark.parametrize("inner", ["checkpoint-9", "snapshots/abc"])
def test_a_model_in_a_folder_below_is_named(inner: str, root: Path) -> None:
    (root / "run" / inner).mkdir(parents=True)
    write_model(root / "run" / inner)
    assert f"its is in {inner}" in refusal("run", root)
    write_model(root / "run" / "checkpoint-10")
    write_model(root / "run" / "checkpoint-11")
    if inner.startswith("checkpoint"):
        assert "its is in checkpoint-11" in refusal("run", root), "the last one"


def test_files_and_ggufs_are_told_from_folders(root: Path) -> None:
    told = refusal("model/config.json", root)
    assert "a model is a folder, and this is a file" in told
    assert "name the folder that holds it: model" in told
    (root / "model" / "small.gguf").write_bytes(b"GGUF")
    assert "gguf_file=" in refusal("model/small.gguf", root)
    (root / "model" / "config.json").unlink()
    assert "this one holds a GGUF file" in refusal("model", root)
