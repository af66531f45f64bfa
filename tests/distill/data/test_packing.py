import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from distill import (
    Corpus,
    CorpusFiles,
    CorpusFrom,
    CorpusPlan,
    DistillError,
    Document,
    Packing,
    SplitSizes,
)
from distill.data import mixture as mixture_module
from distill.data import packing as packing_module
from distill.data.files.rows import Unusable
from distill.data.mixture import Input
from distill.data.packing import pack_inputs

BLOCK = 32
SPLITS = ("train", "selection", "test")
SMALL = SplitSizes(selection_tokens=4 * BLOCK, test_tokens=4 * BLOCK)


def numbered(count: int, word: str = "d", repeats: int = 12) -> list[Document]:
    return [Document(f"{word}{i}", f"<{word}{i:05d}>" * repeats) for i in range(count)]


class Killed(BaseException):
    """As the kernel does it: nothing of the packing catches it."""


def dying_after(items: list[Any], count: int | None) -> "Input":
    def read(_: object) -> Iterator[Any]:
        for number, item in enumerate(items):
            if number == count:
                raise Killed
            yield item

    return Input("some", read)


def pack(
    inputs: list[Input], tokenizer: PreTrainedTokenizerFast, path: Path, packing: Packing
) -> Corpus:
    return pack_inputs(inputs, tokenizer, packing=packing, directory=path / "corpus")


def same(one: Corpus, other: Corpus) -> bool:
    return one.facts == other.facts and all(
        np.array_equal(one.blocks(split), other.blocks(split)) for split in SPLITS
    )


