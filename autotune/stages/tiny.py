"""A tiny random model with a tokenizer trained in memory: probes a provider in a second, and goes through every stage.

Its weights are random, not constant: constant weights run faster than real ones.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from autotune.stages.jobs import Result, TinyJob

_TEXT = (
    "The text of a sentence has a tone: sadness, joy, fear or surprise. Which is it?",
    "Text: the quick brown fox jumps over the lazy dog, and nobody was surprised.\nTone: joy",
    "0 1 2 3 4 5 6 7 8 9 What a day! I can't believe it; she said nothing at all (as ever).",
)
_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def tiny(job: TinyJob, out: Path) -> Result:
    """Write a two-layer model (hidden 64, vocabulary 512) of `job.architecture` (Llama or Qwen2) into `out`."""
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
    if job.architecture == "Qwen2ForCausalLM":
        model: Any = Qwen2ForCausalLM(Qwen2Config(tie_word_embeddings=False, **sizes))
    else:
        model = LlamaForCausalLM(LlamaConfig(tie_word_embeddings=True, **sizes))
    model.save_pretrained(str(out))
    return {"parameters": sum(p.numel() for p in model.parameters())}
