"""A tiny random Llama with a byte-level tokenizer, as a user may bring one."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

END = "<end>"


def byte_tokenizer(template: str | None = None, end: str | None = END) -> PreTrainedTokenizerFast:
    """A token per byte, after one for the end of a text, where there shall be one."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = alphabet if end is None else [end, *alphabet]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    bytewise = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    bytewise.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytewise.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bytewise, eos_token=end)
    tokenizer.chat_template = template
    return tokenizer


def write_byte_llama(directory: Path, layers: int) -> Path:
    """Write it, with tied embeddings, to the new `directory`."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=257,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(directory)
    byte_tokenizer().save_pretrained(directory)
    return directory
