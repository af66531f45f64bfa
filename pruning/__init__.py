"""Pruning: cut a smaller model out of a trained one by score, sort and slice.

from pruning import Architecture, prune

shape = Architecture(layers=24, hidden=3072, heads=32, kv_heads=8, ffn=9216)
prune("my-model", shape, batches, "student")
"""

from typing import TYPE_CHECKING

from wrapt import when_imported

from common.lazy import lazy_exports
from pruning.per_layer.registration import register

if TYPE_CHECKING:
    from common.errors import PruningError
    from pruning.cutting import Pruned, Pruner, prune
    from pruning.engines.verdicts import Served, Verdict, engines_for, engines_line, engines_of
    from pruning.families.architecture import AXES, Architecture, ArchitectureGrid
    from pruning.families.block import ATTENTION, FFN, Block
    from pruning.families.checkpoint import Checkpoint
    from pruning.families.costs import (
        Workload,
        active_parameters,
        forward_flops,
        kv_cache_bytes,
        memory_bytes,
        non_embedding_parameters,
    )
    from pruning.families.legality import check_architecture, is_legal
    from pruning.families.shapes import architecture_of, block_of, layers_alike, parameter_count
    from pruning.families.table import FAMILIES, family_of
    from pruning.importance.measure import Importance, layer_importance, measure_importance
    from pruning.importance.ordering import Ordering
    from pruning.importance.scores import (
        DEFAULT_LAYER_SCORE,
        DEFAULT_SCORE,
        LAYER_SCORES,
        SCORES,
        Scoring,
    )
    from pruning.per_layer.loading import load_student
    from pruning.settings import PruneSettings
    from pruning.slicing.configuration import student_config
    from pruning.slicing.selection import Slice
    from pruning.slicing.student import (
        ENERGIES_FILE,
        ORDERING_FILE,
        cut_student,
        load_slice,
        write_slice,
        write_sorted_teacher,
        write_student,
    )

__all__ = [
    "ATTENTION",
    "AXES",
    "DEFAULT_LAYER_SCORE",
    "DEFAULT_SCORE",
    "ENERGIES_FILE",
    "FAMILIES",
    "FFN",
    "LAYER_SCORES",
    "ORDERING_FILE",
    "SCORES",
    "Architecture",
    "ArchitectureGrid",
    "Block",
    "Checkpoint",
    "Importance",
    "Ordering",
    "PruneSettings",
    "Pruned",
    "Pruner",
    "PruningError",
    "Scoring",
    "Served",
    "Slice",
    "Verdict",
    "Workload",
    "active_parameters",
    "architecture_of",
    "block_of",
    "check_architecture",
    "cut_student",
    "engines_for",
    "engines_line",
    "engines_of",
    "family_of",
    "forward_flops",
    "is_legal",
    "kv_cache_bytes",
    "layer_importance",
    "layers_alike",
    "load_slice",
    "load_student",
    "measure_importance",
    "memory_bytes",
    "non_embedding_parameters",
    "parameter_count",
    "prune",
    "student_config",
    "write_slice",
    "write_sorted_teacher",
    "write_student",
]

__getattr__ = lazy_exports(__name__)

# The Auto classes know the types of per-layer students wherever this package is imported, and
# transformers is not imported for that alone.
when_imported("transformers")(register)
