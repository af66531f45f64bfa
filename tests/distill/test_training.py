import math

import numpy as np
import pytest
import torch

from distill import (
    Distillation,
    DistillError,
    TargetFormat,
    Throttle,
    TrainingData,
    TrainingDiverged,
    TrainingSettings,
    default_batch,
    default_rate,
    resolve_precision,
    slot_blocks,
    write_targets,
)

LENGTH = 16


@pytest.fixture
def data(make_model, make_blocks, tmp_path) -> TrainingData:
    blocks = make_blocks(10, LENGTH)
    ordered = blocks[slot_blocks(len(blocks), 7)]
    teacher = make_model(sharpness=3)
    return TrainingData(
        blocks, write_targets(teacher, ordered, TargetFormat(64, 16), tmp_path / "targets"), 7
    )


def start(make_model, data, steps, precision="fp32", shuffle=0, seed=1, **settings):
    settings = TrainingSettings(batch=2, topk=16, **settings)
    student = make_model(seed=seed)
    return Distillation(student, data, settings, steps * 2 * LENGTH, precision, shuffle)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_resumed_anywhere_ends_with_the_same_weights(make_model, data, tmp_path, precision):
    steps = 7
    whole = start(make_model, data, steps, precision)
    whole.advance(steps)
    wanted = whole.student.state_dict()
    for stop in range(1, steps):
        first = start(make_model, data, steps, precision)

        def interrupt(run=first, stop=stop):
            if run.step == stop:
                run.save(tmp_path / "checkpoint", note=stop)
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            first.advance(steps, interrupt)
        second = start(make_model, data, steps, precision, seed=2)
        assert second.restore(tmp_path / "checkpoint")["note"] == stop
        assert second.step == stop
        second.advance(steps)
        assert second.finished
        for name, value in second.student.state_dict().items():
            assert torch.equal(value, wanted[name]), (stop, name)


@pytest.mark.parametrize("shuffle", [0, 1])
def test_every_step_reads_the_targets_of_its_own_blocks(make_model, data, shuffle):
    run = start(make_model, data, 8, shuffle=shuffle, learning_rate=1e-12)
    run.student.load_state_dict(make_model(sharpness=3).state_dict())
    while not run.finished:
        assert abs(run.advance(1)) < 1e-4


def test_an_order_of_its_own_gives_other_weights(make_model, data):
    ends = []
    for shuffle in (0, 1):
        run = start(make_model, data, 3, shuffle=shuffle)
        run.advance(3)
        ends.append(run.student.lm_head.weight.detach())
    assert not torch.equal(*ends)


def test_a_loss_that_is_not_finite_stops_the_run_and_says_where(make_model, data):
    run = start(make_model, data, 5)
    run.advance(2)
    before = run.step
    with torch.no_grad():
        run.student.model.norm.weight.fill_(math.nan)
    with pytest.raises(TrainingDiverged, match="nan at step 3 of 5.*--training.learning_rate"):
        run.advance(1)
    assert run.step == before


def test_rate_rises_then_falls_to_its_share(make_model, data):
    run = start(make_model, data, 100, learning_rate=1e-2, warmup_share=0.1, final_rate_share=0.2)
    rates = [run.rate(step) for step in range(100)]
    assert rates[:10] == pytest.approx([1e-3 * (step + 1) for step in range(10)])
    assert max(rates) == pytest.approx(1e-2)
    assert all(a >= b for a, b in zip(rates[10:], rates[11:], strict=False))
    assert rates[-1] == pytest.approx(2e-3, rel=0.02)
    assert rates[55] == pytest.approx(6e-3, rel=0.02)


def test_the_optimiser_uses_the_rate_of_the_step(make_model, data):
    run = start(make_model, data, 10)
    for step in range(3):
        run.advance(1)
        assert {group["lr"] for group in run.optimizer.param_groups} == {run.rate(step)}


