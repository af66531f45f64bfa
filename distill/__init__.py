"""Teach a student from a teacher: corpus, stored or live teacher targets, training, evaluation.

from distill import Corpus, Distillation, Targets, TrainingSettings, evaluate, write_targets
"""

from distill.blockwise import BlockAlignment, BlockMap, BlockwiseSettings
from distill.data.corpus import Corpus, SplitSizes, pack_corpus
from distill.data.documents import Document, Message, read_documents
from distill.errors import DistillError, TrainingDiverged
from distill.evaluation import Evaluation, evaluate, evaluate_live, teacher_cross_entropy
from distill.live import LiveTeacher
from distill.order import slot_blocks
from distill.precision import resolve_precision
from distill.settings import TrainingSettings, default_batch, default_rate
from distill.states import StateSettings
from distill.targets import TargetFormat, Targets, evaluation_format, write_targets
from distill.training import Distillation, Throttle, TrainingData

__all__ = [
    "BlockAlignment",
    "BlockMap",
    "BlockwiseSettings",
    "Corpus",
    "DistillError",
    "Distillation",
    "Document",
    "Evaluation",
    "LiveTeacher",
    "Message",
    "SplitSizes",
    "StateSettings",
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
