"""Architectures inside a budget: choices, costs, latency, anchors."""

from typing import TYPE_CHECKING

from common.lazy import lazy_exports

if TYPE_CHECKING:
    from search.space.anchors import CUT_AXES, DEPTH, DEPTH_AND_WIDTH, FFN_AND_HEADS, UNIFORM
    from search.space.budget import Bounds, Budget
    from search.space.choices import Narrowing
    from search.space.costs import CostModel
    from search.space.latency import LatencySetting
    from search.space.latency_benchmark import (
        ModelTimes,
        check,
        measure,
        setting_here,
        time_model,
    )
    from search.space.space import Space

__all__ = [
    "CUT_AXES",
    "DEPTH",
    "DEPTH_AND_WIDTH",
    "FFN_AND_HEADS",
    "UNIFORM",
    "Bounds",
    "Budget",
    "CostModel",
    "LatencySetting",
    "ModelTimes",
    "Narrowing",
    "Space",
    "check",
    "measure",
    "setting_here",
    "time_model",
]

__getattr__ = lazy_exports(__name__)
