"""A tiny random model with a tokenizer trained in memory: probes a provider in a second, and goes through every stage.

Its weights are random, not constant: constant weights run faster than real ones.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from autotune.models import ARCHITECTURES
from autotune.stages.preparation_jobs import TinyJob
from autotune.stages.protocol import Result

_TEXT = (
    "The text of a sentence has a tone: sadness, joy, fear or surprise. Which is it?",
    "Text: the quick brown fox jumps over the lazy dog, and nobody was surprised.\nTone: joy",
    "0 1 2 3 4 5 6 7 8 9 What a day! I can't believe it; she said nothing at all (as ever).",
)
_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


_OTHERS = {"vocab_size": 552, "pad_token_id": None}
"""Of other models. The builder takes any matrix with as many outputs as the vocabulary has tokens for the head, so no
other has that many; and where a token stands for padding its embedding is zero."""
_MODELS: dict[str, dict[str, Any]] = {
    "Gemma2ForCausalLM": {"query_pre_attn_scalar": 16, "sliding_window": 16},
    "Gemma3ForCausalLM": {"query_pre_attn_scalar": 16, "sliding_window": 16},
    "GptOssForCausalLM": {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 16},
    "GraniteMoeHybridForCausalLM": {
        "layer_types": ["attention", "attention"], "num_local_experts": 0, "shared_intermediate_size": 128,
        "position_embedding_type": "rope",
    },
    "Lfm2ForCausalLM": {"layer_types": ["conv", "full_attention"]},
    "Lfm2MoeForCausalLM": {
        "layer_types": ["conv", "full_attention"], "num_experts": 4, "num_experts_per_tok": 2,
        "moe_intermediate_size": 64, "num_dense_layers": 1,
    },
    "MistralForCausalLM": {"sliding_window": None},
    # Half of each head is rotated, and the runtime takes a multiple of 16.
    "NemotronForCausalLM": {"head_dim": 32},
    "PhiForCausalLM": {"hidden_size": 128},
    "Phi3ForCausalLM": {"original_max_position_embeddings": 512},
    "PhiMoEForCausalLM": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "SmolLM3ForCausalLM": {"no_rope_layers": [1, 1]},
}  # fmt: skip
"""What of a config.json a tiny model has besides its sizes."""


def random_model(architecture: str, changes: dict[str, Any], sizes: dict[str, Any]) -> Any:
    """Return a random model of an architecture. Its norms and biases are random as well: where a norm is 1 and a bias 0,
    nobody would see that they were left out.
    """
    own = _MODELS.get(architecture, {})
    # A copy: configurations fill in what they are given.
    given = copy.deepcopy({**sizes, **_OTHERS, "head_dim": 16, **own, **changes})
    if architecture in ("PhiForCausalLM", "PhiMoEForCausalLM", "OlmoForCausalLM"):  # divided, not given
        given.pop("head_dim")
    config = AutoConfig.for_model(ARCHITECTURES[architecture], **given)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def tiny(job: TinyJob, out: Path) -> Result:
    """Write a two-layer model (hidden 64) of `job.architecture` into `out`, with a tokenizer of 512 tokens at most."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=512,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_TEXT * 20, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|end|>")  # noqa: S106
    fast.chat_template = _TEMPLATE
    fast.save_pretrained(str(out))

    torch.manual_seed(job.seed)
    # No token for padding: its embedding would be zero, and a tied head could never learn to end a text with it.
    sizes = {
        "vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512,
        "bos_token_id": 0, "eos_token_id": 0, "initializer_range": 0.1,
    }  # fmt: skip
    if job.changes is not None or job.architecture not in ("LlamaForCausalLM", "Qwen2ForCausalLM"):
        model: Any = random_model(job.architecture, job.changes or {}, sizes)
    elif job.architecture == "Qwen2ForCausalLM":
        model = Qwen2ForCausalLM(Qwen2Config(tie_word_embeddings=False, **sizes))
    else:
        model = LlamaForCausalLM(LlamaConfig(tie_word_embeddings=True, **sizes))
    model.save_pretrained(str(out))
    return {"parameters": sum(p.numel() for p in model.parameters())}
