from pathlib import Path

import pytest
import torch

from distill import (
    DistillError,
    ResolvedTraining,
    TargetFormat,
    TrainingData,
    slot_blocks,
    write_targets,
)
from distill.recipes.lr_range_test import SPAN, find_rate
from distill.train.settings import default_rate
from tests.distill.conftest import MakeBlocks, MakeModel

TRAINING = ResolvedTraining(batch=2, precision="fp32")


@pytest.fixture
def data(make_model: MakeModel, make_blocks: MakeBlocks, tmp_path: Path) -> TrainingData:
    blocks = make_blocks(16, 16)
    teacher = make_model(sharpness=3)
    form = TargetFormat(64, 16)
    return TrainingData(
        blocks,
        write_targets(teacher, blocks[slot_blocks(16, 1)], target_format=form, directory=tmp_path),
        1,
    )


def test_the_rate_lies_below_the_one_at_which_the_loss_turns(
    make_model: MakeModel, data: TrainingData
) -> None:
    student = make_model(seed=1)
    before = {name: value.clone() for name, value in student.state_dict().items()}
    found = find_rate(student, data, training=TRAINING, steps=40)
    rates, losses = zip(*found.points, strict=True)
    lowest = rates[losses.index(min(losses))]
    middle = default_rate(sum(p.numel() for p in student.parameters()))
    assert rates[0] == pytest.approx(middle / SPAN)
    assert all(a < b for a, b in zip(rates, rates[1:], strict=False))
    assert rates[0] < found.rate < lowest
    assert min(losses) < 0.95 * losses[0]
    assert all(torch.equal(value, student.state_dict()[name]) for name, value in before.items())


def test_too_few_steps_are_refused(make_model: MakeModel, data: TrainingData) -> None:
    with pytest.raises(DistillError, match="at least 20"):
        find_rate(make_model(), data, training=TRAINING, steps=19)
