"""Anchors: the shapes that a person would try first, some axes cut by one ratio.

Which axes go together follows the ablation of Minitron (arXiv 2407.14679): all widths, FFN and
attention alone, depth and widths, depth alone.
"""

from collections.abc import Sequence

import numpy as np

from pruning import Architecture
from pruning.families import WIDTHS

UNIFORM = "uniform shrink"
FFN_AND_HEADS, DEPTH_AND_WIDTH, DEPTH = "FFN and heads", "depth and width", "depth alone"

INNER = WIDTHS[1:]
"""Widths inside a layer; the hidden size is that of all of them."""
CUT_AXES: dict[str, tuple[str, ...]] = {
    UNIFORM: WIDTHS,
    FFN_AND_HEADS: INNER,
    DEPTH_AND_WIDTH: ("layers", *WIDTHS),
    DEPTH: ("layers",),
}
"""Anchor -> the axes that are cut, in the order in which the anchors are tried."""


def unevenness(architecture: Architecture, teacher: Architecture, *, axes: Sequence[str]) -> float:
    """How far apart the ratios are that the `axes` are cut by: the log of the largest over the
    smallest, 0 where there is one ratio."""
    ratios = np.log([getattr(architecture, axis) / getattr(teacher, axis) for axis in axes])
    return float(ratios.max() - ratios.min())
