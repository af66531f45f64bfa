"""Everything of a run is where its student is, and steps do not wait for the device."""

import contextlib
from pathlib import Path
from typing import Any

import pytest
import torch

from distill import (
    Distillation,
    ResolvedTraining,
    Targets,
    TrainingData,
    slot_blocks,
    write_targets,
)
from distill.evaluation import evaluate
from distill.loss import LiveTeacher, StateSettings, fused_head
from distill.loss.head import Head
from distill.targets import store
from distill.train import finite
from tests.distill.conftest import FORMS, VOCABULARY, MakeBlocks, MakeModel
from tests.elsewhere import elsewhere

LENGTH = 16


@pytest.fixture
def stored(make_model: MakeModel, make_blocks: MakeBlocks, tmp_path: Path) -> dict[str, Targets]:
    """Of the order in which a run reads its blocks, by form."""
    blocks = make_blocks(8, LENGTH)[slot_blocks(8, 0)]
    teacher = make_model(VOCABULARY, sharpness=3)
    return {
        name: write_targets(teacher, blocks, target_format=form, directory=tmp_path / name)
        for name, form in FORMS.items()
    }


def read_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have figures of a step be read one step later, as on a GPU; there by an event."""
    kept = finite.FiniteWatch.__init__

    def deferred(self: Any, *given: Any, **_: Any) -> None:
        kept(self, *given, deferred=True)
        del given[0].found_inf  # which only fused optimisers know, and none is of this device

    monkeypatch.setattr(finite.FiniteWatch, "__init__", deferred)
    monkeypatch.setattr(finite.StepFigures, "read", lambda self: (0.0, 0.0))
    # a head is tried on values, which there are none of
    monkeypatch.setattr(Head, "of", lambda model: Head(model.get_output_embeddings()))
    # nor has the device narrower types to choose from
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())
    monkeypatch.setattr(fused_head, "_compute_dtype", lambda hidden: hidden.dtype)
    # fake tensors are of the thread that made them
    monkeypatch.setattr(store, "ahead", lambda work, asked, depth: map(work, asked))


@pytest.mark.parametrize("loss", ["forward-kl", "reverse-kl", "mse"])
@pytest.mark.parametrize("kind", [*FORMS, "live", "states", "ce"])
def test_a_step_stays_on_its_device_and_does_not_wait(
    make_model: MakeModel,
    make_blocks: MakeBlocks,
    stored: dict[str, Targets],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    loss: str,
) -> None:
    if kind in ("ce", "sampled") and loss != "forward-kl":
        pytest.skip("drawn targets are of forward-kl alone, and text has no teacher")
    read_late(monkeypatch)
    blocks, live = make_blocks(8, LENGTH), kind in ("live", "states")
    student, teacher = make_model(VOCABULARY, seed=1), make_model(VOCABULARY, sharpness=3)
    training = ResolvedTraining(
        batch=4,
        micro_batch=2,
        topk=16,
        precision="fp32",
        average=0.9,
        lm_weight=0.1,
        loss="ce" if kind == "ce" else loss,
    )
    with elsewhere(student, teacher) as waited:
        source: Any = stored.get(kind)
        if live:
            source = LiveTeacher(teacher, VOCABULARY, temperature=2.0, precision="fp32")
        states = StateSettings() if kind == "states" else None
        data = TrainingData(blocks, source, seed=0, hidden_states=states)
        run = Distillation(student, data, training=training, tokens=3 * 4 * LENGTH)
        run.advance(1)
        waited.clear()
        run.advance(2)
        assert waited == []
        assert {p.device.type for p in run.student.parameters()} == {"meta"}


@pytest.mark.parametrize("kind", list(FORMS))
def test_an_evaluation_stays_on_its_device(
    make_model: MakeModel, make_blocks: MakeBlocks, stored: dict[str, Targets], kind: str
) -> None:
    student, weights = make_model(VOCABULARY, seed=1), torch.ones(8, LENGTH).bool().numpy()
    blocks = make_blocks(8, LENGTH)
    with elsewhere(student) as waited:
        evaluate(student, blocks, targets=stored[kind], weights=weights)
        assert waited == ["cpu"]  # of all sequences at once


def test_what_is_left_behind_is_noticed(make_model: MakeModel) -> None:
    student = make_model(VOCABULARY)
    with elsewhere(student), pytest.raises(RuntimeError, match="same device"):
        student.lm_head(torch.zeros(1, 4, 16))
