"""Completions: what models write after the beginnings of documents, the likeliest token each
time."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import GenerationConfig

from distill.backend.layers import input_device
from distill.data.chat.beginning import beginning_of, missing
from distill.data.settings import AUTO

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PROMPT_TOKENS, WRITTEN_TOKENS = 32, 40
"""Of a prompt, and of what is written after it at most."""


def prompts(
    texts: Sequence[str], tokenizer: "PreTrainedTokenizerBase", *, count: int, bos: str = AUTO
) -> Tensor:
    """The beginnings of the first texts that are long enough [at most `count`, PROMPT_TOKENS].

    All are as long, so that no padding is needed; each begins as a text of a corpus does that is
    read with `bos` (see `CorpusFrom`).
    """
    beginning = beginning_of(tokenizer, bos)
    rows: list[list[int]] = []
    for text in texts:
        if len(rows) == count:
            break
        # of a long document no more is read than its beginning can be made of
        ids = tokenizer(text[: 64 * PROMPT_TOKENS], add_special_tokens=False)["input_ids"]
        ids = [*missing(beginning, ids), *ids]
        if len(ids) > PROMPT_TOKENS:
            rows.append(ids[:PROMPT_TOKENS])
    return torch.tensor(rows, dtype=torch.int64).view(len(rows), PROMPT_TOKENS)


@torch.no_grad()
def completions(model: Any, ids: Tensor, tokenizer: "PreTrainedTokenizerBase") -> list[str]:
    """What `model` writes after each prompt of `ids` [prompts, tokens].

    Sampling and penalties of its own generation settings do not count.
    """
    if not len(ids):
        return []
    ends = model.generation_config.eos_token_id
    first = ends[0] if isinstance(ends, list) else ends
    settings = GenerationConfig(
        max_new_tokens=WRITTEN_TOKENS,
        do_sample=False,
        eos_token_id=ends,
        pad_token_id=0 if first is None else first,
    )
    given, own = ids.to(input_device(model)), model.generation_config
    model.eval()
    model.generation_config = settings  # what a call is given is only added to the model's own
    try:
        written = model.generate(given, attention_mask=torch.ones_like(given))
    finally:
        model.generation_config = own
    return [text_of(row, tokenizer) for row in written[:, ids.shape[1] :].tolist()]


def text_of(ids: list[int], tokenizer: "PreTrainedTokenizerBase") -> str:
    """Text of tokens, without special ones."""
    return str(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))
