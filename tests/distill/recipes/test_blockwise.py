"""Blocks that learn alone: what they learn from, that they are apart, and exact resumption."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from distill import DistillError, TrainingData, TrainingDiverged, default_rate, evaluate_live
from distill.backend.layers import EMBEDDINGS, decoder_layers, feeding, recording
from distill.recipes.block_map import BlockMap
from distill.recipes.blockwise import (
    RATE_FACTOR,
    BlockAlignment,
    BlockwiseSettings,
    normalised_error,
)
from pruning import Architecture, Checkpoint, architecture_of, cut_student
from tests.exactness import EXACT
from tests.pruning.models import build_teacher, random_ordering, smaller_than, token_ids

LENGTH = 16
FAMILIES = ["llama-gqa-tied", "llama-mha", "gpt2", "gpt-neox", "gemma2", "qwen3-moe"]
BLOCKS = token_ids(24, LENGTH).numpy().astype(np.uint16)
DATA = TrainingData(BLOCKS, None, 3)


class Pair:
    """A teacher and what is cut out of it."""

    def __init__(self, variant: str, directory: Path) -> None:
        self.teacher: Any = build_teacher(variant)
        self.teacher.save_pretrained(directory)
        self.checkpoint = Checkpoint(directory)
        self.ordering = random_ordering(self.teacher.config)

    def cut(
        self, kept: list[int], architecture: Architecture | None = None
    ) -> tuple[Any, BlockMap]:
        shape = architecture or smaller_than(self.teacher.config)
        shape = replace(shape, layers=len(kept))
        student: Any = cut_student(
            self.checkpoint, shape, kept, ordering=self.ordering, dtype=self.teacher.dtype
        )
        channels = self.ordering.hidden[: shape.hidden].tolist()
        return student, BlockMap(tuple(kept), tuple(channels))


@pytest.fixture
def pair(tmp_path: Path) -> Any:
    return lambda variant: Pair(variant, tmp_path / "teacher")


def run_of(
    student: Any,
    teacher: Any,
    mapping: BlockMap,
    steps: int = 8,
    precision: str = "fp32",
    **given: Any,
) -> BlockAlignment:
    settings = BlockwiseSettings(steps * 2 * LENGTH, batch=2, precision=precision, **given)
    return BlockAlignment(student, teacher, mapping=mapping, data=DATA, settings=settings)


@pytest.mark.parametrize("variant", [*FAMILIES, "phi3", "mixtral"])
def test_the_teacher_itself_has_nothing_to_learn(variant: str, pair: Any) -> None:
    made = pair(variant)
    same, mapping = made.cut([0, 1, 2], architecture_of(made.teacher.config))
    run = run_of(same, made.teacher, mapping, learning_rate=1e-9)
    loss = run.advance(1)
    assert loss is not None and loss < 1e-10
    twin = build_teacher(variant)
    assert run_of(twin, made.teacher, BlockMap.between(twin, made.teacher)).advance(1) == 0.0


@pytest.mark.parametrize("variant", FAMILIES)
def test_a_cut_student_comes_closer_to_its_teacher(variant: str, pair: Any) -> None:
    made = pair(variant)
    shape = smaller_than(made.teacher.config)
    if made.teacher.config.model_type in ("llama", "gemma2"):  # half the channels teach too little
        shape = replace(shape, hidden=48)
    student, mapping = made.cut([0, 2], shape)
    tests = token_ids(8, LENGTH, seed=9).numpy()
    before = evaluate_live(student, made.teacher, blocks=tests)[0].means()["kl"]
    run = run_of(student, made.teacher, mapping, 60, learning_rate=1e-2)
    run.advance(1)
    first = run.block_losses
    assert len(first) == 2 and all(loss > 1e-3 for loss in first)
    run.advance(99)
    assert all(new < 0.8 * old for new, old in zip(run.block_losses, first, strict=True))
    assert evaluate_live(student, made.teacher, blocks=tests)[0].means()["kl"] < 0.97 * before


def test_only_the_layers_are_trained(pair: Any) -> None:
    made = pair("gpt2")
    student, mapping = made.cut([0, 2])
    before = {name: p.detach().clone() for name, p in student.named_parameters()}
    run_of(student, made.teacher, mapping, learning_rate=1e-2).advance(3)
    inside = {id(p) for p in decoder_layers(student).parameters()}
    for name, parameter in student.named_parameters():
        assert torch.equal(parameter, before[name]) == (id(parameter) not in inside), name


def gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


def gradients(run: BlockAlignment, layer: int) -> list[Tensor]:
    run.optimizer.zero_grad()
    run.backward(token_ids(2, LENGTH, seed=5))
    return [gradient(p).clone() for p in run.layers[layer].parameters()]


@pytest.mark.parametrize("variant", FAMILIES)
def test_no_block_knows_of_another(variant: str, pair: Any) -> None:
    made = pair(variant)
    student, mapping = made.cut([0, 1, 2])
    run = run_of(student, made.teacher, mapping)
    wanted = [gradients(run, layer) for layer in range(3)]
    for shaken in range(3):
        saved = {n: p.detach().clone() for n, p in run.layers[shaken].named_parameters()}
        with torch.no_grad():
            for parameter in run.layers[shaken].parameters():
                parameter.mul_(1.5)
        for layer in range(3):
            same = map(torch.equal, gradients(run, layer), wanted[layer])
            assert all(same) == (layer != shaken)
        run.layers[shaken].load_state_dict(saved, strict=False)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("absorb", [True, False])
def test_losses_are_the_normalised_errors_of_the_blocks_alone(absorb: bool, pair: Any) -> None:
    made = pair("gemma2")
    student, mapping = made.cut([1])
    run = run_of(student, made.teacher, mapping, absorb_dropped=absorb)
    ids = token_ids(2, LENGTH, seed=5)
    found = run.backward(ids)
    with recording(made.teacher, [EMBEDDINGS, 0, 1, 2]) as states, torch.no_grad():
        made.teacher(input_ids=ids)
    parents = {index: state[..., list(mapping.channels)] for index, state in states.items()}
    fed, goal = (parents[EMBEDDINGS], parents[2]) if absorb else (parents[0], parents[1])
    with feeding(student, {0: fed}), recording(student, [0]) as children, torch.no_grad():
        student(input_ids=ids)
    error = (children[0] - goal).pow(2).mean() / goal.pow(2).mean()
    assert found.tolist() == pytest.approx([error.item()], rel=EXACT)


def test_with_nothing_dropped_the_option_changes_nothing() -> None:
    every = BlockMap((0, 1, 2), (0,))
    assert every.inputs(True) == every.inputs(False) == [EMBEDDINGS, 0, 1]
    assert every.outputs(3, True) == every.outputs(3, False) == [0, 1, 2]
    few = BlockMap((1, 4), (0,))
    assert (few.inputs(True), few.outputs(6, True)) == ([EMBEDDINGS, 3], [3, 5])
    assert (few.inputs(False), few.outputs(6, False)) == ([0, 3], [1, 4])


def test_the_error_has_no_scale_and_is_one_for_silence() -> None:
    parent, child = torch.randn(2, 3, 5), torch.randn(2, 3, 5)
    assert normalised_error(parent, torch.zeros_like(parent)) == 1
    error = normalised_error(parent, child)
    assert normalised_error(7 * parent, 7 * child).item() == pytest.approx(error.item(), rel=1e-5)
    assert normalised_error(parent.bfloat16(), child.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize("variant", ["llama-gqa-tied", "gpt2", "qwen3-moe"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_resumed_anywhere_ends_with_the_same_weights(
    variant: str, precision: str, pair: Any, tmp_path: Path
) -> None:
    made, steps = pair(variant), 5

    def start() -> BlockAlignment:
        student, mapping = made.cut([0, 2])
        return run_of(student, made.teacher, mapping, steps, precision, learning_rate=1e-2)

    whole = start()
    whole.advance(steps)
    for stop in (1, 4):
        first = start()
        first.advance(stop)
        first.save(tmp_path / "checkpoint", note=stop)
        second = start()
        assert second.restore(tmp_path / "checkpoint")["note"] == stop
        assert (second.step, second.block_losses) == (stop, first.block_losses)
        second.advance(99)
        assert second.finished and second.block_losses == whole.block_losses
        for name, value in second.student.state_dict().items():
            assert torch.equal(value, whole.student.state_dict()[name]), (stop, name)


@pytest.mark.parametrize("variant", ["llama-mha", "gpt2"])
def test_gradient_checkpointing_gives_the_same_gradients(variant: str, pair: Any) -> None:
    made = pair(variant)
    student, mapping = made.cut([0, 2])
    run = run_of(student, made.teacher, mapping)
    plain = [gradients(run, layer) for layer in range(2)]
    student.gradient_checkpointing_enable()
    calls: list[int] = []
    inner = next(run.layers[1].children())
    inner.register_forward_hook(lambda *_: calls.append(1))
    for layer in range(2):
        for first, second in zip(plain[layer], gradients(run, layer), strict=True):
            torch.testing.assert_close(second, first)
    assert len(calls) == 4  # twice a pass


def test_each_block_is_clipped_by_itself(pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = pair("llama-mha")
    student, mapping = made.cut([0, 2])
    run = run_of(student, made.teacher, mapping, clip_norm=1e-4)
    norms: list[float] = []

    def look(*_: Any) -> None:
        for layer in run.layers:
            squares = [gradient(p).square().sum() for p in layer.parameters()]
            norms.append(float(torch.stack(squares).sum().sqrt()))

    monkeypatch.setattr(run.optimizer, "step", look)
    run.advance(1)
    assert norms == pytest.approx([1e-4, 1e-4], rel=1e-2)


def test_a_block_that_diverges_is_named(pair: Any) -> None:
    made = pair("llama-mha")
    student, mapping = made.cut([0, 2])
    run = run_of(student, made.teacher, mapping, 5)
    run.advance(2)
    with torch.no_grad():
        next(run.layers[1].parameters()).fill_(math.nan)
    before = [p.detach().clone() for p in run.layers[0].parameters()]
    with pytest.raises(TrainingDiverged, match="block 1 became nan at step 3 of 5"):
        run.advance(1)
    assert run.step == 2
    assert all(map(torch.equal, run.layers[0].parameters(), before))
    with torch.no_grad():
        next(run.layers[1].parameters()).fill_(0.0)
    assert run.advance(1) is not None


def test_sizes_that_are_not_given_follow_the_run_and_the_student(pair: Any) -> None:
    made = pair("llama-mha")
    student, mapping = made.cut([0, 2])
    settings = BlockwiseSettings(400 * 3 * LENGTH)
    run = BlockAlignment(student, made.teacher, mapping=mapping, data=DATA, settings=settings)
    assert (run.batch, run.total_steps) == (3, 400)
    size = sum(p.numel() for p in student.parameters())
    assert run.peak_rate == RATE_FACTOR * default_rate(size)


def test_progress_is_counted_and_rates_rise_then_fall(pair: Any) -> None:
    made = pair("llama-mha")
    student, mapping = made.cut([0])
    run = run_of(student, made.teacher, mapping, 20, learning_rate=1e-2, warmup_share=0.2)
    assert (run.tokens, run.total_tokens, run.finished) == (0, 20 * 2 * LENGTH, False)
    rates = [run.rate(step) for step in range(20)]
    assert rates[:4] == pytest.approx([0.0025, 0.005, 0.0075, 0.01]) and max(rates) == 1e-2
    assert all(a >= b for a, b in zip(rates[4:], rates[5:], strict=False))
    seen: list[int] = []
    run.advance(3, lambda: seen.append(run.tokens))
    assert seen == [32, 64, 96]
    assert {group["lr"] for group in run.optimizer.param_groups} == {run.rate(2)}
    run.advance(99)
    assert run.finished and run.advance(1) is None


@pytest.mark.parametrize(
    ("layers", "channels", "said"),
    [
        ((), (0,), "layers is \\(\\); it must name"),
        ((1, 0), (0,), "increasing order"),
        ((0, 0), (0,), "each once"),
        ((-1, 0), (0,), "from 0 on"),
        ((0,), (), "at least one teacher channel"),
        ((0,), (2, 2), "none twice"),
        ((0,), (2, -1), "channels holds -1"),
    ],
)
def test_a_map_that_makes_no_sense_is_one_sentence(layers: Any, channels: Any, said: str) -> None:
    with pytest.raises(DistillError, match=said):
        BlockMap(layers, channels)


def test_a_map_that_does_not_fit_is_one_sentence(pair: Any) -> None:
    made = pair("llama-mha")
    student, mapping = made.cut([0, 2])
    for wrong, said in (
        (replace(mapping, layers=(0,)), "layers names 1; .* the student has, 2"),
        (replace(mapping, layers=(0, 3)), "layers holds 3; the teacher's last is 2"),
        (replace(mapping, channels=(1, 2)), "channels names 2"),
        (replace(mapping, channels=(*mapping.channels[:-1], 60)), "channels holds 60"),
    ):
        with pytest.raises(DistillError, match=said):
            run_of(student, made.teacher, wrong)
    with pytest.raises(DistillError, match="student has 2 layers of .* BlockMap"):
        BlockMap.between(student, made.teacher)


@pytest.mark.parametrize(
    "wrong",
    [
        {"tokens": 0},
        {"learning_rate": 0.0},
        {"learning_rate": math.nan},
        {"batch": 0},
        {"clip_norm": -1.0},
        {"warmup_share": 1.5},
        {"final_rate_share": -0.1},
        {"weight_decay": -0.01},
    ],
)
def test_settings_that_make_no_sense_are_named(wrong: dict[str, Any]) -> None:
    ((name, value),) = wrong.items()
    with pytest.raises(DistillError, match=f"{name} is {value!r}"):
        BlockwiseSettings(**{"tokens": 32, **wrong})


def test_a_block_that_stopped_keeps_its_weights_and_the_others_learn_as_before(
    pair: Any, tmp_path: Path
) -> None:
    made = pair("llama-mha")

    def start() -> BlockAlignment:
        student, mapping = made.cut([0, 2])
        return run_of(student, made.teacher, mapping, 6, learning_rate=1e-2)

    whole, run = start(), start()
    whole.advance(6)
    run.advance(2)
    run.stopped.add(0)
    kept = [p.detach().clone() for p in run.layers[0].parameters()]
    run.save(tmp_path / "checkpoint")
    run = start()
    run.restore(tmp_path / "checkpoint")
    assert run.learning == [1]
    run.advance(4)
    assert all(map(torch.equal, kept, run.layers[0].parameters()))
    assert all(map(torch.equal, whole.layers[1].parameters(), run.layers[1].parameters()))
    run = start()
    run.stopped |= {0, 1}
    assert run.finished and run.advance(6) is None and run.step == 0


def test_errors_are_measured_after_each_arrangement_and_change_nothing(pair: Any) -> None:
    made = pair("llama-mha")
    student, mapping = made.cut([0, 2])
    run = run_of(student, made.teacher, mapping)
    ids = token_ids(2, LENGTH, seed=5)
    found = run.errors(ids, [lambda: None, lambda: run.layers[1].register_forward_hook(silence)])
    assert found[0].tolist() == run.backward(ids).tolist()[:1] + [found[0, 1].item()]
    assert found.shape == (2, 2) and found[0, 0] == found[1, 0] and found[1, 1] == 1


def silence(_: Any, __: Any, output: Any) -> Tensor:
    return torch.zeros_like(output[0] if isinstance(output, tuple) else output)
