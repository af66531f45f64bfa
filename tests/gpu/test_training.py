"""Training on a GPU: as on a CPU, and without making the GPU wait."""

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from distill import (
    Distillation,
    ResolvedTraining,
    Targets,
    TrainingData,
    TrainingDiverged,
    evaluation_format,
    slot_blocks,
    write_targets,
)
from distill.evaluation import evaluate
from distill.loss import LiveTeacher
from tests.distill.conftest import FORMS, VOCABULARY, MakeBlocks, MakeModel

LENGTH = 32
KINDS = [*FORMS, "live", "ce"]
TOLERANCE = 1e-4
"""Of fp32 sums in another order, relative."""


class Runs:
    """Runs of one student on any device."""

    def __init__(self, make_model: MakeModel, make_blocks: MakeBlocks, folder: Path):
        self.make_model, self.blocks, self.folder = make_model, make_blocks(16, LENGTH), folder

    def targets(self, kind: str, device: str) -> Targets | LiveTeacher | None:
        if kind == "ce":
            return None
        teacher: Any = self.make_model(VOCABULARY, sharpness=3, hidden=32)
        teacher = teacher.to(device)
        if kind == "live":
            return LiveTeacher(teacher, VOCABULARY, temperature=1.0, precision="fp32")
        return write_targets(
            teacher,
            self.blocks[slot_blocks(16, 0)],
            target_format=FORMS[kind],
            directory=self.folder / f"{kind}-{device}",
        )

    def run(self, kind: str, device: str, **settings: Any) -> Distillation:
        given: dict[str, Any] = {"batch": 4, "topk": 16, "precision": "fp32", "learning_rate": 1e-3}
        training = ResolvedTraining(**given | settings, loss="ce" if kind == "ce" else "forward-kl")
        student: Any = self.make_model(VOCABULARY, seed=1, hidden=32)
        student = student.to(device)
        data = TrainingData(self.blocks, self.targets(kind, device), seed=0)
        return Distillation(student, data, training=training, tokens=6 * 4 * LENGTH)


@pytest.fixture
def runs(make_model: MakeModel, make_blocks: MakeBlocks, tmp_path: Path) -> Runs:
    return Runs(make_model, make_blocks, tmp_path)


@contextlib.contextmanager
def waits() -> Iterator[list[str]]:
    """The files of ours that make the host wait for the GPU inside."""
    found: list[str] = []
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield found
        finally:
            torch.cuda.set_sync_debug_mode("default")
    # transformers itself looks once per forward pass whether sequences are packed
    own = [w for w in warned if "called a synchronizing" in str(w.message)]
    found += [f"{w.filename}:{w.lineno}" for w in own if "/transformers/" not in w.filename]


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_does_not_wait_for_the_gpu(runs: Runs, kind: str) -> None:
    run = runs.run(kind, "cuda", micro_batch=2, average=0.9)
    run.advance(1)
    with waits() as found:
        run.advance(4)
    assert found == []


@pytest.mark.parametrize("kind", KINDS)
def test_steps_are_those_of_a_cpu(runs: Runs, kind: str) -> None:
    losses, weights = [], []
    for device in ("cpu", "cuda"):
        run = runs.run(kind, device, micro_batch=2)
        losses.append(run.advance(6))
        weights.append({name: value.cpu() for name, value in run.student.state_dict().items()})
    assert losses[1] == pytest.approx(losses[0], rel=TOLERANCE)
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-2, atol=1e-3, msg=name)


@pytest.mark.parametrize("kind", ["sampled", "live"])
def test_compiled_steps_are_the_same(runs: Runs, kind: str) -> None:
    losses = [runs.run(kind, "cuda", compile=compiled).advance(6) for compiled in (False, True)]
    assert losses[1] == pytest.approx(losses[0], rel=TOLERANCE)


def test_a_step_that_is_not_finite_leaves_the_weights_alone(runs: Runs, tmp_path: Path) -> None:
    run = runs.run("sampled", "cuda")
    forward, kept = run.module.forward, {}

    def broken(batch: Any) -> Any:
        if run.step == 2:
            kept.update({n: p.detach().clone() for n, p in run.student.named_parameters()})
        return forward(batch) * (float("nan") if run.step == 2 else 1.0)

    run.module.forward = broken  # type: ignore[method-assign]
    with pytest.raises(TrainingDiverged, match="at step 3 of 6"):
        run.advance(6)
    assert run.step == 2
    for name, parameter in run.student.named_parameters():
        assert torch.equal(parameter, kept[name]), name


def test_a_checkpoint_is_not_written_of_a_run_that_diverged(runs: Runs, tmp_path: Path) -> None:
    run = runs.run("sampled", "cuda")
    forward = run.module.forward
    run.module.forward = lambda batch: forward(batch) * float("nan")  # type: ignore[method-assign]

    def save() -> None:
        run.save(tmp_path / "checkpoint")

    with pytest.raises(TrainingDiverged, match="at step 1 of 6"):
        run.advance(6, save)
    assert not (tmp_path / "checkpoint").exists()


def test_a_resumed_run_ends_with_the_same_weights(runs: Runs, tmp_path: Path) -> None:
    whole, first = (runs.run("topk", "cuda", average=0.9) for _ in range(2))
    whole.advance(6)
    first.advance(3)
    first.save(tmp_path / "checkpoint", waiting=False)
    first.advance(1)  # while it is written
    first.settle_saving(waiting=True)
    second = runs.run("topk", "cuda", average=0.9)
    second.restore(tmp_path / "checkpoint")
    second.advance(6)
    for (name, value), other in zip(
        second.student.named_parameters(), whole.student.parameters(), strict=True
    ):
        torch.testing.assert_close(value, other, rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.parametrize("kind", list(FORMS))
def test_targets_and_evaluation_are_those_of_a_cpu(
    make_model: MakeModel, make_blocks: MakeBlocks, tmp_path: Path, kind: str
) -> None:
    blocks, found = make_blocks(4, LENGTH), []
    for device in ("cpu", "cuda"):
        teacher: Any = make_model(VOCABULARY, sharpness=3, hidden=32)
        student: Any = make_model(VOCABULARY, seed=1, hidden=32)
        teacher, student = teacher.to(device), student.to(device)
        targets = write_targets(
            teacher, blocks, target_format=FORMS[kind], directory=tmp_path / f"{kind}-{device}"
        )
        found.append(evaluate(student, blocks, targets=targets).means())
    assert found[1]["kl"] == pytest.approx(found[0]["kl"], rel=2e-2 if kind == "sampled" else 1e-3)
    assert found[1]["ce"] == pytest.approx(found[0]["ce"], rel=TOLERANCE)


def test_evaluation_format_is_read_on_the_gpu(
    make_model: MakeModel, make_blocks: MakeBlocks, tmp_path: Path
) -> None:
    model: Any = make_model(VOCABULARY, hidden=32)
    model, blocks = model.to("cuda"), make_blocks(2, LENGTH)
    targets = write_targets(
        model, blocks, target_format=evaluation_format(VOCABULARY), directory=tmp_path / "targets"
    )
    assert evaluate(model, blocks, targets=targets).means()["kl"] == pytest.approx(0, abs=1e-4)
