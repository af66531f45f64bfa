"""Cut a smaller model out of a trained one: score, sort once, slice.

from pruning import Checkpoint, Ordering, measure_importance, write_sorted_teacher, write_student
"""

from pruning.architecture import AXES, Architecture
from pruning.checkpoint import Checkpoint
from pruning.errors import PruningError
from pruning.families import (
    FAMILIES,
    architecture_of,
    family_of,
    is_legal,
    parameter_count,
)
from pruning.importance import Importance, measure_importance
from pruning.ordering import Ordering
from pruning.slicing import (
    ORDERING_FILE,
    check_architecture,
    cut_student,
    student_config,
    write_sorted_teacher,
    write_student,
)

__all__ = [
    "AXES",
    "FAMILIES",
    "ORDERING_FILE",
    "Architecture",
    "Checkpoint",
    "Importance",
    "Ordering",
    "PruningError",
    "architecture_of",
    "check_architecture",
    "cut_student",
    "family_of",
    "is_legal",
    "measure_importance",
    "parameter_count",
    "student_config",
    "write_sorted_teacher",
    "write_student",
]
