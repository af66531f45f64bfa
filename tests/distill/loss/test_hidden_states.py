from typing import Any

import pytest
import torch

from distill import DistillError, StateSettings
from distill.backend.layers import EMBEDDINGS
from distill.loss.hidden_states import HiddenStateMatcher
from tests.distill.conftest import MakeModel
from tests.exactness import EXACT

pytestmark = pytest.mark.usefixtures("float64")


def states(hidden: int, *layers: int) -> dict[int, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {layer: torch.randn(2, 5, hidden, generator=generator) for layer in layers}


def test_the_default_pairs_are_the_embeddings_and_the_last_layer_but_two(
    make_model: MakeModel,
) -> None:
    matcher = HiddenStateMatcher(StateSettings(), make_model(), make_model())
    assert matcher.pairs == [(EMBEDDINGS, EMBEDDINGS), (0, 0)]


@pytest.mark.parametrize("distance", ["cosine", "mse"])
def test_equal_states_cost_nothing_and_others_what_the_distance_says(
    make_model: MakeModel, distance: str
) -> None:
    settings = StateSettings(pairs=[[0, 1]], distance=distance)
    matcher = HiddenStateMatcher(settings, make_model(), make_model())
    own, whole = states(16, 0)[0], states(16, 1, 0)[0]
    shares = torch.full((10,), 0.1)
    assert matcher({0: own}, {1: own}, token_weights=shares).item() == pytest.approx(0, abs=EXACT)
    flat, goal = own.flatten(0, 1), whole.flatten(0, 1)
    if distance == "cosine":
        wanted = 1 - torch.cosine_similarity(flat, goal, dim=-1)
    else:
        wanted = (flat - goal).square().sum(-1) / goal.square().sum(-1)
    found = matcher({0: own}, {1: whole}, token_weights=shares)
    assert found.item() == pytest.approx(wanted.mean().item(), rel=EXACT)


def test_tokens_without_a_share_do_not_count(make_model: MakeModel) -> None:
    matcher = HiddenStateMatcher(StateSettings(pairs=[[0, 0]]), make_model(), make_model())
    own, whole = states(16, 0)[0], states(16, 1, 0)[0]
    shares = torch.zeros(10)
    shares[:5] = 0.2
    whole[0] = own[0]
    assert matcher({0: own}, {0: whole}, token_weights=shares).item() == pytest.approx(0, abs=EXACT)


def test_a_narrow_student_is_projected_to_the_teachers_width(make_model: MakeModel) -> None:
    student, teacher = make_model(hidden=8), make_model()
    matcher = HiddenStateMatcher(StateSettings(), student, teacher)
    weights = list(matcher.projections.parameters())
    assert [tuple(weight.shape) for weight in weights] == [(16, 8)] * 2
    own = {layer: value.requires_grad_() for layer, value in states(8, EMBEDDINGS, 0).items()}
    matcher(own, states(16, EMBEDDINGS, 0), token_weights=torch.full((10,), 0.1)).backward()
    for value in [*own.values(), *weights]:
        assert value.grad is not None and value.grad.abs().max() > 0


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"distance": "l1"}, "distance is 'l1'"),
        ({"weight": 0.0}, "weight is 0.0"),
        ({"pairs": [[1]]}, "pairs is"),
        ({"pairs": []}, "pairs is"),
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(DistillError, match=said):
        StateSettings(**wrong)


@pytest.mark.parametrize(("pair", "whose"), [([2, 0], "student"), ([0, -2], "teacher")])
def test_layers_that_are_not_there_are_named(
    make_model: MakeModel, pair: list[int], whose: str
) -> None:
    with pytest.raises(DistillError, match=f"of the {whose}, which has layers 0 to 1"):
        HiddenStateMatcher(StateSettings(pairs=[pair]), make_model(), make_model())
