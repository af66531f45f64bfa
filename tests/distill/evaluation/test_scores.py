import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import LlamaForCausalLM

from distill import Evaluation, TargetFormat, evaluate, write_targets
from tests.distill.conftest import MakeBlocks, MakeModel
from tests.exactness import EXACT

Setting = tuple[LlamaForCausalLM, LlamaForCausalLM, NDArray[Any], Path]


@pytest.fixture
def setting(make_model: MakeModel, make_blocks: MakeBlocks, tmp_path: Path) -> Setting:
    teacher, student = make_model(sharpness=3), make_model(sharpness=3, noise=0.4)
    blocks = make_blocks(5, 12)
    return teacher, student, blocks, tmp_path


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("topk", [64, 63])
def test_equal_to_a_direct_computation_against_the_live_teacher(
    setting: Setting, topk: int
) -> None:
    teacher, student, blocks, path = setting
    targets = write_targets(teacher, blocks, target_format=TargetFormat(64, topk), directory=path)
    result = evaluate(student, blocks, targets=targets)
    ids = torch.from_numpy(blocks.astype(np.int64))
    with torch.no_grad():
        p = torch.log_softmax(teacher(input_ids=ids).logits.double(), -1)
        q = torch.log_softmax(student(input_ids=ids).logits.double(), -1)
    kl = (p.exp() * (p - q)).sum(-1).mean(1)
    ce = -q[:, :-1].gather(-1, ids[:, 1:, None]).squeeze(-1).mean(1)
    agreement = (p.argmax(-1) == q.argmax(-1)).double().mean(1)
    np.testing.assert_allclose(result.kl, kl.numpy(), rtol=5e-3)
    np.testing.assert_allclose(result.ce, ce.numpy(), rtol=EXACT)
    np.testing.assert_allclose(result.top1_agreement, agreement.numpy(), atol=EXACT)
    assert 0 < result.means()["top1_agreement"] < 1


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("topk", [64, 8])
def test_independent_of_the_batch(
    setting: Setting, topk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher, student, blocks, path = setting
    targets = write_targets(teacher, blocks, target_format=TargetFormat(64, topk), directory=path)
    whole = evaluate(student, blocks, targets=targets)
    for batch in (1, 2, 3):
        monkeypatch.setattr("distill.evaluation.scores.blocks_at_once", lambda *_, size=batch: size)
        parts = evaluate(student, blocks, targets=targets)
        for name in ("kl", "ce", "top1_agreement"):
            np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), rtol=EXACT)


def test_half_precision_is_near(setting: Setting) -> None:
    teacher, student, blocks, path = setting
    targets = write_targets(teacher, blocks, target_format=TargetFormat(64, 64), directory=path)
    exact = evaluate(student, blocks, targets=targets).means()["kl"]
    assert evaluate(student, blocks, targets=targets, precision="bf16").means()[
        "kl"
    ] == pytest.approx(exact, rel=0.1)


@pytest.mark.parametrize("training", [True, False])
def test_leaves_the_model_as_it_was(setting: Setting, training: bool) -> None:
    teacher, student, blocks, path = setting
    targets = write_targets(teacher, blocks, target_format=TargetFormat(64, 64), directory=path)
    student.train(training)
    evaluate(student, blocks, targets=targets)
    assert student.training is training
    assert all(p.grad is None for p in student.parameters())


def test_survives_json(setting: Setting) -> None:
    teacher, student, blocks, path = setting
    targets = write_targets(teacher, blocks, target_format=TargetFormat(64, 64), directory=path)
    result = evaluate(student, blocks, targets=targets)
    again = Evaluation.from_dict(json.loads(json.dumps(result.to_dict())))
    assert again.means() == result.means()
    assert np.array_equal(again.kl, result.kl)
