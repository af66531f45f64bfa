import sysconfig
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from distill import Document
from distill.data import long_text
from distill.data.chat import encoder as chat
from distill.data.chat.encoder import Encoder
from tests.distill.data.bytewise import encoded

TEXT = (Path(sysconfig.get_path("stdlib")) / "argparse.py").read_text()[:60_000]


@pytest.fixture(scope="module")
def bytewise() -> PreTrainedTokenizerFast:
    """Trained on the text, so that tokens have several letters; splits at blanks as GPT-2's."""
    return trained(pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel())


@pytest.fixture(scope="module")
def metaspace() -> PreTrainedTokenizerFast:
    """Begins every text with a token for a blank, as Llama 2's does."""
    return trained(pre_tokenizers.Metaspace(), decoders.Metaspace())


def trained(splitter: Any, decoder: Any) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = splitter, decoder
    tokenizer.train_from_iterator([TEXT], trainers.BpeTrainer(vocab_size=600, show_progress=False))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def parts(
    text: str,
    tokenizer: PreTrainedTokenizerFast,
    monkeypatch: pytest.MonkeyPatch,
    size: int = 5_000,
) -> list[str]:
    monkeypatch.setattr(long_text, "LONG_CHARACTERS", size)
    return long_text.parts_of(text, lambda part: tokenizer(part)["input_ids"])


def test_parts_have_the_tokens_of_the_whole(
    bytewise: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = parts(TEXT, bytewise, monkeypatch)
    assert len(found) > 4
    assert "".join(found) == TEXT
    assert len(found[0]) < 12_000
    ids = [each for part in found for each in bytewise(part)["input_ids"]]
    assert ids == bytewise(TEXT)["input_ids"]


def test_a_text_stays_whole_where_a_cut_would_show(
    metaspace: PreTrainedTokenizerFast,
    bytewise: PreTrainedTokenizerFast,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert parts(TEXT, metaspace, monkeypatch) == [TEXT]
    without_lines = TEXT.replace("\n", " ")
    assert parts(without_lines, bytewise, monkeypatch) == [without_lines]


def test_the_encoder_tokenises_long_texts_as_short_ones(
    bytewise: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = [Document("long", TEXT), Document("short", "a short one")]
    whole = encoded(Encoder.of(bytewise, False), *documents)
    for module in (chat, long_text):
        monkeypatch.setattr(module, "LONG_CHARACTERS", 5_000)
    split = encoded(Encoder.of(bytewise, False), *documents)
    for one, other in zip(whole, split, strict=True):
        assert one.ids.tolist() == other.ids.tolist()
