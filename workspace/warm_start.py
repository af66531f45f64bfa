"""Warm start of a student, block by block, kept in the workspace as a checkpoint of its own."""

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

from common.files import write_directory_atomically
from distill import BlockAlignment, BlockwiseSettings, Corpus
from distill.backend import load
from distill.recipes import checkpoint_and_log
from distill.train import RunLimits, TrainingData, gathered_weights, write_model
from workspace.models.loaded_model import LoadedModel
from workspace.models.model_source import ModelSource
from workspace.models.student_source import block_map

LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class WarmStart:
    """Block-wise distillation of a student that was cut from the teacher."""

    student: ModelSource
    """The model that is warmed up; its folder says what it was cut from."""
    settings: BlockwiseSettings
    """How long, and at which rate."""
    corpus: Corpus
    """Its training split is read."""
    seed: int
    """Fixes the order of the text."""
    checkpoint_seconds: float
    """Least seconds between two checkpoints."""

    def written(self, teacher: LoadedModel, directory: Path) -> Path:
        """`directory` with the warm student, trained now or before.

        It is in fp32, since the student trains on from it. The teacher is loaded only if there is
        something to do. Raises what `BlockAlignment` raises.
        """
        if directory.exists():
            LOGGER.info("warm start: found")
            return directory
        checkpoint = directory.with_name(f"{directory.name}-checkpoint")
        model = load(self.student.directory, torch.float32).to(teacher.device)
        run = BlockAlignment(
            model,
            teacher(),
            mapping=block_map(self.student),
            data=TrainingData(self.corpus.blocks("train"), None, self.seed),
            settings=self.settings,
        )
        if checkpoint.exists():
            run.restore(checkpoint)
        limits = RunLimits(self.settings.tokens, 1, checkpoint, self.checkpoint_seconds)
        after_step = checkpoint_and_log(run, limits, name="warm start")
        run.advance(run.total_steps, after_step)
        errors = ", ".join(f"{loss:.4f}" for loss in run.block_losses)
        LOGGER.info(f"warm start: {run.tokens:,} tokens; errors of the blocks {errors}")
        weights = gathered_weights(model, torch.float32)
        write_directory_atomically(directory, lambda aside: write_model(model, weights, aside))
        shutil.rmtree(checkpoint, ignore_errors=True)
        return directory
