"""Mistakes in a config.json by itself, told by the name of the key."""

from __future__ import annotations

from typing import Any

import pytest

from autotune.model_settings import settings_problems

SOUND: dict[str, Any] = {
    "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2, "vocab_size": 512,
}  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"num_key_value_heads": None},
        {"num_attention_heads": 6, "num_key_value_heads": 3, "hidden_size": 100, "head_dim": 16},
        {"pad_token_id": 511},
        {"pad_token_id": -1},
        {"pad_token_id": None},
        {"rope_scaling": None},
        {"rope_theta": 500000.0, "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                                                  "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}},
        {"rope_scaling": {"type": "linear", "factor": 4.0}},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}},
        {"rope_scaling": {"type": "dynamic", "alpha": 1000.0, "beta_fast": 32, "beta_slow": 1, "factor": 1.0, "mscale": 1.0}},
        {"rope_scaling": {"type": "longrope", "short_factor": [1.0], "long_factor": [2.0]}},
        {"rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 8.0}, "sliding_attention": {"rope_type": "default"}}},
    ],
)  # fmt: skip
def test_what_models_have_is_taken(changes: dict[str, Any]) -> None:
    assert list(settings_problems(SOUND | changes)) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_attention_heads": 0}, "num_attention_heads in config.json must be at least 1, and is 0"),
        ({"num_hidden_layers": 0}, "num_hidden_layers in config.json must be at least 1"),
        ({"hidden_size": "64"}, "hidden_size in config.json must be a whole number, and is '64'"),
        ({"num_attention_heads": 6, "num_key_value_heads": 4, "hidden_size": 96}, "num_key_value_heads in config.json must divide"),
        ({"hidden_size": 66}, "num_attention_heads in config.json must divide hidden_size, and they are 4 and 66"),
        ({"pad_token_id": 512}, "pad_token_id in config.json must be below vocab_size, and they are 512 and 512"),
        ({"rope_scaling": "linear"}, "rope_scaling in config.json must be a mapping, and is 'linear'"),
        ({"rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]}}, "rope_scaling.type in config.json must be one of default, linear"),
        ({"rope_parameters": {"rope_type": "foo"}}, "rope_parameters.rope_type in config.json must be one of"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "rope_parameters in config.json lacks factor, which the rotation yarn needs"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "rope_scaling in config.json lacks low_freq_factor"),
        ({"rope_scaling": {"type": "linear", "factor": "4"}}, "rope_scaling.factor in config.json must be a number above 0, and is '4'"),
        ({"rope_parameters": {"rope_theta": 0}}, "rope_parameters.rope_theta in config.json must be a number above 0, and is 0"),
        ({"rope_parameters": {"full_attention": {"rope_type": "foo"}}}, "rope_parameters.full_attention.rope_type in config.json"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_key(changes: dict[str, Any], said: str) -> None:
    found = list(settings_problems(SOUND | changes))
    assert any(rule.startswith(said) for rule, _ in found), found
    assert all(remedy for _, remedy in found)


def test_all_mistakes_are_told_at_once() -> None:
    wrong = SOUND | {"num_hidden_layers": -1, "pad_token_id": 9999, "rope_scaling": {"type": "bar"}}
    assert len(list(settings_problems(wrong))) == 3
