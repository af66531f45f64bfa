"""How texts and chats begin, for tokenizers that put other things before a text."""

from typing import Any

import numpy as np
import pytest
from transformers import ByT5Tokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from distill import DistillError, Document
from distill.data.chat.beginning import beginning_of, missing
from distill.data.chat.encoder import Encoded, Encoder
from distill.data.settings import ALWAYS, AUTO, BOS, NEVER
from tests.distill.data.bytewise import bytewise, chat, encoded
from tests.distill.data.chat.test_encoder import CHATML, HEADERS, MARKED, TALK

FRAMES = {
    "<s> $A": ["<s>"],
    "<s> $A <end>": ["<s>"],
    "$A": [],
    "$A <end>": [],
    "<end> $A": ["<end>"],
    "<|im_start|> $A <|im_end|>": ["<|im_start|>"],
    "<|im_start|> <s> $A": ["<|im_start|>", "<s>"],
}
"""What a tokenizer makes of a text, and what the text then begins with."""


def written(tokenizer: PreTrainedTokenizerBase, text: str, bos: str) -> list[str]:
    (found,) = Encoder.of(tokenizer, False, bos=bos).encode([Document("name", text)])
    assert isinstance(found, Encoded)
    assert found.counted.shape == found.ids.shape
    assert found.counted.all()
    return [str(tokenizer.convert_ids_to_tokens(int(token))) for token in found.ids]


@pytest.mark.parametrize("frame", FRAMES)
def test_text_begins_as_the_tokenizer_begins_it_and_ends_once(frame: str) -> None:
    tokenizer = bytewise(None, framed=frame)
    text = ["o", "n", "e", "<end>"]
    assert written(tokenizer, "one", AUTO) == [*FRAMES[frame], *text]
    assert written(tokenizer, "one", ALWAYS) == ["<s>", *text]
    assert written(tokenizer, "one", NEVER) == text


@pytest.mark.parametrize("frame", [frame for frame in FRAMES if FRAMES[frame]])
def test_text_that_is_written_with_its_beginning_gets_no_other(frame: str) -> None:
    tokenizer = bytewise(None, framed=frame)
    begins = FRAMES[frame]
    for start in range(len(begins)):
        text = "".join(begins[start:]) + "a"
        assert written(tokenizer, text, AUTO) == [*begins, "a", "<end>"]
    assert written(tokenizer, "<s>a", ALWAYS) == ["<s>", "a", "<end>"]
    assert written(tokenizer, "a<s>", AUTO) == [*begins, "a", "<s>", "<end>"]


def test_what_is_missing_of_a_beginning() -> None:
    assert missing((1, 2), []) == (1, 2)
    assert missing((1, 2), [1]) == (1, 2)
    assert missing((1, 2), [1, 2, 3]) == ()
    assert missing((1, 2), [2, 3]) == (1,)
    assert missing((), [1]) == ()


def test_ids_are_those_of_the_tokenizer_with_its_special_tokens() -> None:
    tokenizer = bytewise(None, merges=[("a", "b"), ("ab", "c")])
    texts = ["abcab", "", "\n", "caf\u00e9 \U0001f600", "<|im_start|>", "x" * 500]
    documents = [Document("name", text) for text in texts]
    found = encoded(Encoder.of(tokenizer, False), *documents)
    for text, row in zip(texts, found, strict=True):
        assert row.ids.dtype == np.int64
        assert row.ids.tolist() == [*tokenizer(text).input_ids, tokenizer.eos_token_id], text


def test_what_a_tokenizer_was_told_to_cut_or_fill_does_not_matter() -> None:
    """Settings that tokenizer.json may hold, and those that an earlier call leaves behind."""
    tokenizer = bytewise(None)
    tokenizer.pad_token = "<end>"
    for settle in (
        lambda: tokenizer.backend_tokenizer.enable_truncation(2),
        lambda: tokenizer.backend_tokenizer.enable_padding(length=9),
        lambda: tokenizer(["a", "bcd"], padding=True, truncation=True, max_length=2),
        lambda: setattr(tokenizer.backend_tokenizer, "encode_special_tokens", True),
    ):
        settle()
        assert written(tokenizer, "abc<s>d", AUTO) == ["<s>", "a", "b", "c", "<s>", "d", "<end>"]


def test_what_a_class_does_besides_its_backend_is_done() -> None:
    class Shouting(PreTrainedTokenizerFast):
        def __call__(self, text: Any, *given: Any, **options: Any) -> Any:
            return super().__call__([each.upper() for each in text], *given, **options)

    class Doubling(PreTrainedTokenizerFast):
        def _encode_plus(self, text: Any, *given: Any, **options: Any) -> Any:
            return super()._encode_plus([each * 2 for each in text], *given, **options)

    backend = bytewise(None).backend_tokenizer
    for kind, made in ((Shouting, "AB"), (Doubling, "abab"), (PreTrainedTokenizerFast, "ab")):
        make: Any = kind
        tokenizer = make(tokenizer_object=backend, eos_token="<end>", bos_token="<s>")
        assert written(tokenizer, "ab", NEVER) == [*made, "<end>"]


def test_slow_tokenizer_begins_texts_as_it_does() -> None:
    tokenizer = ByT5Tokenizer(extra_ids=0)
    assert not tokenizer.is_fast
    assert written(tokenizer, "ab", AUTO) == ["a", "b", "</s>"]
    with pytest.raises(DistillError, match="--corpus_from.bos is always.*no BOS token"):
        Encoder.of(tokenizer, False, bos=ALWAYS)


def test_tokenizer_without_a_bos_cannot_always_put_one() -> None:
    tokenizer = bytewise(None, framed="$A")
    tokenizer.bos_token = None
    with pytest.raises(DistillError, match="^--corpus_from.bos is always, but .* auto or never"):
        beginning_of(tokenizer, ALWAYS)
    assert beginning_of(tokenizer, AUTO) == beginning_of(tokenizer, NEVER) == ()


@pytest.mark.parametrize("template", [CHATML, HEADERS, MARKED], ids=["none", "own", "marked"])
@pytest.mark.parametrize("assistant_only", [True, False])
def test_chat_begins_as_its_template_says(template: str, assistant_only: bool) -> None:
    tokenizer = bytewise(template)
    rows = {}
    for bos in BOS:
        (rows[bos],) = encoded(Encoder.of(tokenizer, assistant_only, bos=bos), chat(*TALK))
    own = rows[AUTO].ids[0] == tokenizer.bos_token_id
    assert own == (template == HEADERS)
    assert rows[NEVER].ids.tolist() == rows[AUTO].ids.tolist()
    put = [] if own else [tokenizer.bos_token_id]
    assert rows[ALWAYS].ids.tolist() == [*put, *rows[AUTO].ids.tolist()]
    counted = [not assistant_only] * len(put) + rows[AUTO].counted.tolist()
    assert rows[ALWAYS].counted.tolist() == counted
