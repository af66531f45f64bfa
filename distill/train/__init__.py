"""Training: settings, limits, steps, schedules, optimisers and checkpoints."""

from typing import TYPE_CHECKING

from common.lazy import lazy_exports

if TYPE_CHECKING:
    from distill.train.checkpoint import TrainingState
    from distill.train.export import gathered_weights, write_model
    from distill.train.limits import RunLimits
    from distill.train.metrics import check_wandb
    from distill.train.optimizers import check_optimizer
    from distill.train.settings import (
        ADAMW,
        ADAMW_8BIT,
        FREE_SETTINGS,
        LIVE,
        MINIMUM_STEPS,
        ResolvedTraining,
        TrainingSettings,
        default_rate,
    )
    from distill.train.trainer import Distillation, TrainingData, check_workers

__all__ = [
    "ADAMW",
    "ADAMW_8BIT",
    "FREE_SETTINGS",
    "LIVE",
    "MINIMUM_STEPS",
    "Distillation",
    "ResolvedTraining",
    "RunLimits",
    "TrainingData",
    "TrainingSettings",
    "TrainingState",
    "check_optimizer",
    "check_wandb",
    "check_workers",
    "default_rate",
    "gathered_weights",
    "write_model",
]

__getattr__ = lazy_exports(__name__)
