"""Importance is measured where the model is, for types of every make."""

from typing import Any

import pytest
import torch

from pruning import Scoring, layer_importance, measure_importance
from pruning.importance import measure_moments
from tests.elsewhere import elsewhere
from tests.pruning.models import build_teacher

MAKES = ["llama-gqa-biases", "gemma3", "gpt2", "nemotron-h", "qwen3-5", "falcon-h1"]
"""Without mixtures, in which shapes follow from values."""


def built(variant: str) -> Any:
    return build_teacher(variant, dtype=torch.float32)


@pytest.mark.parametrize("variant", MAKES)
@pytest.mark.parametrize("score", ["mean-variance", "taylor"])
def test_importance_stays_on_the_device_of_its_model(variant: str, score: str) -> None:
    model = built(variant)
    with elsewhere(model):
        batches = list(torch.ones(2, 17, dtype=torch.int64).split(1))
        measure_importance(model, batches, scoring=Scoring(score, ssm_score=score))


@pytest.mark.parametrize("score", ["span", "loss", "kl", "logit-mse"])
def test_layer_scores_do(score: str) -> None:
    model = built(MAKES[0])
    with elsewhere(model):
        batches = list(torch.ones(2, 17, dtype=torch.int64).split(1))
        layer_importance(model, batches, layer_score=score)
        measure_moments(model, batches)
