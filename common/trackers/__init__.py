"""Experiment trackers: TensorBoard, Weights & Biases and MLflow behind one small interface."""

from common.trackers.names import MLFLOW, TENSORBOARD, TRACKERS, WANDB, Values, check_trackers
from common.trackers.safe import SafeTrackers
from common.trackers.services import open_trackers

__all__ = [
    "MLFLOW",
    "TENSORBOARD",
    "TRACKERS",
    "WANDB",
    "SafeTrackers",
    "Values",
    "check_trackers",
    "open_trackers",
]
