"""Whole runs that can be resumed: students, block-wise, teacher correction, range tests."""

from typing import TYPE_CHECKING

from common.lazy import lazy_exports

if TYPE_CHECKING:
    from distill.recipes.assets import Assets
    from distill.recipes.block_map import BlockMap
    from distill.recipes.blockwise import BlockAlignment, BlockwiseSettings, block_rate
    from distill.recipes.callbacks import RunCallbacks, checkpoint_and_log
    from distill.recipes.lr_range_test import find_rate
    from distill.recipes.reports import (
        CurvePoint,
        RunProgress,
        RunReport,
        RunResult,
        points_to_json,
    )
    from distill.recipes.resumable import ResumableRun, report_steps
    from distill.recipes.settings import FEWEST_STEPS, CorrectionSettings
    from distill.recipes.student import MODEL, StudentRun, write_finished
    from distill.recipes.teacher_correction import (
        Correction,
        CorrectionPlan,
        correct_teacher,
    )

__all__ = [
    "FEWEST_STEPS",
    "MODEL",
    "Assets",
    "BlockAlignment",
    "BlockMap",
    "BlockwiseSettings",
    "Correction",
    "CorrectionPlan",
    "CorrectionSettings",
    "CurvePoint",
    "ResumableRun",
    "RunCallbacks",
    "RunProgress",
    "RunReport",
    "RunResult",
    "StudentRun",
    "block_rate",
    "checkpoint_and_log",
    "correct_teacher",
    "find_rate",
    "points_to_json",
    "report_steps",
    "write_finished",
]

__getattr__ = lazy_exports(__name__)
