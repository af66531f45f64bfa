import contextlib
import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from distill import (
    Distillation,
    DistillError,
    ResolvedTraining,
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
from distill.backend.layers import recording
from distill.backend.loading import load
from distill.evaluation.logits import next_token_log_probs
from distill.loss.divergences import token_losses
from distill.loss.live_teacher import LiveTeacher
from distill.loss.settings import StateSettings
from distill.targets.batch import TargetBatch
from distill.train.export import write_model
from tests.distill.conftest import MakeBlocks, MakeModel
from tests.exactness import EXACT, fp32_tolerance

LENGTH = 16
ROUNDED_ONCE = torch.finfo(torch.float32).eps
"""Relative error of what is exact but for the weights of tokens, which are kept in fp32."""


@pytest.fixture
def data(make_model: MakeModel, make_blocks: MakeBlocks, tmp_path: Path) -> TrainingData:
    blocks = make_blocks(10, LENGTH)
    ordered = blocks[slot_blocks(len(blocks), 7)]
    teacher = make_model(sharpness=3)
    return TrainingData(
        blocks,
        write_targets(
            teacher, ordered, target_format=TargetFormat(64, 16), directory=tmp_path / "targets"
        ),
        7,
    )


def start(
    make_model: MakeModel,
    data: TrainingData,
    steps: int,
    precision: str = "fp32",
    shuffle: int = 0,
    seed: int = 1,
    states: StateSettings | None = None,
    **settings: Any,
) -> Distillation:
    given: dict[str, Any] = {"batch": 2, "topk": 16, "precision": precision}
    training = ResolvedTraining(**given | settings)
    student = make_model(seed=seed)
    tokens = steps * training.batch * LENGTH
    data = replace(data, shuffle=shuffle, hidden_states=states)
    return Distillation(student, data, training=training, tokens=tokens)


def weights(run: Distillation) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in run.student.state_dict().items()}


EVERYTHING = {"average": 0.9, "micro_batch": 1, "schedule": "wsd", "gradient_checkpointing": True}


@pytest.mark.parametrize(
    ("precision", "settings"), [("fp32", {}), ("bf16", {}), ("fp32", EVERYTHING)]
)
def test_resumed_anywhere_ends_with_the_same_weights(
    make_model: MakeModel, data: TrainingData, tmp_path: Path, precision: str, settings: Any
) -> None:
    steps = 7
    whole = start(make_model, data, steps, precision, **settings)
    whole.advance(steps)
    with whole.averaged():
        wanted = weights(whole)
    for stop in range(1, steps):
        first = start(make_model, data, steps, precision, **settings)

        def interrupt(run: Distillation = first, stop: int = stop) -> None:
            if run.step == stop:
                run.save(tmp_path / "checkpoint", note=stop)
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            first.advance(steps, interrupt)
        second = start(make_model, data, steps, precision, seed=2, **settings)
        assert second.restore(tmp_path / "checkpoint")["note"] == stop
        assert second.step == stop
        second.advance(steps)
        assert second.finished
        with second.averaged():
            for name, value in weights(second).items():
                assert torch.equal(value, wanted[name]), (stop, name)


def test_a_checkpoint_written_while_the_run_goes_on_is_of_its_step(
    make_model: MakeModel, data: TrainingData, tmp_path: Path
) -> None:
    steps, kept = 6, tmp_path / "checkpoint"
    first = start(make_model, data, steps)
    first.saves_aside = True

    def save_each() -> None:
        first.settle_saving(waiting=False)
        first.save(kept, waiting=False, note=first.step)

    first.advance(4, save_each)
    first.advance(2)
    first.settle_saving(waiting=True)
    second = start(make_model, data, steps, seed=2)
    assert second.restore(kept) == {"step": 4, "note": 4}
    second.advance(steps)
    for name, value in weights(second).items():
        assert torch.equal(value, weights(first)[name]), name


EXTREMES = {
    "learning_rate": (5e-324, 3e38),
    "weight_decay": (5e-324, 3e38),
    "clip_norm": (5e-324, 3e38, math.inf),
    "temperature": (0.001, 1000.0),
    "lm_weight": (5e-324, 3e38),
    "warmup_share": (5e-324, 1.0),
    "warmup_steps": (2**63 - 1,),
    "final_rate_share": (5e-324, 1.0),
    "average": (5e-324, 1 - 1e-16),
    "micro_batch": (2**63 - 1,),
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name in EXTREMES for value in EXTREMES[name]]
)
def test_the_ends_of_what_settings_take_train_or_diverge(
    make_model: MakeModel, data: TrainingData, name: str, value: Any
) -> None:
    run = start(make_model, data, 2, **{name: value})
    with contextlib.suppress(TrainingDiverged):
        run.advance(2)
        with run.averaged():
            assert all(value.isfinite().all() for value in run.student.state_dict().values())


