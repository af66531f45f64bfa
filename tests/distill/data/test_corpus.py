import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from distill import Corpus, DistillError, Document, Packing, SplitSizes, pack_corpus
from distill.data.messages import Message
from distill.data.splits import split_of
from tests.distill.data.bytewise import decoded

BLOCK = 32
SPLITS = ("train", "selection", "test")
COUNTED = Packing(BLOCK, assistant_only=True)


def numbered(count: int, repeats: int = 12) -> list[Document]:
    return [Document(f"d{i}", f"<{i:05d}>" * repeats) for i in range(count)]


def pack(
    documents: Iterable[Document],
    tokenizer: PreTrainedTokenizerFast,
    path: Path,
    sizes: SplitSizes | None = None,
    block: int = BLOCK,
) -> Corpus:
    packing = Packing(block, sizes or SplitSizes())
    return pack_corpus(documents, tokenizer, packing=packing, directory=path / "corpus")


def numbers(corpus: Corpus, split: str, tokenizer: PreTrainedTokenizerFast) -> set[str]:
    return {
        number
        for block in corpus.blocks(split)
        for number in re.findall(r"<(\d{5})>", decoded(tokenizer, block))
    }


def documents_of(documents: list[Document]) -> dict[str, list[Document]]:
    """The documents of each split, in order."""
    found: dict[str, list[Document]] = {split: [] for split in SPLITS}
    for document in documents:
        found[split_of(document.name, 0.05, 0.05)].append(document)
    return found


