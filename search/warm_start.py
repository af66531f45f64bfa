"""A student's block-wise warm start, kept in the workspace as a checkpoint of its own."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from distill import BlockAlignment, BlockMap, BlockwiseSettings, TrainingData
from distill.atomic import write_directory_atomically
from distill.callbacks import checkpoint_and_log
from distill.limits import RunLimits
from distill.loading import load
from distill.writing import gathered_weights, write_model

Say = Callable[[str], None]


def warm_started(
    student: Path,
    teacher: Callable[[], Any],
    mapping: BlockMap,
    blocks: Any,
    settings: BlockwiseSettings,
    seed: int,
    device: torch.device,
    directory: Path,
    checkpoint_seconds: float,
    say: Say,
) -> Path:
    """`directory` with the checkpoint `student` after block-wise distillation, now or before.

    It is in fp32, since the student trains on from it. `teacher` is asked for the model only if
    there is something to do. Raises what `BlockAlignment` raises.
    """
    if directory.exists():
        say("warm start: found")
        return directory
    checkpoint = directory.with_name(f"{directory.name}-checkpoint")
    model = load(student, torch.float32).to(device)
    data = TrainingData(blocks, None, seed)
    run = BlockAlignment(model, teacher(), mapping=mapping, data=data, settings=settings)
    if checkpoint.exists():
        run.restore(checkpoint)
    limits = RunLimits(settings.tokens, 1, checkpoint, checkpoint_seconds)
    after_step = checkpoint_and_log(run, limits, name="warm start", say=say)
    run.advance(run.total_steps, after_step)
    errors = ", ".join(f"{loss:.4f}" for loss in run.block_losses)
    say(f"warm start: {run.tokens:,} tokens; errors of the blocks {errors}")
    weights = gathered_weights(model, torch.float32)
    write_directory_atomically(directory, lambda aside: write_model(model, weights, aside))
    shutil.rmtree(checkpoint, ignore_errors=True)
    return directory
