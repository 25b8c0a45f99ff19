"""A real model with random weights, small enough to make in a test: two layers, one token a character."""

from __future__ import annotations

import json
from pathlib import Path

ALPHABET = "0123456789abcdefghZ +=\n?.:#{}"
END_OF_TURN, TURN = "<end>", "<turn>"
RARE = (TURN, "Z")  # next to never drawn: the text of a turn hides the one; tests break the model at the other
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message.role not in ['system', 'user', 'assistant'] %}{{ raise_exception('no such role') }}{% endif %}"
    "<turn>{{ message.role[0] }}:{{ message.content }}<end>"
    "{% endfor %}{% if add_generation_prompt %}<turn>a:{% endif %}"
)


def save_tiny_model(folder: Path, *, seed: int = 0) -> Path:
    """Writes a Qwen2 model of width 64 with its tokenizer to `folder`, as a Hugging Face folder."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    letters = ALPHABET.replace(" ", "\u0120").replace("\n", "\u010a")  # as byte-level tokenizers write them
    vocabulary = {text: index for index, text in enumerate([END_OF_TURN, TURN, *letters])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END_OF_TURN,
        pad_token=END_OF_TURN,
        additional_special_tokens=[TURN],
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(folder)
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=len(vocabulary),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=512,
        initializer_range=0.3,  # sharp enough that no two tokens tie
        eos_token_id=vocabulary[END_OF_TURN],
        bos_token_id=None,
        pad_token_id=vocabulary[END_OF_TURN],
    )
    model = Qwen2ForCausalLM(config)
    with torch.no_grad():
        model.lm_head.weight[[vocabulary[text] for text in RARE]] = 0
    model.save_pretrained(folder)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": vocabulary[END_OF_TURN]}))
    return folder
