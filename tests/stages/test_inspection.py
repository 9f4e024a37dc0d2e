"""What is seen of a model, its tokenizer and the data before anything is trained."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TONES, Do, tone_items
from odd_models import ALTERNATING, Weights, around, copied, with_json, with_template, with_tokens, with_weights

from autotune.stages.inspection_findings import AS_SAVED, Inspection
from autotune.stages.preparation_jobs import InspectJob
from autotune.stages.text import load_tokenizer, prompt_ids

Write = Callable[[list[dict[str, Any]]], Path]
LABELS = tuple(f" {tone}" for tone in TONES)


@pytest.fixture
def model(tiny_llama: Path, tmp_path: Path) -> Path:
    """A copy of the tiny Llama, to be changed."""
    return copied(tiny_llama, tmp_path / "model")


@pytest.fixture
def look(do: Do, write_items: Write) -> Callable[..., Inspection]:
    """Look at a model and items: `look(folder, items, labels=..., metric=...)`."""

    def run(folder: Path, items: list[dict[str, Any]] | None = None, **given: Any) -> Inspection:
        items = tone_items(24) if items is None else items
        shared: dict[str, Any] = {"labels": LABELS, "metric": "choice", "max_length": 128, "ships": True}
        files = (write_items(items[: len(items) // 2]), write_items(items[len(items) // 2 :]))
        job = InspectJob(
            model="m", data=(("train", "t"), ("validation", "v")), model_dir=folder, files=files, **shared | given
        )
        return Inspection.model_validate(do(job)[1])

    return run


def chats(count: int, *roles: str) -> list[dict[str, Any]]:
    return [
        {**item, "prompt": [{"role": role, "content": f"I felt {n}"} for role in roles or ("user",)]}
        for n, item in enumerate(tone_items(count))
    ]


# --- Weights -------------------------------------------------------------------------------------------------------


def test_whole_models_have_nothing_wrong(look: Callable[..., Inspection], tiny_llama: Path, tiny_qwen2: Path) -> None:
    for folder in (tiny_llama, tiny_qwen2):
        seen = look(folder)
        assert (seen.trouble, seen.missing, seen.mismatched, seen.foreign, seen.unused) == ("", (), (), (), ())
        assert (seen.beyond, seen.unread, seen.alike, seen.around) == ((), "", (), ("", ""))
        # The tiny Qwen2 has not the tokenizer of the real ones.
        assert seen.encoding == (None if folder == tiny_llama else AS_SAVED)
        assert (seen.cut, seen.counts) == ({"train": 0, "validation": 0}, {"train": 12, "validation": 12})
        assert seen.texts == 24 + len(TONES), "prompts, and each completion once"


LAYER = "model.layers.1."


@pytest.mark.parametrize("name", ["model.norm.weight", f"{LAYER}mlp.up_proj.weight", f"{LAYER}self_attn.q_proj.weight"])
def test_a_missing_tensor_is_named(name: str, look: Callable[..., Inspection], model: Path) -> None:
    with_weights(model, lambda weights: {n: t for n, t in weights.items() if n != name})
    assert look(model).missing == (name,)


def test_a_head_that_is_not_in_the_file(look: Callable[..., Inspection], tiny_qwen2: Path, tmp_path: Path) -> None:
    folder = copied(tiny_qwen2, tmp_path / "untied")
    with_weights(folder, lambda weights: {n: t for n, t in weights.items() if n != "lm_head.weight"})
    assert look(folder).missing == ("lm_head.weight",)
    assert look(with_json(folder, "config.json", tie_word_embeddings=True)).missing == (), "tied, it needs none"


@pytest.mark.parametrize("kind", [torch.int8, torch.uint8, torch.int32, torch.bool])
def test_whole_numbers_are_no_weights(kind: torch.dtype, look: Callable[..., Inspection], model: Path) -> None:
    """They are a quantiser's, and would be loaded as large numbers without a word."""
    name = f"{LAYER}mlp.up_proj.weight"
    with_weights(model, lambda weights: weights | {name: (100 * weights[name]).to(kind)})
    (said,) = look(model).mismatched
    assert said.startswith(f"{name} is whole numbers (")


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float64])
def test_weights_of_any_floating_point_type_are_weights(
    kind: torch.dtype, look: Callable[..., Inspection], model: Path
) -> None:
    with_weights(model, lambda weights: {name: tensor.to(kind) for name, tensor in weights.items()})
    assert look(model).mismatched == ()


