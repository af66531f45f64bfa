"""Importance of the parts of mixtures of experts, of every type."""

from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from pruning import PruneSettings, architecture_of, prune
from pruning.importance.experts import RoutedExperts, expert_scores
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
    assert all(routed.outputs.count_nonzero() > 1 for routed in layers)


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


def test_reap_weights_an_expert_s_output_by_the_router() -> None:
    module, score = nn.Module(), SCORES["variance-norm"]
    tokens = torch.tensor([[3.0, 4.0], [0.0, 1.0]])
    chosen, weights = torch.tensor([[0, 1], [1, 0]]), torch.tensor([[0.75, 0.25], [0.5, 0.5]])
    found = {}
    for weighted in (False, True):
        routed = RoutedExperts(
            module,
            score,
            experts=3,
            neurons=2,
            run=lambda _, expert, rows: (rows, rows * (expert + 1)),
            weighted=weighted,
        )
        result = module.forward(tokens, chosen, weights)
        routed.close()
        found[weighted] = expert_scores(routed.sums("0"), "0").tolist()
    assert torch.allclose(result, tokens * torch.tensor([[0.75 + 2 * 0.25], [2 * 0.5 + 0.5]]))
    assert found[False] == pytest.approx([(5 + 1) / 2, 2 * (5 + 1) / 2, 0])
    assert found[True] == pytest.approx([(5 * 0.75 + 1 * 0.5) / 2, 2 * (5 * 0.25 + 1 * 0.5) / 2, 0])
