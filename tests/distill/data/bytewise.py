"""A tokenizer of bytes with a chat template, and what it makes of chats."""

from typing import Any

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from distill import Document
from distill.data.chat.encoder import Encoded, Encoder, Rejected
from distill.data.messages import Message

SPECIAL = ["<s>", "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>"]
SPECIAL += ["<|eot_id|>"]


def bytewise(
    template: str | dict[str, str] | None,
    merges: list[tuple[str, str]] | None = None,
    framed: str = "<s> $A",
) -> PreTrainedTokenizerFast:
    """A token per byte (and per merge), <end> after a text, and a <s> it likes to put first.

    `framed` is what it makes of a text, in the words of tokenizers' TemplateProcessing.
    """
    merges = merges or []
    tokens = ["<end>", *sorted(pre_tokenizers.ByteLevel.alphabet()), *(a + b for a, b in merges)]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(["<end>", *SPECIAL])
    known = [(token, made.token_to_id(token)) for token in ("<end>", *SPECIAL)]
    made.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=True),
            processors.TemplateProcessing(single=framed, pair=None, special_tokens=known),
        ]
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<end>", bos_token="<s>")
    tokenizer.chat_template = template
    return tokenizer


def chat(*turns: str) -> Document:
    """Turns like "user: hi"."""
    said = (turn.partition(": ") for turn in turns)
    return Document.chat(tuple(Message(role, content) for role, _, content in said))


def decoded(tokenizer: PreTrainedTokenizerBase, ids: Any) -> str:
    """The text of an array of tokens."""
    text = tokenizer.decode(np.asarray(ids).tolist())
    assert isinstance(text, str)
    return text


def encoded(encoder: Encoder, *documents: Document) -> list[Encoded]:
    """What the documents become, none of which is rejected."""
    rows = [row for row in encoder.encode(documents) if isinstance(row, Encoded)]
    assert len(rows) == len(documents)
    return rows


def reason(
    tokenizer: PreTrainedTokenizerFast, document: Document, assistant_only: bool = True
) -> str:
    """Why the document is rejected; the one beside it is not."""
    beside = Document("name", "plain")
    found, plain = Encoder.of(tokenizer, assistant_only).encode([document, beside])
    assert isinstance(found, Rejected), tokenizer.decode(found.ids)
    assert isinstance(plain, Encoded) and tokenizer.decode(plain.ids) == "<s>plain<end>"
    assert "\n" not in found.reason
    return found.reason