@pytest.mark.parametrize(
    ("changes", "key", "value"),
    [
        ({"rope_parameters": {"rope_type": "spiral", "rope_theta": 10000.0}}, "rope_parameters.rope_type", "spiral"),
        ({"hidden_act": "swishy"}, "hidden_act", "swishy"),
    ],
)
def test_a_value_that_transformers_does_not_know_is_named_with_its_key(
    changes: dict[str, Any], key: str, value: str, look: Callable[..., Inspection], model: Path
) -> None:
    seen = look(with_json(model, "config.json", **changes))
    assert (
        seen.trouble
        == f"the model cannot be loaded: config.json names {value!r} ({key}), which transformers does not know"
    )
    assert seen.remedy == f"correct {key} in its config.json"


def test_the_old_name_of_longrope_is_told_its_new_one(look: Callable[..., Inspection], model: Path) -> None:
    factors = {"short_factor": [1.0] * 8, "long_factor": [2.0] * 8}
    old = {"model_type": "phi3", "architectures": ["Phi3ForCausalLM"], "rope_parameters": None}
    with_json(model, "config.json", **old, original_max_position_embeddings=64, rope_scaling={"type": "su", **factors})
    seen = look(model)
    assert "rope_type" in seen.trouble
    assert seen.remedy == "write longrope for su in its config.json"


