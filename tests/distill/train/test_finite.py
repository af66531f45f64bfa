"""Steps that are not finite: none reaches the weights, however late the host hears of it."""

import math

import pytest
import torch
from torch import nn

from common.errors import TrainingDiverged
from distill.train.finite import FiniteWatch


def failed(step: int, loss: float) -> TrainingDiverged:
    return TrainingDiverged(f"step {step}: {loss}")


def taken(
    losses: list[float], norms: list[float], *, deferred: bool
) -> tuple[nn.Linear, FiniteWatch]:
    """A layer after a step for each loss, with a gradient of ones."""
    layer = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        layer.weight.zero_()
    optimizer = torch.optim.AdamW(layer.parameters(), lr=1.0, weight_decay=0.0, fused=True)
    watch = FiniteWatch(optimizer, failed, deferred=deferred)
    for step, (loss, norm) in enumerate(zip(losses, norms, strict=True)):
        layer.weight.grad = torch.ones(2, 2)
        watch.before_update(step, torch.tensor(loss), torch.tensor(norm))
        optimizer.step()
        watch.settle(keep=1)
    return layer, watch


@pytest.mark.parametrize("deferred", [False, True])
def test_losses_are_averaged_once(deferred: bool) -> None:
    _, watch = taken([1.0, 2.0, 6.0], [1.0] * 3, deferred=deferred)
    assert watch.mean_loss() == 3.0
    assert watch.mean_loss() is None


@pytest.mark.parametrize(("loss", "norm"), [(math.nan, 1.0), (1.0, math.inf)])
def test_a_step_is_refused_at_once(loss: float, norm: float) -> None:
    with pytest.raises(TrainingDiverged, match="step 1"):
        taken([1.0, loss], [1.0, norm], deferred=False)


@pytest.mark.parametrize(("loss", "norm"), [(math.nan, 1.0), (1.0, math.inf)])
def test_late_nothing_reaches_the_weights_either(loss: float, norm: float) -> None:
    good, _ = taken([1.0], [1.0], deferred=True)
    layer, watch = taken([1.0, loss], [1.0, norm], deferred=True)
    assert torch.equal(layer.weight, good.weight)
    with pytest.raises(TrainingDiverged, match="step 1"):
        watch.settle()


def test_steps_that_were_begun_before_it_is_known_are_left_out_too() -> None:
    layer = nn.Linear(1, 1, bias=False)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=1.0, fused=True)
    watch = FiniteWatch(optimizer, failed, deferred=True)
    before = layer.weight.detach().clone()
    for step, loss in enumerate([math.nan, 1.0]):
        layer.weight.grad = torch.ones(1, 1)
        watch.before_update(step, torch.tensor(loss), torch.tensor(1.0))
        optimizer.step()
    assert torch.equal(layer.weight, before)
    with pytest.raises(TrainingDiverged, match="step 0"):
        watch.mean_loss()
