"""What a teacher takes: to be corrected, to be read, and its answers on disk."""

from dataclasses import replace

from common.errors import require
from distill.data import SplitSizes
from distill.recipes import CorrectionPlan, CorrectionSettings
from distill.targets import TargetFormat, evaluation_format
from distill.train import RunLimits
from pruning import architecture_of
from search.cluster.trial_memory import SLACK, TrialMemory, process_bytes
from search.needs.memory import MemoryParts
from search.needs.passes import teacher_pass
from workspace.corpus_and_targets import TargetNeeds
from workspace.importance import CALIBRATION_BATCH
from workspace.models import ModelSource

GB = 1e9
CORRECTION, READING = "correction of the teacher", "teacher that reads"


def correction_parts(
    teacher: ModelSource, settings: CorrectionSettings, memory: TrialMemory, *, on_gpu: bool
) -> MemoryParts:
    """Memory while the teacher is fitted to the text, in fp32, with the training settings and on
    as many devices as the `memory` of a run has."""
    limits = RunLimits(settings.tokens)
    plan = CorrectionPlan(settings.learning_rate, memory.training, 0, teacher.dtype, limits)
    of_teacher = replace(
        memory,
        config=teacher.config,
        training=plan.resolved(teacher.parameters, memory.block),
        teacher_bytes=0.0,
    )
    return of_teacher.parts(architecture_of(teacher.config), teacher.parameters, on_gpu=on_gpu)


def reading_parts(
    teacher: ModelSource, precision: str, *, block: int, on_gpu: bool, sequences: int | None = None
) -> MemoryParts:
    """Memory while the teacher is read in a precision of `--teacher_precision`, some sequences at
    once; by default as many as importance reads."""
    parts = teacher_pass(
        teacher.config,
        teacher.parameters,
        dtype=teacher.dtype_in(precision),
        block=block,
        sequences=sequences or CALIBRATION_BATCH,
    )
    return parts.held(slack=SLACK, process=process_bytes(on_gpu))


def require_reading(parts: MemoryParts, free: float) -> None:
    """Raises SearchError where the teacher that is read takes more than is free."""
    size = float(parts.total)
    require(
        size <= free,
        f"the {READING} takes about {size / GB:,.1f} GB, above the {free / GB:,.1f} GB that are "
        "free for it; give a smaller --block or --spread, or a larger device",
    )


def planned_targets(
    needs: TargetNeeds, splits: SplitSizes, *, block: int
) -> tuple[TargetFormat | None, float]:
    """Format of the training targets, None where none are stored, and bytes of those of all splits.

    Raises DistillError where they do not fit their limit.
    """
    held_out = evaluation_format(needs.vocabulary).bytes_per_token * (
        splits.selection_tokens + splits.test_tokens
    )
    step = needs.training.batch * block
    tokens = max(1, needs.tokens // step) * step
    form = needs.training_format(tokens, held_out)
    return form, held_out + (0 if form is None else form.bytes_per_token * tokens)
