"""Scores on a text against sums that are written out, with pieces that are longer than a block."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import normalizers

from experiments.evaluation.measuring.contenders import Contender
from experiments.evaluation.measuring.pieces import Pieces, not_kept, windows_of
from experiments.evaluation.measuring.text_scores import scored
from tests.byte_llama import write_byte_llama
from workspace.models import ModelSource

TEXTS = ("one line\nand another\n", "a piece that is longer than what is read at once " * 3, "x")
BLOCK = 32


def contender(folder: Path, bos: str = "auto") -> Contender:
    return Contender(str(folder), folder.name, ModelSource(folder), "fp32", bos)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Contender, Contender]:
    return tuple(contender(write_byte_llama(tmp_path / n, layers=int(n))) for n in "12")  # type: ignore[return-value]


def log_probs(model: torch.nn.Module, tokens: list[int]) -> torch.Tensor:
    """After each token of a text, in windows that share a token."""
    rows = [
        model(input_ids=torch.tensor([tokens[start : start + BLOCK]])).logits[0].log_softmax(-1)
        for start in range(0, len(tokens) - 1, BLOCK)
    ]
    return torch.cat(rows)[: len(tokens) - 1]


@torch.no_grad()
def test_sums_are_those_of_the_text(pair: tuple[Contender, Contender]) -> None:
    """In float64, where what a text begins with is not predicted and every other token once."""
    first, second = pair
    taught, model = (each.load(torch.device("cpu")).double() for each in pair)
    windows = windows_of(Pieces(TEXTS, BLOCK), second)
    told: list[tuple[int, int]] = []
    found = scored(
        model, windows, reference=taught, progress=lambda done, all_: told.append((done, all_))
    )
    assert found.bytes == [len(text) for text in TEXTS] and told[0] == (0, len(windows.read))
    for number, text in enumerate(TEXTS):
        ids = second.tokenizer(text, add_special_tokens=False)["input_ids"]
        tokens, known = [*second.beginning, *ids], len(second.beginning)
        p, q = log_probs(taught, tokens), log_probs(model, tokens)
        following = torch.tensor(tokens[1:])[:, None]
        counted = slice(known - 1, None)
        assert found.tokens[number] == len(ids)
        nats = -q.gather(1, following)[counted].sum()
        assert found.nats[number] == pytest.approx(float(nats), rel=1e-6)
        assert found.kl is not None and found.agreed is not None
        kl = (p.exp() * (p - q)).sum(-1)[counted].sum()
        assert found.kl[number] == pytest.approx(float(kl), rel=1e-4)
        assert found.agreed[number] == (p.argmax(-1) == q.argmax(-1))[counted].sum()


def test_without_a_beginning_the_first_token_is_not_counted(
    pair: tuple[Contender, Contender],
) -> None:
    first, _ = pair
    first.tokenizer.eos_token = None
    assert first.beginning == ()
    windows = windows_of(Pieces(TEXTS[:2], BLOCK), first)
    assert windows.bytes.tolist() == [len(text) - 1 for text in TEXTS[:2]]
    assert windows.counted.sum() == windows.bytes.sum()


def test_each_token_is_predicted_once(pair: tuple[Contender, Contender]) -> None:
    first, _ = pair
    windows = windows_of(Pieces(TEXTS, BLOCK), first)
    for number, text in enumerate(TEXTS):
        rows = windows.piece == number
        predicted = windows.following[rows][windows.counted[rows]]
        expected = first.tokenizer(text, add_special_tokens=False)["input_ids"]
        assert np.array_equal(predicted, expected)


def test_text_that_tokens_do_not_keep_is_counted(pair: tuple[Contender, Contender]) -> None:
    first, _ = pair
    pieces = Pieces(TEXTS, BLOCK)
    assert not_kept(pieces, first) == 0
    first.tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    assert not_kept(Pieces((*TEXTS, "Upper"), BLOCK), first) == 1
