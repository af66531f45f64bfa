"""Model types: the names of their parts, their sizes, costs and checkpoints."""

from pruning.families.architecture import DENSE_AXES, Sizes
from pruning.families.block import text_of_blocks
from pruning.families.checkpoint import opened
from pruning.families.config_file import raw_config, write_config
from pruning.families.costs import TRAINING_PASSES, forward_flops, windows_of
from pruning.families.legality import check_cuttable
from pruning.families.loading import quiet, shown_names
from pruning.families.shapes import in_order, tensor_shape
from pruning.families.spec import ORDERED
from pruning.families.table import family_of, head_dim_of

__all__ = [
    "DENSE_AXES",
    "ORDERED",
    "TRAINING_PASSES",
    "Sizes",
    "check_cuttable",
    "family_of",
    "forward_flops",
    "head_dim_of",
    "in_order",
    "opened",
    "quiet",
    "raw_config",
    "shown_names",
    "tensor_shape",
    "text_of_blocks",
    "windows_of",
    "write_config",
]
