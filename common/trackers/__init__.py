"""Experiment trackers: TensorBoard, Weights & Biases and MLflow behind one small interface."""

from common.trackers.names import (
    MLFLOW,
    TENSORBOARD,
    TRACKERS,
    WANDB,
    Values,
    check_names,
    require_installed,
)
from common.trackers.safe import SafeTrackers
from common.trackers.services import open_trackers

__all__ = [
    "MLFLOW",
    "TENSORBOARD",
    "TRACKERS",
    "WANDB",
    "SafeTrackers",
    "Values",
    "check_names",
    "open_trackers",
    "require_installed",
]
