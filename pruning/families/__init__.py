"""Model types: the names of their parts, their sizes, costs and checkpoints."""

from typing import TYPE_CHECKING

from common.lazy import lazy_exports

if TYPE_CHECKING:
    from pruning.families.architecture import DENSE_AXES, EXPERT_AXES, SSM_AXES, WIDTHS, Sizes
    from pruning.families.block import EXPERTS, SSM, text_of_blocks
    from pruning.families.checkpoint import opened
    from pruning.families.config_file import raw_config, write_config
    from pruning.families.costs import (
        TRAINING_PASSES,
        forward_flops,
        state_bytes,
        training_flops,
        windows_of,
    )
    from pruning.families.kinds import ALL_SHARES, LayerShares
    from pruning.families.legality import check_cuttable
    from pruning.families.loading import quiet, shown_names
    from pruning.families.shapes import axis_rows, in_order, kinds_of, tensor_shape
    from pruning.families.table import (
        expert_groups,
        experts_per_token,
        family_of,
        head_dim_of,
        head_sizes,
        layer_heads,
    )

__all__ = [
    "ALL_SHARES",
    "DENSE_AXES",
    "EXPERTS",
    "EXPERT_AXES",
    "SSM",
    "SSM_AXES",
    "TRAINING_PASSES",
    "WIDTHS",
    "LayerShares",
    "Sizes",
    "axis_rows",
    "check_cuttable",
    "expert_groups",
    "experts_per_token",
    "family_of",
    "forward_flops",
    "head_dim_of",
    "head_sizes",
    "in_order",
    "kinds_of",
    "layer_heads",
    "opened",
    "quiet",
    "raw_config",
    "shown_names",
    "state_bytes",
    "tensor_shape",
    "text_of_blocks",
    "training_flops",
    "windows_of",
    "write_config",
]

__getattr__ = lazy_exports(__name__)
