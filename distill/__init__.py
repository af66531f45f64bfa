"""Teach a student from a teacher: corpus, stored or live teacher targets, training, evaluation.

from distill import Corpus, Distillation, Targets, TrainingSettings, evaluate, write_targets
"""

from distill.blockwise import BlockAlignment, BlockMap, BlockwiseSettings
from distill.data.corpus import Corpus, SplitSizes
from distill.data.documents import Document, Message
from distill.data.packing import Packing, pack_corpus
from distill.data.plan import CorpusPlan
from distill.data.reading import read_documents
from distill.data.settings import CorpusFrom
from distill.data.sources import CorpusFiles
from distill.errors import DistillError, TrainingDiverged
from distill.evaluation import Evaluation, HeldOut, evaluate, evaluate_live, teacher_cross_entropy
from distill.limits import RunLimits
from distill.live import LiveTeacher
from distill.order import slot_blocks
from distill.precision import resolve_precision
from distill.settings import ResolvedTraining, TrainingSettings, default_batch, default_rate
from distill.states import StateSettings
from distill.targets import TargetFormat, Targets, evaluation_format, write_targets
from distill.throttle import Throttle
from distill.training import Distillation, TrainingData

__all__ = [
    "BlockAlignment",
    "BlockMap",
    "BlockwiseSettings",
    "Corpus",
    "CorpusFiles",
    "CorpusFrom",
    "CorpusPlan",
    "DistillError",
    "Distillation",
    "Document",
    "Evaluation",
    "HeldOut",
    "LiveTeacher",
    "Message",
    "Packing",
    "ResolvedTraining",
    "RunLimits",
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