@pytest.fixture
def saved_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small batches, and a note after every document."""
    monkeypatch.setattr(packing_module, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(mixture_module, "BATCH_DOCUMENTS", 20)


@pytest.mark.parametrize("assistant_only", [False, True])
def test_what_was_killed_goes_on_where_it_was(
    tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
    lines: list[str],
    saved_often: None,
    assistant_only: bool,
) -> None:
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role[0] }}: {{ m.content }}{% generation %}\n"
        "{% endgeneration %}{% endfor %}"
    )
    items: list[Any] = [*numbered(60), Unusable("line 9", "why"), None, *numbered(60, "e")]
    if assistant_only:
        from distill.data.messages import Message

        chats = [(Message("user", f"{i} " * 9), Message("assistant", "!" * i)) for i in range(90)]
        items = [*items, *map(Document.chat, chats)]
    packing = Packing(BLOCK, SMALL, assistant_only)
    whole = pack([dying_after(items, None)], tokenizer, tmp_path / "whole", packing)
    for count in (1, 25, 26, 90):
        with pytest.raises(Killed):
            pack([dying_after(items, count)], tokenizer, tmp_path / "cut", packing)
    found = pack([dying_after(items, None)], tokenizer, tmp_path / "cut", packing)
    assert same(whole, found)
    assert [line.split(" behind")[0] for line in lines] == ["corpus: packing goes on"] * 3
    assert sorted(path.name for path in (tmp_path / "cut").iterdir()) == ["corpus"]


def test_a_file_that_is_shorter_than_was_noted_is_packed_again(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, lines: list[str], saved_often: None
) -> None:
    items = numbered(120)
    whole = pack([dying_after(items, None)], tokenizer, tmp_path / "whole", Packing(BLOCK, SMALL))
    for broken in ("train.ids", "state.json"):
        with pytest.raises(Killed):
            pack([dying_after(items, 90)], tokenizer, tmp_path / "cut", Packing(BLOCK, SMALL))
        path = tmp_path / "cut" / ".corpus.part" / broken
        path.write_bytes(path.read_bytes()[:50])
        inputs = [dying_after(items, None)]
        assert same(whole, pack(inputs, tokenizer, tmp_path / "cut", Packing(BLOCK, SMALL)))
        assert lines == []


def test_no_more_is_read_than_is_needed(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    items = numbered(100_000)
    taken: list[Document] = []

    def read(_: object) -> Iterator[Document]:
        for item in items:
            taken.append(item)
            yield item

    packing = Packing(BLOCK, SMALL, needed=20_000)
    corpus = pack([Input("some", read)], tokenizer, tmp_path, packing)
    assert 20_000 <= corpus.facts["train_tokens"] < 30_000
    assert corpus.facts["selection_tokens"] == corpus.facts["test_tokens"] == 4 * BLOCK
    assert len(taken) < 2000
    assert "some: a part of it read" in corpus.facts["notes"]


def test_how_much_of_a_file_was_read_is_said(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("\n\n".join(item.text for item in numbered(4000)))
    plan = CorpusPlan.of(
        str(path),
        CorpusFiles(),
        packing=Packing(BLOCK, SMALL, reading=CorpusFrom(tokens=100_000)),
    )
    corpus = plan.packed(tokenizer, "bytes", root=tmp_path / "work")
    (line,) = corpus.facts["notes"]
    part = int(line.removesuffix("% of it read").split(": ")[1])
    assert 25 < part < 75


def test_reading_goes_on_until_the_held_out_splits_are_full(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    inputs = [Input("some", lambda _: iter(numbered(100_000)))]
    corpus = pack(inputs, tokenizer, tmp_path, Packing(BLOCK, SMALL, needed=BLOCK))
    total = sum(corpus.facts[f"{split}_tokens"] for split in SPLITS)
    assert corpus.facts["test_tokens"] == 4 * BLOCK
    assert corpus.facts["train_tokens"] > 0.8 * total


def test_tokens_may_be_given(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    reading = CorpusFrom(tokens=50_000)
    inputs = [Input("some", lambda _: iter(numbered(100_000)))]
    corpus = pack(inputs, tokenizer, tmp_path, Packing(BLOCK, SMALL, reading=reading, needed=999))
    assert 0.85 * 50_000 < corpus.facts["train_tokens"] < 50_000
    few = Packing(BLOCK, SMALL, reading=CorpusFrom(tokens=300))
    with pytest.raises(DistillError, match=r"too small.*larger --corpus_from.tokens"):
        pack([Input("some", lambda _: iter(numbered(100_000)))], tokenizer, tmp_path / "few", few)


def mixture(
    tokenizer: PreTrainedTokenizerFast,
    path: Path,
    weights: list[float] | None,
    counts: tuple[int, int] = (2000, 2000),
) -> Corpus:
    inputs = [
        Input("short", lambda _: iter(numbered(counts[0], "a", 2))),
        Input("long", lambda _: iter(numbered(counts[1], "b", 40))),
    ]
    needed = 30_000 if weights else None
    packing = Packing(BLOCK, SMALL, reading=CorpusFrom(weights=weights), needed=needed)
    return pack(inputs, tokenizer, path, packing)


def share(corpus: Corpus, tokenizer: PreTrainedTokenizerFast) -> float:
    """Of the short source in the training tokens."""
    text = tokenizer.decode(corpus.blocks("train").ravel().tolist())
    return text.count("<a") / (text.count("<a") + text.count("<b"))


@pytest.mark.parametrize("weights", [[0.5, 0.5], [3.0, 1.0], [0.1, 0.9]])
def test_weights_are_shares_of_the_tokens(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, weights: list[float]
) -> None:
    corpus = mixture(tokenizer, tmp_path, weights)
    assert share(corpus, tokenizer) == pytest.approx(weights[0] / sum(weights), abs=0.03)
    wanted = f"{weights[0] / sum(weights):.0%}"
    (line,) = [note for note in corpus.facts["notes"] if "of its tokens" in note]
    assert float(line.split("%")[0]) == pytest.approx(float(wanted[:-1]), abs=3)


def test_a_mixture_ends_with_its_first_source_and_says_so(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    corpus = mixture(tokenizer, tmp_path, [0.5, 0.5], counts=(900, 100_000))
    assert share(corpus, tokenizer) == pytest.approx(0.5, abs=0.05)
    assert any("short" in note and "ended" in note for note in corpus.facts["notes"])


def test_sources_without_weights_are_all_read(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    corpus = mixture(tokenizer, tmp_path, None, counts=(900, 100))
    documents = sum(corpus.facts[f"{split}_documents"] for split in SPLITS)
    assert documents == 1000
    assert not any("part" in note for note in corpus.facts["notes"])


def test_a_mixture_that_was_killed_goes_on_as_it_would_have(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, saved_often: None
) -> None:
    packing = Packing(BLOCK, SMALL, reading=CorpusFrom(weights=[0.7, 0.3]), needed=8_000)

    def inputs(count: int | None) -> list[Input]:
        longer = Input("long", lambda _: iter(numbered(5000, "b", 40)))
        return [dying_after(numbered(5000, "a", 3), count), longer]

    whole = pack(inputs(None), tokenizer, tmp_path / "whole", packing)
    with pytest.raises(Killed):
        pack(inputs(90), tokenizer, tmp_path / "cut", packing)
    assert same(whole, pack(inputs(None), tokenizer, tmp_path / "cut", packing))


def test_texts_of_the_held_out_splits_are_kept(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    items = numbered(800)
    corpus = pack(
        [Input("some", lambda _: iter(items))], tokenizer, tmp_path, Packing(BLOCK, SMALL)
    )
    texts = {item.text for item in items}
    for split in ("selection", "test"):
        found = corpus.texts(split)
        assert len(found) == corpus.facts[f"{split}_documents"] > 10
        assert set(found) < texts
    assert not (corpus.directory / "train.texts.jsonl").exists()
    assert json.loads((corpus.directory / "facts.json").read_text())["digest"] == corpus.digest


def test_the_digest_is_of_what_is_packed(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    def digest(items: list[Document], name: str, **options: Any) -> str:
        inputs = [Input(name, lambda _: iter(items))]
        return pack(inputs, tokenizer, tmp_path / name, Packing(BLOCK, SMALL, **options)).digest

    items = numbered(800)
    first = digest(items, "first")
    assert first == digest(items, "again")
    assert first != digest([*items[:400], Document("d400", "else" * 30), *items[401:]], "other")
    assert first != digest(items, "needed", needed=20_000)
