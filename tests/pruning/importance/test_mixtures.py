"""Importance of the parts of mixtures of experts, of every type."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from pruning import PruneSettings, architecture_of, prune
from pruning.importance.scores import SCORES
from pruning.importance.width import Observer
from tests.pruning.mixtures import MIXTURES
from tests.pruning.models import build_teacher, difference, logits, smaller_than, token_ids

SETTINGS = PruneSettings(layer_score="block-influence")


@pytest.mark.parametrize("variant", MIXTURES)
def test_experts_that_are_observed_compute_the_same(variant: str) -> None:
    model = build_teacher(variant)
    expected = logits(model)
    observer = Observer(model, SCORES["variance-norm"])
    observed = logits(model)
    observer.close()
    assert difference(observed, expected) < 1e-5
    assert torch.equal(logits(model), expected)
    layers = observer.experts.values()
    assert all(routed.expert_scores().count_nonzero() > 1 for routed in layers)


@pytest.mark.parametrize("variant", MIXTURES)
def test_every_type_is_cut_by_the_default_scores(variant: str, tmp_path: Path) -> None:
    model = build_teacher(variant)
    model.save_pretrained(tmp_path / "teacher")
    architecture = smaller_than(model.config)
    pruned = prune(
        tmp_path / "teacher", architecture, [token_ids(4, 16)], tmp_path / "student", SETTINGS
    )
    student = AutoModelForCausalLM.from_pretrained(tmp_path / "student")
    assert logits(student).isfinite().all()
    assert architecture_of(student.config).hidden == architecture.hidden
    for scores in (pruned.importance.hidden, pruned.importance.heads, pruned.importance.experts):
        assert scores.count_nonzero() > 0
