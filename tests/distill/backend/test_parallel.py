"""One run on several processes is the run on one, and can be taken up by another number of them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from distill import (
    Distillation,
    DistillError,
    HeldOut,
    ResolvedTraining,
    TargetFormat,
    Targets,
    TrainingData,
    slot_blocks,
    write_targets,
)
from distill.backend.parallel import World
from distill.train.export import gathered_weights
from tests.distill.group import together
from tests.exactness import Float64
from tests.pruning.models import build_teacher

pytestmark = pytest.mark.process

LENGTH, STEPS = 12, 5
NEAR = 1e-6
"""Exact but for the weights of tokens, which are kept in fp32: their rounding, over a few steps."""


def settings(**more: Any) -> ResolvedTraining:
    return ResolvedTraining(batch=4, precision="fp32", learning_rate=5e-3, clip_norm=0.5, **more)


def student(variant: str, seed: int) -> Any:
    return build_teacher(variant, seed)


def prepare(variant: str, folder: Path) -> None:
    teacher = student(variant, 1)
    blocks = np.random.default_rng(0).integers(0, teacher.config.vocab_size, (12, LENGTH))
    np.save(folder / "blocks.npy", blocks)
    form = TargetFormat(teacher.config.vocab_size, 8)
    write_targets(
        teacher, blocks[slot_blocks(12, 3)], target_format=form, directory=folder / "train"
    )
    whole = TargetFormat.whole(teacher.config.vocab_size)
    write_targets(teacher, blocks[:5], target_format=whole, directory=folder / "selection")


def train(
    world: World,
    folder: str,
    variant: str,
    name: str,
    stops: list[int],
    more: dict[str, Any],
) -> None:
    """Train in pieces that end at `stops`, each a run of its own that takes up the last one.

    In float64, so that what is summed in another order is still the same.
    """
    with Float64():
        train_exactly(world, Path(folder), variant, name, stops, more)


def train_exactly(
    world: World, root: Path, variant: str, name: str, stops: list[int], more: dict[str, Any]
) -> None:
    blocks = np.load(root / "blocks.npy")
    data = TrainingData(blocks, Targets(root / "train"), 3)
    checkpoint = root / name / "checkpoint"
    for stop in stops:
        run = Distillation(
            student(variant, 2),
            data,
            training=settings(**more),
            tokens=STEPS * 4 * LENGTH,
            world=world,
        )
        if checkpoint.exists():
            run.restore(checkpoint)
        world.barrier()
        run.saves_aside = True
        run.advance(stop - run.step)
        run.save(checkpoint, waiting=False)
        run.settle_saving(waiting=True)
    evaluation = run.evaluate(HeldOut(blocks[:5], Targets(root / "selection")))
    with run.averaged():
        weights = gathered_weights(run.student, torch.float64, world)
    if world.first:
        save_file(weights, root / name / "weights.safetensors")
        (root / name / "scores.json").write_text(json.dumps(evaluation.to_dict()))


def result(folder: Path, name: str) -> dict[str, torch.Tensor]:
    return load_file(folder / name / "weights.safetensors")


def scores(folder: Path, name: str) -> dict[str, list[float]]:
    found: dict[str, list[float]] = json.loads((folder / name / "scores.json").read_text())
    return found


def several(world: World, runs: list[tuple[Any, ...]]) -> None:
    """Several runs in the same processes, since starting these takes longest."""
    for arguments in runs:
        train(world, *arguments)


def close(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, value in first.items():
        torch.testing.assert_close(value, second[name], rtol=NEAR, atol=NEAR, msg=name)


DROPOUT = "gpt2"
"""It drops other activations in each process."""
VARIANTS = ("llama-gqa-tied", "gpt2", "qwen3-moe-mixed")
TAKEN_UP = "llama-gqa-tied"
"""It is also taken up by another number of processes."""
MORE: dict[str, dict[str, Any]] = {TAKEN_UP: {"average": 0.8, "micro_batch": 1}}
"""Settings of the training of some."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By variant, runs on two processes: whole, in two pieces, and in five; and the second part of
    one that began on a single process."""
    found: dict[str, Path] = {}
    runs: list[tuple[Any, ...]] = []
    for variant in VARIANTS:
        folder = tmp_path_factory.mktemp(variant)
        prepare(variant, folder)
        more = MORE.get(variant, {})
        runs.append((str(folder), variant, "two", [STEPS], more))
        runs.append((str(folder), variant, "two, stopped", [1, 2, 3, 4, STEPS], more))
        if variant == TAKEN_UP:
            runs.append((str(folder), variant, "two, half", [2], more))
        if variant != DROPOUT:
            together(1, folder, train, str(folder), variant, "one", [STEPS], more)
        if variant == TAKEN_UP:
            together(1, folder, train, str(folder), variant, "one, half", [2], more)
        found[variant] = folder
    folder = found[TAKEN_UP]
    (folder / "from one").mkdir()
    (folder / "one, half" / "checkpoint").rename(folder / "from one" / "checkpoint")
    runs.append((str(folder), TAKEN_UP, "from one", [STEPS], MORE[TAKEN_UP]))
    together(2, tmp_path_factory.mktemp("store") / "file", several, runs)
    return found


@pytest.mark.parametrize("variant", VARIANTS)
def test_stopped_anywhere_and_resumed_is_bit_for_bit_the_same(
    folders: dict[str, Path], variant: str
) -> None:
    whole, stopped = (result(folders[variant], name) for name in ("two", "two, stopped"))
    assert all(torch.equal(value, stopped[name]) for name, value in whole.items())
    assert scores(folders[variant], "two") == scores(folders[variant], "two, stopped")


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("variant", [name for name in VARIANTS if name != DROPOUT])
def test_two_processes_learn_what_one_learns(folders: dict[str, Path], variant: str) -> None:
    close(result(folders[variant], "one"), result(folders[variant], "two"))
    initial = dict(student(variant, 2).named_parameters())
    moved = [
        not torch.allclose(value, initial[name], atol=1e-3)
        for name, value in result(folders[variant], "one").items()
        if name in initial
    ]
    assert all(moved)
    one, two = (scores(folders[variant], name) for name in ("one", "two"))
    for metric in ("kl", "ce"):
        np.testing.assert_allclose(one[metric], two[metric], rtol=NEAR)


def test_another_number_of_processes_takes_a_run_up(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = folders[TAKEN_UP]
    (folder / "from two").mkdir()
    (folder / "two, half" / "checkpoint").rename(folder / "from two" / "checkpoint")
    together(1, tmp_path, train, str(folder), TAKEN_UP, "from two", [STEPS], MORE[TAKEN_UP])
    for name in ("from two", "from one"):
        close(result(folder, name), result(folder, "two"))


def test_every_process_writes_its_own_rows(folders: dict[str, Path]) -> None:
    checkpoint = folders["gpt2"] / "two, stopped" / "checkpoint"
    files = sorted(file.name for file in checkpoint.iterdir())
    assert files == ["meta.json", "state-00000.safetensors", "state-00001.safetensors"]
    sizes = [(checkpoint / name).stat().st_size for name in files[1:]]
    assert max(sizes) < 1.3 * min(sizes)


def test_a_batch_that_cannot_be_shared_is_refused(tmp_path: Path) -> None:
    prepare("llama-gqa-tied", tmp_path)
    data = TrainingData(np.load(tmp_path / "blocks.npy"), Targets(tmp_path / "train"), 3)
    with pytest.raises(DistillError, match="batch is 4, which 3 workers.*3 or 6"):
        Distillation(
            student("llama-gqa-tied", 2), data, training=settings(), tokens=480, world=World(0, 3)
        )
