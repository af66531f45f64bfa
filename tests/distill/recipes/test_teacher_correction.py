"""A teacher that reads the corpus before it teaches."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from distill import (
    Corpus,
    DistillError,
    Packing,
    ResolvedTraining,
    RunLimits,
    SplitSizes,
    pack_corpus,
)
from distill.data.documents import Document
from distill.recipes.settings import CorrectionSettings
from distill.recipes.teacher_correction import CorrectionPlan, correct_teacher
from distill.train.trainer import Distillation
from tests.distill.conftest import MakeModel

BLOCK = 16


@pytest.fixture
def corpus(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> Corpus:
    documents = [Document(f"{n}", f"{n} and {n + 1} make {2 * n + 1}. ") for n in range(400)]
    sizes = SplitSizes(selection_tokens=128, test_tokens=128)
    return pack_corpus(
        documents, tokenizer, packing=Packing(BLOCK, sizes), directory=tmp_path / "corpus"
    )


def correct(
    model: Any,
    corpus: Corpus,
    tmp_path: Path,
    tokens: int = BLOCK * 4 * 30,
    learning_rate: float | None = None,
) -> Any:
    training = ResolvedTraining(
        batch=4, precision="fp32", loss="reverse-kl", lm_weight=3.0, average=0.9
    )
    limits = RunLimits(tokens, 1, tmp_path / "checkpoint", 0.0)
    plan = CorrectionPlan(learning_rate, training, 0, torch.bfloat16, limits)
    return correct_teacher(model, corpus, plan=plan)


def test_the_teacher_fits_the_held_out_text_better(
    make_model: MakeModel, corpus: Corpus, tmp_path: Path
) -> None:
    model = make_model(257)
    found = correct(model, corpus, tmp_path, learning_rate=5e-3)
    assert found.tokens == BLOCK * 4 * 30
    assert found.after.mean() < 0.8 * found.before.mean()
    assert all(torch.equal(p, p.bfloat16().float()) for p in model.parameters())
    ids = torch.from_numpy(corpus.blocks("selection").astype(np.int64))
    with torch.no_grad():
        loss = model(input_ids=ids, labels=ids).loss.item()
    assert found.after.mean() == pytest.approx(loss, rel=1e-4)


def test_interrupted_and_resumed_is_the_same(
    make_model: MakeModel, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make_model(257)
    first = correct(whole, corpus, tmp_path / "whole")
    save = Distillation.save

    def interrupted(run: Distillation, directory: Path, **meta: Any) -> None:
        save(run, directory, **meta)
        if run.step == 7:
            raise KeyboardInterrupt

    monkeypatch.setattr(Distillation, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        correct(make_model(257), corpus, tmp_path)
    monkeypatch.undo()
    again = make_model(257, seed=5)
    second = correct(again, corpus, tmp_path)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
    assert np.array_equal(first.before, second.before)


@pytest.mark.parametrize("wrong", [{"tokens": -1}, {"tokens": 9, "learning_rate": 0.0}])
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(DistillError, match="must"):
        CorrectionSettings(**wrong)