def test_shards_are_one_model(look: Callable[..., Inspection], model: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(model / "model.safetensors")
    (model / "model.safetensors").unlink()
    index = {}
    for number, names in enumerate((sorted(weights)[::2], sorted(weights)[1::2])):
        file = f"model-0000{number + 1}-of-00002.safetensors"
        save_file({name: weights[name] for name in names}, model / file, metadata={"format": "pt"})
        index |= dict.fromkeys(names, file)
    place = model / "model.safetensors.index.json"
    place.write_text(json.dumps({"metadata": {}, "weight_map": index}), encoding="utf-8")
    assert look(model).missing == ()
    lost = f"{LAYER}mlp.gate_proj.weight"
    del weights[lost]
    file = index[lost]
    save_file({n: t for n, t in weights.items() if index[n] == file}, model / file, metadata={"format": "pt"})
    named = {n: f for n, f in index.items() if n != lost}
    place.write_text(json.dumps({"metadata": {}, "weight_map": named}), encoding="utf-8")
    assert look(model).missing == (lost,)
    place.write_text(json.dumps({"weight_map": named}), encoding="utf-8")
    assert look(model).trouble == "the model cannot be loaded: its files lack the key 'metadata'"


@pytest.mark.parametrize(
    ("change", "field", "name"),
    [
        (
            lambda w: w | {f"{LAYER}mlp.up_proj.weight": torch.zeros(100, 64)},
            "mismatched",
            f"{LAYER}mlp.up_proj.weight",
        ),
        (lambda w: w | {"model.embed_tokens.weight": torch.zeros(500, 64)}, "mismatched", "model.embed_tokens.weight"),
        (lambda w: w | {f"{LAYER}self_attn.q_proj.bias": torch.ones(64)}, "foreign", f"{LAYER}self_attn.q_proj.bias"),
        (lambda w: w | {"lm_head.weight": torch.ones(512, 64)}, "foreign", "lm_head.weight"),
        (lambda w: w | {"model.layers.7.mlp.up_proj.weight": torch.ones(2, 2)}, "unused", "model.layers.7.mlp.up_proj"),
        (lambda w: w | {"mtp.fc.weight": torch.ones(2, 2)}, "unused", "mtp.fc.weight"),
    ],
)
def test_tensors_that_are_not_the_models(
    change: Callable[[Weights], Weights], field: str, name: str, look: Callable[..., Inspection], model: Path
) -> None:
    seen = look(with_weights(model, change))
    (found,) = getattr(seen, field)
    assert found.startswith(name)
    assert seen.missing == ()


def test_a_head_that_repeats_the_embedding_is_fine(look: Callable[..., Inspection], model: Path) -> None:
    with_weights(model, lambda w: w | {"lm_head.weight": w["model.embed_tokens.weight"].clone()})
    assert look(model).foreign == ()


def test_files_that_are_damaged_are_told(look: Callable[..., Inspection], model: Path) -> None:
    (model / "tokenizer.json").write_text("{}", encoding="utf-8")
    assert "the tokenizer cannot be loaded" in look(model).trouble
    (model / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0notjson!")
    assert "the model cannot be loaded" in look(model).trouble


def test_a_tokenizer_without_an_end_is_told(look: Callable[..., Inspection], model: Path) -> None:
    with_json(model, "tokenizer_config.json", eos_token=None)
    assert "names no end-of-text token" in look(model).trouble


# --- Tokens --------------------------------------------------------------------------------------------------------


def test_tokens_without_rows(look: Callable[..., Inspection], model: Path) -> None:
    whole = look(model)
    with_tokens(model, *(f"<|{n}|>" for n in range(whole.rows - whole.tokens)), "<|ticket|>", "<|team|>")
    unused = look(model)
    assert (unused.tokens, unused.rows, unused.beyond) == (whole.rows + 2, whole.rows, ())
    items = [{**item, "prompt": f"<|team|>{item['prompt']}"} for item in tone_items(8)]
    assert look(model, items).beyond == ("<|team|>",)
    with_template(model, "<|ticket|>{{ messages[0]['content'] }}")
    assert look(model, chats(8)).beyond == ("<|ticket|>",), "a template may hold them, too"


@pytest.mark.parametrize(("before", "behind"), [("<|user|>", ""), ("", "<|end|>"), ("<|user|>", "<|end|>")])
def test_tokens_that_only_transformers_puts_around_a_text(
    before: str, behind: str, look: Callable[..., Inspection], model: Path
) -> None:
    with_json(model, "tokenizer.json", post_processor=around(before, behind))
    seen = look(model)
    assert seen.around == (before, behind)
    assert (seen.differing, seen.example) == (0, "")
    assert seen.encoding is not None
    assert seen.encoding.startswith("onnxruntime-genai ")
    theirs, ours = load_tokenizer(model), load_tokenizer(model, seen.encoding)
    text = "Text: I felt joy\nTone:"
    assert prompt_ids(ours, text) == tuple(theirs.encode(text, add_special_tokens=False))
    assert len(prompt_ids(theirs, text)) == len(prompt_ids(ours, text)) + bool(before) + bool(behind)
    assert look(model, ships=False).encoding is None, "an adapter is used with transformers"
    assert look(model, chats(8)).encoding is None, "a chat template says itself what stands around"


@pytest.mark.parametrize(
    ("normalizer", "text"),
    [
        ({"type": "Lowercase"}, "I felt JOY"),
        ({"type": "NFC"}, unicodedata.normalize("NFD", "café")),
        ({"type": "NFKC"}, "ﬁne ①"),
        ({"type": "Strip", "strip_left": True, "strip_right": True}, "  joy "),
    ],
)
def test_a_normaliser_that_the_runtime_leaves_out(
    normalizer: dict[str, Any], text: str, look: Callable[..., Inspection], model: Path
) -> None:
    with_json(model, "tokenizer.json", normalizer=normalizer)
    items = [{**item, "prompt": f"{text} {n}", "completion": "x"} for n, item in enumerate(tone_items(8))]
    seen = look(model, items, metric="exact_match", labels=())
    assert seen.differing == 8 if normalizer["type"] != "Strip" else seen.differing >= 1
    assert seen.encoding is not None
    assert " there, " in seen.example


def test_a_prefix_space_that_the_runtime_leaves_out(look: Callable[..., Inspection], model: Path) -> None:
    byte_level = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    with_json(model, "tokenizer.json", pre_tokenizer=byte_level)
    assert look(model).encoding is not None


def test_a_tokenizer_that_the_runtime_cannot_read(look: Callable[..., Inspection], model: Path) -> None:
    settings = json.loads((model / "tokenizer.json").read_text(encoding="utf-8"))
    vocab = {f"w{n}": n for n in range(4, 500)} | {t["content"]: t["id"] for t in settings["added_tokens"]}
    word_level = {"type": "WordLevel", "vocab": vocab | {"<unk>": 500}, "unk_token": "<unk>"}
    with_json(model, "tokenizer.json", model=word_level, pre_tokenizer={"type": "Whitespace"}, decoder=None)
    assert "cannot read the tokenizer" in look(model).unread
    assert look(model, ships=False).unread == ""


# --- Labels and texts ----------------------------------------------------------------------------------------------


def labelled(*labels: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    items = [{**item, "completion": labels[n % len(labels)]} for n, item in enumerate(tone_items(16))]
    return items, {"labels": labels}


def test_labels_with_the_same_tokens(look: Callable[..., Inspection], model: Path) -> None:
    with_json(model, "tokenizer.json", normalizer={"type": "Lowercase"})
    items, given = labelled(" Joy", " joy", " fear")
    assert look(model, items, **given).alike == ((" Joy", " joy"),)
    with_json(model, "tokenizer.json", normalizer={"type": "NFC"})
    both = (" café", unicodedata.normalize("NFD", " café"), " lait")
    items, given = labelled(*both)
    assert look(model, items, **given).alike == (both[:2],)
    with_json(model, "tokenizer.json", normalizer=None)
    assert look(model, items, **given).alike == ()


def test_a_label_without_tokens(look: Callable[..., Inspection], model: Path) -> None:
    with_json(model, "tokenizer.json", normalizer={"type": "Replace", "pattern": {"String": "."}, "content": ""})
    items, given = labelled(".", " joy")
    assert look(model, items, **given).blank == (".",)


def test_labels_that_begin_one_another_need_room_for_the_end(look: Callable[..., Inspection], model: Path) -> None:
    items, given = labelled(" joy", " joy today", " fear")
    longest = len(load_tokenizer(model).encode(" joy today")) + 1
    assert look(model, items, max_length=longest + 2, **given).too_long == ()
    too_long = look(model, items, max_length=longest + 1, **given).too_long
    assert {(split, tokens) for split, _, tokens in too_long} == {("validation", longest)}, (
        "train has no tree of labels"
    )


def test_special_tokens_in_texts_are_found(look: Callable[..., Inspection], model: Path) -> None:
    items = tone_items(8)
    items[1]["prompt"] = f"<|user|>{items[1]['prompt']}"
    items[6]["completion"] += "<|end|>"
    items[7]["completion"] += "<|end|><|end|>\n"
    seen = look(model, items)
    found = {(one.token, one.split, one.where): one.items for one in seen.controls}
    assert found == {
        ("<|user|>", "train", "prompt"): (items[1]["id"],),
        ("<|end|>", "validation", "completion"): (items[6]["id"], items[7]["id"]),
    }
    assert seen.ends == ("<|end|>",)
    assert seen.texts == 8 + len(TONES), "the ends are off before anything is encoded"


def test_other_tokens_that_end_a_text_count(look: Callable[..., Inspection], model: Path) -> None:
    with_json(model, "generation_config.json", eos_token_id=[0, 2])
    assert look(model).ends == ("<|end|>", "<|user|>")


def test_prompts_that_are_cut_are_counted(look: Callable[..., Inspection], model: Path) -> None:
    items = tone_items(12)
    for n in (1, 2, 8):
        items[n]["prompt"] = "on it goes " * 60
    assert look(model, items).cut == {"train": 2, "validation": 1}
    assert look(model, items, max_length=512).cut == {"train": 0, "validation": 0}


def test_answers_beyond_the_context_are_told(look: Callable[..., Inspection], model: Path) -> None:
    seen = look(model, metric="exact_match", labels=(), max_new_tokens=500)
    assert seen.too_far is not None
    assert seen.too_far[1:] == (500, 512)
    assert look(model, metric="exact_match", labels=()).too_far is None


# --- Chat templates ------------------------------------------------------------------------------------------------


def test_conversations_that_the_template_refuses(look: Callable[..., Inspection], model: Path) -> None:
    with_template(model, ALTERNATING)
    items = chats(12)
    items[3]["prompt"] *= 2
    seen = look(model, items)
    assert seen.refused == (("train", items[3]["id"], "Conversation roles must alternate"),)
    assert seen.template == "", "what both refuse is no difference"
    everything = look(model, chats(12, "system", "user"))
    assert (len(everything.refused), everything.conversations) == (12, 12)
    assert {reason for _, _, reason in everything.refused} == {"System role not supported"}


def test_a_model_without_a_template_refuses_all(look: Callable[..., Inspection], model: Path) -> None:
    (model / "chat_template.jinja").unlink()
    assert {reason for _, _, reason in look(model, chats(4)).refused} == {"the model has none"}
    (model / "chat_template.json").write_text(json.dumps({"chat_template": ALTERNATING}), encoding="utf-8")
    (said,) = {reason for _, _, reason in look(model, chats(4)).refused}
    assert said == "the model has none, and its chat_template.json is read by processors alone"


def test_a_template_that_the_runtime_does_not_render(look: Callable[..., Inspection], model: Path) -> None:
    with_template(model, "{{ messages[0]['content'] | no_such_filter_there }}")
    assert len(look(model, chats(4)).refused) == 4, "nor does transformers"
    with_template(model, "{{ messages[0]['content'] | reverse }}")
    seen = look(model, chats(4))
    assert (seen.refused, seen.encoding) == ((), None)
    assert seen.template.startswith("it gives an error")
    chat = [{"role": "user", "content": "abc"}]
    shipped = load_tokenizer(model, "onnxruntime-genai")
    assert shipped.apply_chat_template(chat, add_generation_prompt=True, tokenize=False) == "cba"


# --- What no model could answer --------------------------------------------------------------------------------------


def reasons(seen: Inspection) -> dict[str, tuple[str, ...]]:
    assert set(seen.unwritten) == {"validation"}
    return {one.reason: one.items for one in seen.unwritten["validation"]}


GENERATED: dict[str, Any] = {"metric": "exact_match", "labels": ()}


@pytest.mark.parametrize("ships", [True, False])
def test_completions_that_the_tokenizer_changes_are_found(
    ships: bool, look: Callable[..., Inspection], model: Path
) -> None:
    items = tone_items(24)
    assert reasons(look(model, items, ships=ships, **GENERATED)) == {}
    items[20]["completion"] = " Joy"
    with_json(model, "tokenizer.json", normalizer={"type": "Lowercase"})
    seen = look(model, items, ships=ships, **GENERATED)
    # ONNX Runtime GenAI leaves the normaliser out, and gives the text back as it was.
    assert reasons(seen) == ({} if ships else {"text": (items[20]["id"],)})
    if not ships:
        (one,) = seen.unwritten["validation"]
        assert (one.completion, one.written) == (" Joy", "joy")


def test_completions_that_generation_ends_within_are_found(look: Callable[..., Inspection], model: Path) -> None:
    items = tone_items(24)
    joyful = tuple(item["id"] for item in items[12:] if item["completion"] == " joy")
    joy = load_tokenizer(model).encode(" joy", add_special_tokens=False)
    with_json(model, "generation_config.json", eos_token_id=[0, joy[-1]])
    assert reasons(look(model, items, **GENERATED)) == {"end": joyful}
    with_json(model, "generation_config.json", eos_token_id=0)
    assert reasons(look(model, items, stop=("oy",), **GENERATED)) == {"stop": joyful}
    longest = look(model, items, **GENERATED).longest_answer
    seen = look(model, items, max_new_tokens=longest - 1, **GENERATED)
    assert set(reasons(seen)) == {"limit"}
    assert reasons(look(model, items, max_new_tokens=longest, **GENERATED)) == {}
    assert look(model, items).unwritten == {}, "labels are compared, not written"


def test_ends_that_are_no_token_are_named(look: Callable[..., Inspection], model: Path) -> None:
    with_json(model, "generation_config.json", eos_token_id=[0, 512, -1])
    assert look(model).ends_beyond == (-1, 512)


def test_prompts_that_are_the_same_to_a_model_are_found(look: Callable[..., Inspection], model: Path) -> None:
    items = tone_items(12)
    assert look(model, items).same == {"train": (), "validation": ()}
    seen = look(model, items, max_length=8)
    assert all(len(ids) > 1 for ids in seen.same.values()), "what differs is cut off"
    with_template(model, "<|user|>Hello!<|end|>{% if add_generation_prompt %}<|assistant|>{% endif %}")
    seen = look(model, chats(12))
    assert seen.same == {"train": tuple(i["id"] for i in items[:6]), "validation": tuple(i["id"] for i in items[6:])}
    assert seen.hidden_roles == ("user",)


def test_what_the_tokenizer_does_not_know_is_found(look: Callable[..., Inspection], model: Path) -> None:
    settings = json.loads((model / "tokenizer.json").read_text(encoding="utf-8"))
    vocab = settings["model"]["vocab"] | {"<unk>": 511}
    letters = {token: number for token, number in vocab.items() if token.isascii() and token != "\u0120"}
    pieces = {"type": "BPE", "vocab": letters, "merges": [], "unk_token": "<unk>"}
    with_json(model, "tokenizer.json", model=pieces, pre_tokenizer=None, decoder=None)
    with_json(model, "tokenizer_config.json", unk_token="<unk>")
    items = [
        {**item, "prompt": f"a{n}" + "\u559c" * (n == 3), "completion": "b"} for n, item in enumerate(tone_items(8))
    ]
    seen = look(model, items, ships=False, labels=("b", "c"))
    assert seen.unknown == ("<unk>", (("train", items[3]["id"]),))


@pytest.mark.parametrize(
    ("template", "hidden", "dated"),
    [
        ("{% for m in messages %}{{ m['content'] }}{% endfor %}", (), False),
        ("{% for m in messages %}{{ m['content'] | trim }}{% endfor %}", (), False),
        ("{{ messages[-1]['content'] }}", ("system",), False),
        ("{{ strftime_now('%d %b %Y') }}{% for m in messages %}{{ m['content'] }}{% endfor %}", (), True),
        ("{% if strftime_now is defined %}{{ strftime_now('%Y') }}{% endif %}{{ messages }}", (), True),
        ("{{ range(100000) | random }}{% for m in messages %}{{ m['content'] }}{% endfor %}", (), True),
    ],
)
def test_what_a_template_leaves_out_and_what_changes_with_time(
    template: str, hidden: tuple[str, ...], dated: bool, look: Callable[..., Inspection], model: Path
) -> None:
    items = chats(8)
    for item in items:
        item["prompt"] = [{"role": "system", "content": " Be brief. "}, *item["prompt"]]
    seen = look(with_template(model, template), items)
    assert (seen.hidden_roles, bool(seen.dated), seen.refused) == (hidden, dated, ())


def test_an_adapter_inside_of_a_models_files_is_foreign(look: Callable[..., Inspection], model: Path) -> None:
    names = (f"{LAYER}self_attn.q_proj.lora_A.weight", f"{LAYER}self_attn.q_proj.lora_B.default.weight")
    with_weights(model, lambda weights: weights | {name: torch.ones(8, 64) for name in names})
    assert look(model).foreign == names


def test_modules_that_may_get_an_adapter_are_listed(look: Callable[..., Inspection], model: Path) -> None:
    seen = look(model)
    assert seen.linear == ("down_proj", "gate_proj", "k_proj", "lm_head", "o_proj", "q_proj", "up_proj", "v_proj")
    assert seen.tied_head
