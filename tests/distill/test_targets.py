from pathlib import Path

import numpy as np
import pytest
import torch

from distill import (
    Distillation,
    DistillError,
    TargetFormat,
    TrainingData,
    TrainingSettings,
    evaluate,
    evaluation_format,
    slot_blocks,
    teacher_cross_entropy,
    write_targets,
)
from distill.losses import full_forward_kl


class Interrupted(Exception):
    pass


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr("distill.targets.SHARD_BLOCKS", 4)


def contents(directory: Path) -> dict[str, bytes]:
    files = sorted(f for f in directory.rglob("*") if f.is_file())
    return {str(f.relative_to(directory)): f.read_bytes() for f in files}


def live_log_probs(model, blocks, temperature=1.0):
    with torch.no_grad():
        ids = torch.from_numpy(blocks.astype(np.int64))
        return torch.log_softmax(model(input_ids=ids).logits / temperature, -1)


def gradient(model) -> torch.Tensor:
    flat = torch.cat([p.grad.flatten() for p in model.parameters()])
    model.zero_grad()
    return flat


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_training_on_stored_targets_is_training_on_the_live_teacher(
    make_model, make_blocks, tmp_path, temperature
):
    teacher = make_model(512, sharpness=10)
    student = make_model(512, sharpness=8, noise=0.3)
    blocks = make_blocks(4, 32, 512)
    slots = np.arange(4)
    order = slot_blocks(len(blocks), 3)
    form = TargetFormat(512, 64, temperature)
    targets = write_targets(teacher, blocks[order], form, tmp_path)
    settings = TrainingSettings(batch=4, temperature=temperature)
    run = Distillation(student, TrainingData(blocks, targets, 3), settings, 128, "fp32")
    chosen = torch.from_numpy(blocks[order].astype(np.int64))

    stored = run.loss(chosen, slots)
    stored.backward()
    stored_gradient = gradient(student)

    logits = student(input_ids=chosen).logits / temperature
    live = torch.nn.functional.kl_div(
        torch.log_softmax(logits, -1).flatten(0, 1),
        live_log_probs(teacher, blocks[order], temperature).flatten(0, 1),
        reduction="batchmean",
        log_target=True,
    ) * (temperature**2)
    live.backward()
    live_gradient = gradient(student)

    assert live.item() > 0.1
    assert stored.item() == pytest.approx(live.item(), rel=0.02)
    assert torch.cosine_similarity(stored_gradient, live_gradient, dim=0) >= 0.99


@pytest.mark.parametrize(("vocabulary", "full"), [(512, True), (32_768, False)])
def test_evaluation_kl_is_exact_to_one_percent(make_model, make_blocks, tmp_path, vocabulary, full):
    teacher = make_model(vocabulary, sharpness=6)
    form = evaluation_format(vocabulary)
    assert form.full == full
    blocks = make_blocks(3, 16, vocabulary)
    targets = write_targets(teacher, blocks, form, tmp_path)
    ids = torch.from_numpy(blocks.astype(np.int64))
    for noise in (0.05, 0.3):
        student = make_model(vocabulary, sharpness=6, noise=noise)
        with torch.no_grad():
            logits = student(input_ids=ids).logits
        exact = full_forward_kl(logits, live_log_probs(teacher, blocks)).mean(1)
        kl = evaluate(student, blocks, targets).kl
        np.testing.assert_allclose(kl, exact.double().numpy(), rtol=0.01)


@pytest.mark.parametrize("topk", [512, 128])
def test_the_teacher_is_at_no_distance_from_its_own_targets(
    make_model, make_blocks, tmp_path, topk
):
    teacher = make_model(512, sharpness=6)
    blocks = make_blocks(4, 16, 512)
    form = TargetFormat(512, topk)

    def distance(name: str, described) -> float:
        targets = write_targets(teacher, described, form, tmp_path / name)
        return evaluate(teacher, blocks, targets).means()["kl"]

    assert abs(distance("own", blocks)) < 1e-3
    assert distance("position", np.roll(blocks, 1, axis=1)) > 0.1
    assert distance("block", np.roll(blocks, 1, axis=0)) > 0.1


