"""The teacher beside a guess, on the user's text."""

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from distill import Corpus
from search.overview import TeacherReading, teacher_lines
from tests.pruning.models import build_teacher

UNKNOWN = 3


class Tokenizer(SimpleNamespace):
    """As much of one as the check asks for."""

    def __len__(self) -> int:
        return int(self.size)


@pytest.fixture
def teacher() -> Any:
    return build_teacher("llama-gqa-tied")


def corpus_in(folder: Path, vocabulary: int, unknown: float = 0.0) -> Corpus:
    generator = np.random.default_rng(0)
    blocks = generator.integers(UNKNOWN + 1, vocabulary, (8, 16)).astype(np.uint16)
    blocks[generator.random(blocks.shape) < unknown] = UNKNOWN
    (folder / "facts.json").write_text(json.dumps({"block": 16}))
    for split in ("train", "selection"):
        np.save(folder / f"{split}.npy", blocks)
    return Corpus(folder)


def said(reading: TeacherReading, corpus: Corpus, vocabulary: int, size: int) -> list[str]:
    tokenizer = Tokenizer(size=size, unk_token_id=UNKNOWN, unk_token="<unk>")
    return list(teacher_lines(reading, vocabulary=vocabulary, tokenizer=tokenizer, corpus=corpus))


def test_the_reading_is_the_cross_entropy_of_the_text(teacher: Any, tmp_path: Path) -> None:
    vocabulary = teacher.config.vocab_size
    corpus = corpus_in(tmp_path, vocabulary)
    reading = TeacherReading.of(teacher, corpus)
    ids = torch.from_numpy(np.array(corpus.blocks("selection")).astype(np.int64))
    with torch.no_grad():
        expected = float(teacher(input_ids=ids, labels=ids).loss)
    assert reading.cross_entropy == pytest.approx(expected, rel=1e-5)
    assert reading.tokens == ids.numel() and reading.flops_per_second > 0


def test_a_teacher_that_knows_its_text_is_said_beside_a_guess(tmp_path: Path) -> None:
    corpus = corpus_in(tmp_path, 2_048)
    (line,) = said(TeacherReading(math.log(12.1), 1_024, 1e9), corpus, 2_048, 2_000)
    assert line == (
        "teacher: perplexity 12.1 on 1,024 tokens of the selection split; a guess among its 2,048 "
        "tokens has 2,048"
    )


@pytest.mark.parametrize("perplexity", [1_900.0, 5_000.0, math.inf])
def test_a_teacher_that_hardly_knows_it_is_warned_of(perplexity: float, tmp_path: Path) -> None:
    corpus = corpus_in(tmp_path, 2_048)
    lines = said(TeacherReading(math.log(perplexity), 1_024, 1e9), corpus, 2_048, 2_048)
    assert len(lines) == 2 and lines[1].startswith("warning: the teacher hardly knows this text")


def test_a_tokenizer_of_another_model_is_warned_of(tmp_path: Path) -> None:
    corpus = corpus_in(tmp_path, 2_048, unknown=0.1)
    lines = said(TeacherReading(2.0, 1_024, 1e9), corpus, 2_048, 300)
    assert lines[1].startswith("warning: the tokenizer has 300 tokens, the teacher 2,048")
    assert "% of the text is the unknown token '<unk>'" in lines[2]
