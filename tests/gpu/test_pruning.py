"""Importance on a GPU is that of a CPU, for types of every make."""

from dataclasses import fields
from typing import Any

import pytest
import torch
from torch import Tensor

from pruning import Scoring, layer_importance, measure_importance
from pruning.importance import measure_moments
from tests.pruning.models import VARIANTS, build_teacher, token_ids

PLAIN = "llama-gqa-biases"


def built(variant: str, device: str) -> Any:
    model: Any = build_teacher(variant, dtype=torch.float32)
    return model.to(device)


def batches(device: str) -> list[Tensor]:
    return list(token_ids(3, 17).to(device).split(1))


@pytest.mark.parametrize("variant", VARIANTS)
def test_importance(variant: str) -> None:
    found = [
        measure_importance(built(variant, device), batches(device)) for device in ("cpu", "cuda")
    ]
    for field in fields(found[0]):
        ours, theirs = (getattr(importance, field.name).cpu() for importance in found)
        torch.testing.assert_close(theirs, ours, rtol=1e-3, atol=1e-4, msg=field.name)


@pytest.mark.parametrize("score", ["span", "loss", "kl"])
def test_layer_scores(score: str) -> None:
    scores = [
        layer_importance(built(PLAIN, device), batches(device), layer_score=score)[0].cpu()
        for device in ("cpu", "cuda")
    ]
    torch.testing.assert_close(scores[1], scores[0], rtol=1e-3, atol=1e-5)


def test_scores_of_gradients() -> None:
    scoring = Scoring("taylor")
    found = [
        measure_importance(built(PLAIN, device), batches(device), scoring=scoring)
        for device in ("cpu", "cuda")
    ]
    torch.testing.assert_close(found[1].ffn.cpu(), found[0].ffn, rtol=1e-3, atol=1e-5)


def test_moments() -> None:
    found = [
        measure_moments(built(PLAIN, device), batches(device)).mean_squares
        for device in ("cpu", "cuda")
    ]
    assert found[0].keys() == found[1].keys()
    for name, values in found[0].items():
        torch.testing.assert_close(found[1][name].cpu(), values.cpu(), rtol=1e-3, atol=1e-5)