@pytest.mark.parametrize("average", [None, 0.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_finished_student_says_what_its_checkpoint_will_answer(
    make_model: MakeModel,
    data: TrainingData,
    tmp_path: Path,
    dtype: torch.dtype,
    average: float | None,
) -> None:
    run = start(make_model, data, 3, average=average)
    run.advance(3)
    block = data.blocks[0]
    before = next_token_log_probs(run.student, block)
    tensors, answers = run.as_written(dtype, block)
    write_model(run.student, tensors, tmp_path / "model")
    again = next_token_log_probs(load(tmp_path / "model", "auto"), block)
    assert np.allclose(again, answers, atol=1e-5)
    same = average is None and dtype == torch.float32
    assert np.allclose(before, answers, atol=1e-5) == same


@pytest.mark.parametrize("shuffle", [0, 1])
def test_every_step_reads_the_targets_of_its_own_blocks(
    make_model: MakeModel, data: TrainingData, shuffle: int
) -> None:
    run = start(make_model, data, 8, shuffle=shuffle, learning_rate=1e-12)
    run.student.load_state_dict(make_model(sharpness=3).state_dict())
    while not run.finished:
        loss = run.advance(1)
        assert loss is not None and abs(loss) < 1e-4


def test_an_order_of_its_own_gives_other_weights(make_model: MakeModel, data: TrainingData) -> None:
    ends = []
    for shuffle in (0, 1):
        run = start(make_model, data, 3, shuffle=shuffle)
        run.advance(3)
        ends.append(run.student.lm_head.weight.detach())
    assert not torch.equal(*ends)


def test_a_loss_that_is_not_finite_stops_the_run_and_says_where(
    make_model: MakeModel, data: TrainingData
) -> None:
    run = start(make_model, data, 5)
    run.advance(2)
    before = run.step
    with torch.no_grad():
        run.student.model.norm.weight.fill_(math.nan)
    others = {n: v for n, v in weights(run).items() if n != "model.norm.weight"}
    wanted = "nan at step 3 of 5.*target shards 0.*checkpoint is kept.*--training.learning_rate"
    with pytest.raises(TrainingDiverged, match=wanted):
        run.advance(1)
    assert run.step == before
    assert all(torch.equal(run.student.state_dict()[name], kept) for name, kept in others.items())


def test_a_gradient_that_is_not_finite_does_not_reach_the_weights(
    make_model: MakeModel, data: TrainingData
) -> None:
    run = start(make_model, data, 5)
    run.student.lm_head.weight.register_hook(lambda gradient: gradient * math.inf)
    before = weights(run)
    with pytest.raises(TrainingDiverged, match="the gradient is not finite"):
        run.advance(1)
    assert all(torch.equal(value, before[name]) for name, value in weights(run).items())


def test_rate_rises_then_falls_to_its_share(make_model: MakeModel, data: TrainingData) -> None:
    run = start(make_model, data, 100, learning_rate=1e-2, warmup_share=0.1, final_rate_share=0.2)
    rates = [run.rate(step) for step in range(100)]
    assert rates[:10] == pytest.approx([1e-3 * (step + 1) for step in range(10)])
    assert max(rates) == pytest.approx(1e-2)
    assert all(a >= b for a, b in zip(rates[10:], rates[11:], strict=False))
    assert rates[-1] == pytest.approx(2e-3, rel=0.02)
    assert rates[55] == pytest.approx(6e-3, rel=0.02)


def test_wsd_stays_at_its_peak_and_falls_at_the_end(
    make_model: MakeModel, data: TrainingData
) -> None:
    run = start(
        make_model, data, 100, learning_rate=1e-2, schedule="wsd", warmup_steps=4, decay_share=0.3
    )
    rates = [run.rate(step) for step in range(100)]
    assert rates[:4] == pytest.approx([2.5e-3, 5e-3, 7.5e-3, 1e-2])
    assert rates[4:71] == pytest.approx([1e-2] * 67)
    assert all(a > b for a, b in zip(rates[70:], rates[71:], strict=False))
    assert rates[85] == pytest.approx(1e-2 * (1 - 0.95 / 2))
    assert rates[-1] == pytest.approx(1e-2 * 0.05, rel=0.7)


def test_the_optimiser_uses_the_rate_of_the_step(make_model: MakeModel, data: TrainingData) -> None:
    run = start(make_model, data, 10)
    for step in range(3):
        run.advance(1)
        assert {group["lr"] for group in run.optimizer.param_groups} == {run.rate(step)}


@pytest.mark.parametrize("lm_weight", [0.0, 0.5])
def test_loss_falls_where_there_is_little_to_learn(
    make_model: MakeModel, data: TrainingData, lm_weight: float
) -> None:
    run = start(make_model, data, 60, learning_rate=2e-2, lm_weight=lm_weight)
    first = run.advance(5)
    run.advance(50)
    last = run.advance(5)
    assert first is not None and last is not None and last < 0.5 * first


def first_loss(run: Distillation) -> torch.Tensor:
    """The loss of the first step, before anything is learnt."""
    return sum(run.module(answer) for answer in run._batches(1))


@pytest.mark.usefixtures("float64")
def test_cross_entropy_is_added_by_its_weight(make_model: MakeModel, data: TrainingData) -> None:
    losses = [
        first_loss(start(make_model, data, 1, lm_weight=weight)).item() for weight in (0, 1, 2)
    ]
    blocks = torch.from_numpy(data.blocks[slot_blocks(10, 7)[:2]].astype(np.int64))
    ce = make_model(seed=1)(input_ids=blocks, labels=blocks).loss.item()
    assert losses[1] - losses[0] == pytest.approx(ce, rel=ROUNDED_ONCE)
    assert losses[2] - losses[0] == pytest.approx(2 * ce, rel=ROUNDED_ONCE)


def test_tokens_are_counted(make_model: MakeModel, data: TrainingData) -> None:
    run = start(make_model, data, 5)
    assert (run.tokens, run.total_tokens, run.finished) == (0, 5 * 32, False)
    calls = []
    run.advance(3, lambda: calls.append(run.tokens))
    assert calls == [32, 64, 96]
    run.advance(99)
    assert (run.tokens, run.finished) == (160, True)
    assert run.advance(1) is None
    assert start(make_model, data, 0).total_steps == 1


def test_every_parameter_gets_a_gradient_and_moves(
    make_model: MakeModel, data: TrainingData
) -> None:
    run = start(make_model, data, 4, learning_rate=1e-2)
    before = {name: p.detach().clone() for name, p in run.student.named_parameters()}
    first_loss(run).backward()
    for name, parameter in run.student.named_parameters():
        assert parameter.grad.abs().max() > 0, name
    run.optimizer.zero_grad()
    run.advance(4)
    for name, parameter in run.student.named_parameters():
        assert not torch.equal(parameter, before[name]), name


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("size", [1, 3])
def test_gradients_of_micro_batches_add_up_to_those_of_the_batch(
    make_model: MakeModel, data: TrainingData, size: int
) -> None:
    ends = []
    for micro_batch in (None, size):
        run = start(make_model, data, 4, batch=4, micro_batch=micro_batch, lm_weight=0.5)
        loss = run.advance(4)
        ends.append((loss, weights(run)))
    assert ends[0][0] == pytest.approx(ends[1][0], rel=EXACT)
    for name, value in ends[0][1].items():
        torch.testing.assert_close(value, ends[1][1][name], rtol=EXACT, atol=EXACT)


def test_checkpointed_activations_change_nothing(make_model: MakeModel, data: TrainingData) -> None:
    ends = []
    for checkpointing in (False, True):
        run = start(make_model, data, 3, gradient_checkpointing=checkpointing)
        run.advance(3)
        ends.append(weights(run))
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())


def test_the_average_lags_behind_the_weights_and_forgets_the_start(
    make_model: MakeModel, data: TrainingData
) -> None:
    run = start(make_model, data, 200, average=0.9, learning_rate=1e-2, final_rate_share=1.0)
    initial = run.student.lm_head.weight.detach().clone()
    seen = []
    run.advance(60, lambda: seen.append(run.student.lm_head.weight.detach().clone()))
    expected = initial
    for step, value in enumerate(seen, 1):
        kept = min(0.9, (1 + step) / (10 + step))
        expected = kept * expected + (1 - kept) * value
    latest = run.student.lm_head.weight.detach().clone()
    with run.averaged():
        torch.testing.assert_close(run.student.lm_head.weight.detach(), expected)
        assert not torch.equal(run.student.lm_head.weight, latest)
    assert torch.equal(run.student.lm_head.weight, latest)


@pytest.mark.usefixtures("float64")
def test_tokens_without_weight_are_not_learnt(make_model: MakeModel, data: TrainingData) -> None:
    counted = np.zeros(data.blocks.shape, bool)
    counted[:, 2:5] = True
    masked = replace(data, weights=counted)
    run = start(make_model, masked, 1, lm_weight=1.0)
    (answer,) = run._batches(1)
    assert answer.token_weights.sum((0, 1)).tolist() == pytest.approx([1, 1])
    blocks = answer.blocks
    logits = run.student(input_ids=blocks).logits
    assert isinstance(answer.target, TargetBatch)
    losses, _ = token_losses(logits.flatten(0, 1), answer.target)
    text = torch.nn.functional.cross_entropy(logits[:, 2:5].flatten(0, 1), blocks[:, 3:6].flatten())
    wanted = losses.view(2, LENGTH)[:, 2:5].mean() + text
    assert run.module(answer).item() == pytest.approx(wanted.item(), rel=ROUNDED_ONCE)
    assert run.advance(1) == pytest.approx(wanted.item(), rel=ROUNDED_ONCE)


def live(make_model: MakeModel, data: TrainingData, temperature: float = 1.0) -> TrainingData:
    teacher = make_model(sharpness=3)
    targets = LiveTeacher(teacher, 64, temperature=temperature, precision="fp32")
    return replace(data, targets=targets)


@pytest.mark.parametrize("loss", ["forward-kl", "reverse-kl", "jensen-shannon", "mse"])
def test_a_live_teacher_teaches_what_its_whole_distribution_does(
    make_model: MakeModel, make_blocks: MakeBlocks, data: TrainingData, tmp_path: Path, loss: str
) -> None:
    ordered = data.blocks[slot_blocks(10, 7)]
    form = TargetFormat(64, 64, 2.0)
    stored = write_targets(
        make_model(sharpness=3), ordered, target_format=form, directory=tmp_path / "full"
    )
    found = []
    for source in (replace(data, targets=stored), live(make_model, data, 2.0)):
        run = start(make_model, source, 3, loss=loss, temperature=2.0)
        value = first_loss(run)
        value.backward()
        gradient = torch.cat([p.grad.flatten() for p in run.student.parameters()])
        found.append((value.item(), gradient, run.advance(3)))
    (stored_loss, stored_gradient, stored_mean), (live_loss, live_gradient, live_mean) = found
    assert stored_loss == pytest.approx(live_loss, rel=5e-3)
    assert torch.cosine_similarity(stored_gradient, live_gradient, dim=0) > 0.999
    assert stored_mean == pytest.approx(live_mean, rel=2e-2)


@pytest.mark.usefixtures("float64")
def test_the_text_alone_needs_no_teacher(make_model: MakeModel, data: TrainingData) -> None:
    run = start(make_model, replace(data, targets=None), 4, loss="ce")
    blocks = torch.from_numpy(data.blocks[slot_blocks(10, 7)[:2]].astype(np.int64))
    ce = make_model(seed=1)(input_ids=blocks, labels=blocks).loss.item()
    assert run.advance(1) == pytest.approx(ce, rel=ROUNDED_ONCE)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("distance", ["cosine", "mse"])
def test_hidden_states_are_learnt_beside_the_logits(
    make_model: MakeModel, data: TrainingData, distance: str
) -> None:
    states = StateSettings(distance=distance)
    run = start(make_model, live(make_model, data), 40, states=states, learning_rate=1e-2)
    (answer,) = run._batches(1)
    plain = start(make_model, live(make_model, data), 40, learning_rate=1e-2)
    (same,) = plain._batches(1)
    assert run.module(answer).item() == pytest.approx(2 * plain.module(same).item(), rel=EXACT)

    matcher = run.module.matcher
    assert matcher is not None

    def distance_now() -> float:
        with recording(run.student, matcher.student_layers) as found:
            run.student(input_ids=answer.blocks)
        shares = answer.token_weights[..., 0].flatten()
        return matcher(found, answer.hidden_states, token_weights=shares).item()

    before = distance_now()
    run.advance(40)
    assert distance_now() < 0.7 * before
    assert not any("matcher" in name for name in run.student.state_dict())


def test_states_without_a_teacher_beside_are_refused(
    make_model: MakeModel, data: TrainingData
) -> None:
    with pytest.raises(DistillError, match="--training.targets live"):
        start(make_model, data, 1, states=StateSettings())


def test_a_compiled_student_learns_the_same(
    make_model: MakeModel, data: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the code generator, which is torch's own and takes a C++ compiler and a minute."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    ends = []
    for compiled in (False, True):
        run = start(make_model, data, 2, compile=compiled)
        loss = run.advance(2)
        ends.append((loss, weights(run)))
    tolerance = fp32_tolerance(run.student.config)
    assert ends[0][0] == pytest.approx(ends[1][0], rel=tolerance)
    assert ends[0][1].keys() == ends[1][1].keys()
    for name, value in ends[0][1].items():
        assert (value - ends[1][1][name]).norm() <= tolerance * value.norm(), name


def test_moments_in_eight_bits_are_kept_in_checkpoints(
    make_model: MakeModel, data: TrainingData, tmp_path: Path
) -> None:
    pytest.importorskip("bitsandbytes")
    whole = start(make_model, data, 4, optimizer="adamw-8bit")
    whole.advance(2)
    whole.save(tmp_path / "checkpoint")
    whole.advance(2)
    again = start(make_model, data, 4, optimizer="adamw-8bit", seed=3)
    again.restore(tmp_path / "checkpoint")
    again.advance(2)
    assert all(torch.equal(value, weights(again)[name]) for name, value in weights(whole).items())


def test_a_batch_that_does_not_fit_suggests_smaller_ones(
    make_model: MakeModel, data: TrainingData
) -> None:
    run = start(make_model, data, 1)

    def forward(*args: Any, **kwargs: Any) -> Any:
        raise torch.OutOfMemoryError("no more")

    run.student.model.forward = forward
    with pytest.raises(DistillError, match="2 sequences of 16 tokens.*--training.micro_batch"):
        run.advance(1)


def test_sequences_longer_than_the_positions_are_refused(
    make_model: MakeModel, data: TrainingData
) -> None:
    student = make_model(length=8)
    with pytest.raises(DistillError, match="16 tokens.*only 8 positions"):
        Distillation(student, data, training=ResolvedTraining(batch=2, precision="fp32"), tokens=64)


def test_targets_over_another_vocabulary_are_refused(
    make_model: MakeModel, data: TrainingData
) -> None:
    student = make_model(vocabulary=60)
    with pytest.raises(DistillError, match="64 tokens.*only 60"):
        Distillation(student, data, training=ResolvedTraining(batch=2, precision="fp32"), tokens=64)


def test_norms_and_biases_do_not_decay(make_model: MakeModel, data: TrainingData) -> None:
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
        {"micro_batch": 0},
        {"schedule": "linear"},
        {"optimizer": "sgd"},
        {"loss": "hinge"},
        {"targets": "some"},
        {"draws": 0},
        {"average": 1.0},
        {"warmup_steps": -1},
        {"decay_share": 1.1},
        {"learning_rate": math.nan},
    ],
)
def test_settings_that_make_no_sense_are_named(wrong: dict[str, Any]) -> None:
    ((name, value),) = wrong.items()
    with pytest.raises(DistillError, match=f"{name} is {value!r}"):
        TrainingSettings(**wrong)


def test_defaults_follow_the_size_of_the_run_and_of_the_student() -> None:
    assert default_batch(256 * 400 * 5, 256) == 5
    assert default_batch(1, 256) == 1
    assert default_batch(10**12, 256) == 64
    assert default_rate(10**5) == 4e-3
    assert default_rate(4 * 10**9) == pytest.approx(1e-4, rel=0.1)


def test_precision_is_resolved() -> None:
    cpu = torch.device("cpu")
    assert resolve_precision("auto", cpu) in ("bf16", "fp32")
    assert resolve_precision("fp32", cpu) == "fp32"
    with pytest.raises(DistillError, match="'half'"):
        resolve_precision("half", cpu)


def test_throttle_is_true_once_in_its_time() -> None:
    assert not Throttle(60)()
    always = Throttle(0)
    assert always()
    assert always()


def test_states_of_a_compiled_student_are_refused(
    make_model: MakeModel, data: TrainingData
) -> None:
    with pytest.raises(DistillError, match="--training.compile"):
        start(make_model, live(make_model, data), 1, states=StateSettings(), compile=True)
