"""Teach a student from a teacher: corpus, stored teacher targets, training, evaluation.

from distill import Corpus, Distillation, Targets, TrainingSettings, evaluate, write_targets
"""

from distill.corpus import Corpus, SplitSizes, pack_corpus
from distill.documents import Document, read_documents
from distill.errors import DistillError, TrainingDiverged
from distill.evaluation import Evaluation, evaluate, evaluate_live, teacher_cross_entropy
from distill.order import slot_blocks
from distill.precision import resolve_precision
from distill.targets import TargetFormat, Targets, evaluation_format, write_targets
from distill.training import (
    Distillation,
    Throttle,
    TrainingData,
    TrainingSettings,
    default_batch,
    default_rate,
)

__all__ = [
    "Corpus",
    "DistillError",
    "Distillation",
    "Document",
    "Evaluation",
    "SplitSizes",
    "TargetFormat",
    "Targets",
    "Throttle",
    "TrainingData",
    "TrainingDiverged",
    "TrainingSettings",
    "default_batch",
    "default_rate",
    "evaluate",
    "evaluate_live",
    "evaluation_format",
    "pack_corpus",
    "read_documents",
    "resolve_precision",
    "slot_blocks",
    "teacher_cross_entropy",
    "write_targets",
]