@pytest.fixture
def corpus(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> Corpus:
    return pack(numbered(800), tokenizer, tmp_path)


def test_no_document_is_in_two_splits(corpus: Corpus, tokenizer: PreTrainedTokenizerFast) -> None:
    found = {split: numbers(corpus, split, tokenizer) for split in SPLITS}
    for split in SPLITS:
        assert found[split]
        for number in found[split]:
            assert split_of(f"d{int(number)}", 0.05, 0.05) == split
    total = sum(len(names) for names in found.values())
    assert len(set.union(*found.values())) == total


def test_documents_follow_each_other_with_an_end_of_text_between(
    corpus: Corpus, tokenizer: PreTrainedTokenizerFast
) -> None:
    text = decoded(tokenizer, corpus.blocks("train").ravel())
    wanted = "".join(
        document.text + tokenizer.eos_token
        for document in numbered(800)
        if split_of(document.name, 0.05, 0.05) == "train"
    )
    assert wanted.startswith(text)
    assert len(corpus.blocks("train")) > 1000
    assert corpus.blocks("train").dtype == np.uint16


def test_without_an_end_of_text_token_documents_are_joined(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    tokenizer.eos_token = None
    corpus = pack(numbered(800), tokenizer, tmp_path)
    text = decoded(tokenizer, corpus.blocks("train")[0])
    assert re.fullmatch(r"(<00\d{3}>)+.*", text)


def test_held_out_splits_have_at_most_five_percent(corpus: Corpus) -> None:
    sizes = {split: len(corpus.blocks(split)) for split in SPLITS}
    for split in ("selection", "test"):
        assert 2 <= sizes[split] <= 0.05 * (sum(sizes.values()) + sizes["train"])
        assert corpus.facts[f"{split}_tokens"] == sizes[split] * BLOCK
    assert corpus.block == BLOCK
    documents = sum(corpus.facts[f"{split}_documents"] for split in SPLITS)
    assert documents == 800


def test_one_huge_held_out_document_is_capped_too(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    documents = numbered(400)
    huge = next(d.name for d in documents if split_of(d.name, 0.05, 0.05) == "test")
    documents.append(Document(huge, "<99999>" * 20_000))
    corpus = pack(documents, tokenizer, tmp_path)
    total = 20_000 * 7 + 400 * 85
    assert corpus.blocks("test").size <= 0.05 * total
    assert corpus.blocks("selection").size <= 0.05 * total


def test_token_limits_of_the_held_out_splits(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    sizes = SplitSizes(selection_tokens=3 * BLOCK, test_tokens=4 * BLOCK + 1)
    corpus = pack(numbered(800), tokenizer, tmp_path, sizes)
    assert len(corpus.blocks("selection")) == 3
    assert len(corpus.blocks("test")) == 4


def test_copies_under_other_names_are_in_one_split_and_trained_on_if_any_is(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    documents = numbered(800)
    names: dict[str, list[Document]] = {split: [] for split in SPLITS}
    for document in documents:
        names[split_of(document.name, 0.05, 0.05)].append(document)
    held_out = names["test"][0]
    copy = names["train"][0].name + "/copy"
    while split_of(copy, 0.05, 0.05) != "train":
        copy += "y"
    trained = Document(copy, held_out.text, copies=(held_out.name,))
    documents[documents.index(held_out)] = replace(held_out, copies=(copy,))
    corpus = pack([*documents, trained], tokenizer, tmp_path)
    number = held_out.text[1:6]
    assert number in numbers(corpus, "train", tokenizer)
    assert number not in numbers(corpus, "test", tokenizer)
    assert corpus.facts["train_documents"] == len(names["train"]) + 2


def test_calibration_is_inside_training_and_spread_over_it(corpus: Corpus) -> None:
    train = corpus.blocks("train")
    chosen = corpus.calibration(7)
    rows = [int(np.flatnonzero((train == block).all(1))[0]) for block in chosen]
    assert len(rows) == len(set(rows)) == 7
    assert rows[0] == 0
    assert rows[-1] >= len(train) - 3
    assert len(corpus.calibration(10**6)) == len(train)


def test_a_corpus_opened_again_is_the_same(corpus: Corpus) -> None:
    again = Corpus(corpus.directory)
    assert again.facts == corpus.facts
    for split in SPLITS:
        assert np.array_equal(again.blocks(split), corpus.blocks(split))
        assert isinstance(again.blocks(split), np.memmap)


def test_empty_corpus(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    with pytest.raises(DistillError, match="empty"):
        pack([], tokenizer, tmp_path)


def test_corpus_too_small_says_which_split_and_how_small(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    trained = [d for d in numbered(100) if split_of(d.name, 0.05, 0.05) == "train"]
    with pytest.raises(DistillError, match=r"selection split has 0 blocks of 32 .*--block"):
        pack(trained, tokenizer, tmp_path)
    with pytest.raises(DistillError, match=r"train split has 2 blocks of 32 "):
        pack(trained[:1], tokenizer, tmp_path)
    with pytest.raises(DistillError, match=r"blocks of 8192 "):
        pack(numbered(800), tokenizer, tmp_path, block=8192)
    assert not (tmp_path / "corpus").exists()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"selection_share": 0.0},
        {"test_share": 0.06},
        {"selection_share": -1.0},
        {"selection_tokens": 0},
        {"test_tokens": -5},
    ],
)
def test_sizes_that_make_no_sense_are_named(wrong: dict[str, Any]) -> None:
    ((name, value),) = wrong.items()
    with pytest.raises(DistillError, match=f"{name} is {value}"):
        SplitSizes(**wrong)


def test_a_token_limit_below_the_least_is_named(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    with pytest.raises(DistillError, match="selection_tokens is 33"):
        pack(numbered(800), tokenizer, tmp_path, SplitSizes(selection_tokens=33))


CHATML = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{% endif %}"
)


@pytest.fixture
def chat_tokenizer(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = CHATML
    return tokenizer


def asked(number: int, question: int, answer: int, turns: int = 1) -> Document:
    """A chat whose questions and answers have so many characters."""
    messages = []
    for _ in range(turns):
        messages.append(Message("user", f"<{number:05d}>".ljust(question, "?")))
        messages.append(Message("assistant", f"[{number:05d}]".ljust(answer, "!")))
    return Document.chat(tuple(messages))


def answers(tokenizer: PreTrainedTokenizerFast, blocks: NDArray[Any], weights: NDArray[Any]) -> str:
    """The tokens whose prediction counts."""
    counted = blocks[:, 1:][weights[:, :-1]]
    return decoded(tokenizer, counted)


def test_weights_say_which_prediction_counts_across_block_borders(
    chat_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    documents = [asked(i, 20 + i % 7, 30 + i % 11, turns=1 + i % 3) for i in range(300)]
    path = tmp_path / "corpus"
    corpus = pack_corpus(documents, chat_tokenizer, packing=COUNTED, directory=path)
    trained = documents_of(documents)["train"]
    ids, counts = [], []
    for document in trained:
        for message in document.messages or ():
            head = f"<|im_start|>{message.role}\n"
            for text, is_ in (
                (head, False),
                (f"{message.content}<|im_end|>", message.role == "assistant"),
                ("\n", False),
            ):
                piece = chat_tokenizer(text).input_ids
                ids += piece
                counts += [is_] * len(piece)
    whole = len(ids) // BLOCK * BLOCK
    tokens = np.array(ids[:whole]).reshape(-1, BLOCK)
    weights = np.zeros(tokens.shape, bool)
    weights[:, :-1] = np.array(counts[:whole]).reshape(-1, BLOCK)[:, 1:]
    kept = np.asarray(weights.any(1))
    assert 0 < kept.sum() < len(kept)
    assert np.array_equal(corpus.blocks("train"), tokens[kept])
    stored = corpus.weights("train")
    assert stored is not None and np.array_equal(stored, weights[kept])
    assert corpus.facts["train_dropped_blocks"] == (~kept).sum()
    assert corpus.facts["train_counted_tokens"] == weights.sum()
    assert corpus.facts["train_tokens"] == kept.sum() * BLOCK
    for split in SPLITS:
        found = corpus.weights(split)
        assert isinstance(found, np.memmap)
        assert found.dtype == np.bool_
        assert found.shape == corpus.blocks(split).shape
        assert found.any(1).all()
        assert not found[:, -1].any()
        assert corpus.facts[f"{split}_counted_tokens"] == found.sum()
        told = answers(chat_tokenizer, corpus.blocks(split), found)
        assert "<|im_end|>" in told
        assert "!" in told
        assert not set(told) & set("?\n")


def test_a_chat_ends_itself_and_a_text_does_not(
    chat_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    documents = [d for i in range(400) for d in (asked(i, 8, 8), Document(f"d{i}", f"plain {i}"))]
    corpus = pack(documents, chat_tokenizer, tmp_path)
    text = decoded(chat_tokenizer, corpus.blocks("train").ravel())
    wanted = "".join(
        document.text + "<end>"
        if document.messages is None
        else "".join(f"<|im_start|>{m.role}\n{m.content}<|im_end|>\n" for m in document.messages)
        for document in documents_of(documents)["train"]
    )
    assert wanted.startswith(text)
    assert len(wanted) - len(text) < 10 * BLOCK
    for split in SPLITS:
        assert corpus.weights(split) is None
    assert not any("counted" in fact or "dropped" in fact for fact in corpus.facts)


def test_all_of_a_text_counts_beside_chats(
    chat_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    documents = [d for i in range(400) for d in (asked(i, 8, 8), Document(f"d{i}", f"plain {i}"))]
    path = tmp_path / "corpus"
    corpus = pack_corpus(documents, chat_tokenizer, packing=COUNTED, directory=path)
    blocks, weights = corpus.blocks("train"), corpus.weights("train")
    assert weights is not None
    told = answers(chat_tokenizer, blocks, weights)
    hidden = decoded(chat_tokenizer, blocks[:, 1:][~weights[:, :-1]])
    assert len(re.findall(r"plain \d+<end>", told)) > 200
    assert "plain" not in hidden
    assert "assistant" not in told


def test_a_chat_and_its_copy_share_a_split_and_are_both_packed(
    chat_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    # a chat is two blocks: question and header, of which nothing counts, and an answer of 22 + 1
    documents = [asked(i, 21, 22) for i in range(400)]
    before = documents_of(documents)
    copied = [*documents, before["train"][0], before["test"][0]]
    after = documents_of(copied)
    for split in ("train", "test"):
        assert after[split] == [*before[split], before[split][0]]
    corpus = pack_corpus(copied, chat_tokenizer, packing=COUNTED, directory=tmp_path / "corpus")
    blocks = corpus.blocks("train")
    assert len(blocks) == len(before["train"]) + 1 == corpus.facts["train_documents"]
    assert np.array_equal(blocks[-1], blocks[0])
    assert len(np.unique(blocks, axis=0)) == len(blocks) - 1
    assert corpus.facts["train_counted_tokens"] == 23 * len(blocks)
    assert corpus.facts["train_dropped_blocks"] == len(blocks)


def test_chats_without_a_template_and_weights_without_chats(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    chats = [asked(i, 40, 40) for i in range(400)]
    for assistant_only in (True, False):
        with pytest.raises(DistillError, match="no chat template"):
            packing = Packing(BLOCK, assistant_only=assistant_only)
            pack_corpus(chats, tokenizer, packing=packing, directory=tmp_path / "corpus")
    with pytest.raises(DistillError, match="--assistant_only is set, but the corpus has no chats"):
        pack_corpus(numbered(800), tokenizer, packing=COUNTED, directory=tmp_path / "corpus")
    assert list(tmp_path.iterdir()) == []


def test_corpus_in_which_too_little_counts(
    chat_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    chats = [Document.chat((Message("user", f"{i}" * 30),)) for i in range(800)]
    with pytest.raises(DistillError, match=r"0 blocks of 32 .*\d+ more in which no token counts"):
        pack_corpus(chats, chat_tokenizer, packing=COUNTED, directory=tmp_path / "corpus")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def gapped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Corpus, PreTrainedTokenizerFast]:
    """Of three tokens, one with a number far above how many there are."""
    words = Tokenizer(models.WordLevel({"[unknown]": 0, "low": 1, "high": 70_000}, "[unknown]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words)
    documents = [Document(str(number), f"{number} low high low " * 8) for number in range(200)]
    directory = tmp_path_factory.mktemp("gapped") / "corpus"
    return pack_corpus(documents, tokenizer, packing=Packing(8), directory=directory), tokenizer


def test_numbers_that_are_left_out_do_not_wrap(gapped: Any) -> None:
    corpus, _ = gapped
    assert set(np.unique(corpus.blocks("train"))) == {0, 1, 70_000}


def test_tokens_beyond_a_vocabulary_are_refused_by_name(gapped: Any) -> None:
    corpus, tokenizer = gapped
    corpus.require_known(70_001, tokenizer, "the teacher")
    with pytest.raises(DistillError, match=r"'high' \(number 70000\).* 70,000 tokens .* the pupil"):
        corpus.require_known(70_000, tokenizer, "the pupil")