@pytest.mark.parametrize("lm_weight", [0.0, 0.5])
def test_loss_falls_where_there_is_little_to_learn(make_model, data, lm_weight):
    run = start(make_model, data, 60, learning_rate=2e-2, lm_weight=lm_weight)
    first = run.advance(5)
    run.advance(50)
    assert run.advance(5) < 0.5 * first


def test_cross_entropy_is_added_by_its_weight(make_model, data):
    slots = np.arange(2)
    blocks = torch.from_numpy(data.blocks[slot_blocks(10, 7)[slots]].astype(np.int64))
    losses = [
        start(make_model, data, 1, lm_weight=weight).loss(blocks, slots).item()
        for weight in (0.0, 1.0, 2.0)
    ]
    ce = make_model(seed=1)(input_ids=blocks, labels=blocks).loss.item()
    assert losses[1] - losses[0] == pytest.approx(ce, rel=1e-5)
    assert losses[2] - losses[0] == pytest.approx(2 * ce, rel=1e-5)


def test_tokens_are_counted(make_model, data):
    run = start(make_model, data, 5)
    assert (run.tokens, run.total_tokens, run.finished) == (0, 5 * 32, False)
    calls = []
    run.advance(3, lambda: calls.append(run.tokens))
    assert calls == [32, 64, 96]
    run.advance(99)
    assert (run.tokens, run.finished) == (160, True)
    assert run.advance(1) is None
    assert start(make_model, data, 0).total_steps == 1


def test_every_parameter_gets_a_gradient_and_moves(make_model, data):
    run = start(make_model, data, 4, learning_rate=1e-2)
    before = {name: p.detach().clone() for name, p in run.student.named_parameters()}
    slots = np.arange(2)
    blocks = torch.from_numpy(data.blocks[slot_blocks(10, 7)[slots]].astype(np.int64))
    run.loss(blocks, slots).backward()
    for name, parameter in run.student.named_parameters():
        assert parameter.grad.abs().max() > 0, name
    run.optimizer.zero_grad()
    run.advance(4)
    for name, parameter in run.student.named_parameters():
        assert not torch.equal(parameter, before[name]), name


def test_norms_and_biases_do_not_decay(make_model, data):
    run = start(make_model, data, 4, weight_decay=0.3)
    decayed = {
        id(p): group["weight_decay"]
        for group in run.optimizer.param_groups
        for p in group["params"]
    }
    for parameter in run.student.parameters():
        assert decayed[id(parameter)] == (0.3 if parameter.ndim > 1 else 0.0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"learning_rate": 0.0},
        {"learning_rate": -1e-3},
        {"batch": 0},
        {"warmup_share": 1.5},
        {"final_rate_share": -0.1},
        {"weight_decay": -0.01},
        {"clip_norm": 0.0},
        {"temperature": 0.0},
        {"lm_weight": -1.0},
        {"topk": 0},
        {"precision": "fp8"},
        {"learning_rate": math.nan},
    ],
)
def test_settings_that_make_no_sense_are_named(wrong):
    ((name, value),) = wrong.items()
    with pytest.raises(DistillError, match=f"{name} is {value!r}"):
        TrainingSettings(**wrong)


def test_defaults_follow_the_size_of_the_run_and_of_the_student():
    assert default_batch(256 * 400 * 5, 256) == 5
    assert default_batch(1, 256) == 1
    assert default_batch(10**12, 256) == 64
    assert default_rate(10**5) == 4e-3
    assert default_rate(4 * 10**9) == pytest.approx(1e-4, rel=0.1)


def test_precision_is_resolved():
    cpu = torch.device("cpu")
    assert resolve_precision("auto", cpu) in ("bf16", "fp32")
    assert resolve_precision("fp32", cpu) == "fp32"
    with pytest.raises(DistillError, match="'half'"):
        resolve_precision("half", cpu)


def test_throttle_is_true_once_in_its_time():
    assert not Throttle(60)()
    always = Throttle(0)
    assert always()
    assert always()