def test_a_batch_is_normalised_and_in_the_order_of_its_slots(
    make_model, make_blocks, tmp_path, small_shards
):
    teacher, blocks = make_model(), make_blocks(9, 8)
    targets = write_targets(teacher, blocks, TargetFormat(64, 8), tmp_path)
    slots = np.array([8, 0, 5])
    batch = targets.batch(slots, torch.device("cpu"))
    total = batch.log_probs.exp().sum(-1) + batch.rest
    torch.testing.assert_close(total, torch.ones(3, 8))
    values, ids = live_log_probs(teacher, blocks[slots]).topk(8, -1)
    assert torch.equal(batch.ids, ids)
    torch.testing.assert_close(batch.log_probs, values, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("topk", [8, 64])
def test_interrupted_writing_goes_on_to_the_same_bytes(
    make_model, make_blocks, tmp_path, small_shards, topk
):
    teacher, blocks, form = make_model(), make_blocks(14, 8), TargetFormat(64, topk)
    write_targets(teacher, blocks, form, tmp_path / "whole", batch=3)

    def interrupt(done: int, total: int, speed: float) -> None:
        if done == 8:
            raise Interrupted

    resumed = tmp_path / "resumed"
    with pytest.raises(Interrupted):
        write_targets(teacher, blocks, form, resumed, batch=3, progress=interrupt)
    kept = contents(resumed)
    assert 0 < len(kept) < len(contents(tmp_path / "whole"))
    seen: list[int] = []
    targets = write_targets(
        teacher, blocks, form, resumed, 3, lambda done, total, speed: seen.append(done)
    )
    assert seen == [12, 14]
    assert targets.holds(14)
    assert contents(resumed) == contents(tmp_path / "whole")


def test_a_lost_shard_is_noticed_and_written_again(make_model, make_blocks, tmp_path, small_shards):
    teacher, blocks, form = make_model(), make_blocks(12, 8), TargetFormat(64, 8)
    targets = write_targets(teacher, blocks, form, tmp_path / "a")
    before = contents(tmp_path / "a")
    (tmp_path / "a" / "00001").rename(tmp_path / "gone")
    assert targets.holds(4)
    assert not targets.holds(12)
    with pytest.raises(DistillError, match="00001"):
        targets.batch(np.array([5]), torch.device("cpu"))
    write_targets(teacher, blocks, form, tmp_path / "a")
    assert contents(tmp_path / "a") == before


def test_more_blocks_keep_what_is_written(make_model, make_blocks, tmp_path, small_shards):
    teacher, blocks, form = make_model(), make_blocks(14, 8), TargetFormat(64, 8)
    write_targets(teacher, blocks, form, tmp_path / "whole")
    write_targets(teacher, blocks[:6], form, tmp_path / "grown")
    first = tmp_path / "grown" / "00000" / "rest.npy"
    written = first.stat().st_mtime_ns
    targets = write_targets(teacher, blocks, form, tmp_path / "grown")
    assert first.stat().st_mtime_ns == written
    assert contents(tmp_path / "grown") == contents(tmp_path / "whole")
    assert targets.holds(14)
    fewer: list[int] = []
    write_targets(
        teacher, blocks[:6], form, tmp_path / "grown", 4, lambda done, *rest: fewer.append(done)
    )
    assert fewer == []
    assert targets.holds(14)


def test_interrupted_growth_loses_nothing(
    make_model, make_blocks, tmp_path, small_shards, monkeypatch
):
    teacher, blocks, form = make_model(), make_blocks(8, 8), TargetFormat(64, 8)
    targets = write_targets(teacher, blocks[:6], form, tmp_path)
    monkeypatch.setattr(teacher, "forward", lambda **_: (_ for _ in ()).throw(Interrupted))
    with pytest.raises(Interrupted):
        write_targets(teacher, blocks, form, tmp_path)
    assert targets.holds(6)


def test_another_format_is_refused(make_model, make_blocks, tmp_path):
    teacher, blocks = make_model(), make_blocks(2, 8)
    write_targets(teacher, blocks, TargetFormat(64, 8), tmp_path)
    with pytest.raises(DistillError, match="topk=8.*topk=16"):
        write_targets(teacher, blocks, TargetFormat(64, 16), tmp_path)


@pytest.mark.parametrize("form", [TargetFormat(64, 8, 3.0), TargetFormat(64, 64)])
def test_log_probability_of_the_next_token(make_model, make_blocks, tmp_path, form):
    teacher, blocks = make_model(), make_blocks(3, 8)
    targets = write_targets(teacher, blocks, form, tmp_path)
    following = torch.from_numpy(blocks.astype(np.int64))[:, 1:, None]
    wanted = live_log_probs(teacher, blocks)[:, :-1].gather(-1, following).squeeze(-1)
    stored = torch.from_numpy(targets.next_log_probs(np.arange(3)))
    torch.testing.assert_close(stored[:, :-1], wanted)
    assert (stored[:, -1] == 0).all()
    ce = teacher_cross_entropy(targets, 3, 8)
    np.testing.assert_allclose(ce, -wanted.mean(1).double().numpy(), rtol=1e-5)


def test_bytes_on_disk_are_those_stated(make_model, make_blocks, tmp_path):
    teacher, blocks = make_model(), make_blocks(16, 32)
    for form in (TargetFormat(64, 8), TargetFormat(64, 64)):
        folder = tmp_path / str(form.topk)
        write_targets(teacher, blocks, form, folder)
        arrays = [np.load(f) for f in folder.rglob("*.npy")]
        assert sum(array.nbytes for array in arrays) == form.bytes_per_token * blocks.size
