"""Completions: beginnings as a corpus has them, and the likeliest token each time."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from distill.evaluation import completions, prompts
from distill.evaluation.generation import PROMPT_TOKENS, WRITTEN_TOKENS
from tests.byte_llama import byte_tokenizer, write_byte_llama


@pytest.fixture
def model(tmp_path: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(write_byte_llama(tmp_path / "model", layers=1))


def test_prompts_are_the_beginnings_of_texts_that_are_long_enough() -> None:
    tokenizer = byte_tokenizer()
    texts = ["short", "a" * 40, "b" * 99, "c" * 33]
    ids = prompts(texts, tokenizer, count=2)
    assert ids.shape == (2, PROMPT_TOKENS)
    assert tokenizer.batch_decode(ids) == ["a" * PROMPT_TOKENS, "b" * PROMPT_TOKENS]
    assert prompts(["short"], tokenizer, count=2).shape == (0, PROMPT_TOKENS)
    assert prompts(texts, tokenizer, count=0).shape == (0, PROMPT_TOKENS)
    tokenizer.bos_token = "<end>"
    assert prompts(texts, tokenizer, count=1, bos="always")[0, :2].tolist() == [0, ids[0, 0]]


@torch.no_grad()
def test_the_likeliest_token_is_written_whatever_the_models_own_settings(model: Any) -> None:
    tokenizer = byte_tokenizer()
    ids = prompts(["The quick brown fox jumps over the lazy dog"], tokenizer, count=1)
    rows = ids
    for _ in range(WRITTEN_TOKENS):
        rows = torch.cat([rows, model(rows).logits[:, -1:].argmax(-1)], 1)
    wanted = tokenizer.decode(rows[0, PROMPT_TOKENS:], skip_special_tokens=True)
    own = model.generation_config
    own.do_sample, own.temperature, own.repetition_penalty, own.min_length = True, 9.0, 5.0, 9
    own.eos_token_id = None
    assert completions(model, ids, tokenizer) == [wanted]
    assert model.generation_config is own and own.repetition_penalty == 5.0
    assert completions(model, ids[:0], tokenizer) == []
