"""Distillation: corpus, stored or live teacher targets, training, evaluation.

from distill import Corpus, Distillation, Targets, TrainingSettings, evaluate, write_targets
"""

from typing import TYPE_CHECKING

from common.lazy import lazy_exports

if TYPE_CHECKING:
    from common.errors import DistillError, TrainingDiverged
    from common.progress import Throttle
    from distill.backend.precision import resolve_precision
    from distill.data.corpus import Corpus, SplitSizes
    from distill.data.documents import Document
    from distill.data.files.sources import CorpusFiles
    from distill.data.messages import Message
    from distill.data.order import slot_blocks
    from distill.data.packing import Packing, pack_corpus
    from distill.data.plan import CorpusPlan
    from distill.data.reading import read_documents
    from distill.data.settings import CorpusFrom
    from distill.evaluation.scores import (
        Evaluation,
        HeldOut,
        evaluate,
        evaluate_live,
        teacher_cross_entropy,
    )
    from distill.loss.live_teacher import LiveTeacher
    from distill.loss.settings import StateSettings
    from distill.recipes.block_map import BlockMap
    from distill.recipes.blockwise import BlockAlignment, BlockwiseSettings
    from distill.targets.formats import TargetFormat, evaluation_format
    from distill.targets.store import Targets, write_targets
    from distill.train.limits import RunLimits
    from distill.train.settings import (
        ResolvedTraining,
        TrainingSettings,
        default_batch,
        default_rate,
    )
    from distill.train.trainer import Distillation, TrainingData

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

__getattr__ = lazy_exports(__name__)
