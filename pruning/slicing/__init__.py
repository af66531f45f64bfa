"""Students as slices of a sorted teacher: selection, corrections, files."""

from pruning.slicing.compensation import bias_compensation, head_merge, rms_rescale
from pruning.slicing.edits import NO_EDITS, WeightEdits
from pruning.slicing.library import (
    ALONE,
    ANY_SIZE,
    BlockLibrary,
    part_name,
    size_name,
    write_index,
    write_trained,
)
from pruning.slicing.merging import expert_merge
from pruning.slicing.nested import NestedLayers
from pruning.slicing.selection import Slice
from pruning.slicing.student import write_student
from pruning.slicing.writer import TensorPlan, write_tensors

__all__ = [
    "ALONE",
    "ANY_SIZE",
    "NO_EDITS",
    "BlockLibrary",
    "NestedLayers",
    "Slice",
    "TensorPlan",
    "WeightEdits",
    "bias_compensation",
    "expert_merge",
    "head_merge",
    "part_name",
    "rms_rescale",
    "size_name",
    "write_student",
    "write_index",
    "write_tensors",
    "write_trained",
]
