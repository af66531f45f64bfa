"""Trace: the modules of a layer in the order in which they run, and what they read and write."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from pruning.inference.tiny.names import Naming
from pruning.inference.tiny.precision import answers

INPUTS: Mapping[type, tuple[int, int]] = {nn.Linear: (1, 0), Conv1D: (0, 1)}
"""Class of a projection -> dimensions of its weight for what it reads and for what it writes."""


@dataclass(frozen=True)
class Projection:
    """A matrix in a layer."""

    name: str
    """Of its module in the layer."""
    reads: int
    """Dimension of its weight for what it reads."""
    writes: int
    """Dimension of its weight for what it writes."""

    @property
    def weight(self) -> str:
        """Name of its weight in the layer."""
        return f"{self.name}.weight"

    @property
    def bias(self) -> str:
        """Name of its bias in the layer, if it has one."""
        return f"{self.name}.bias"

    @property
    def group(self) -> str:
        """The first part of its name, which all of an attention share."""
        return self.name.split(".")[0]


def projections_of(model: Any, naming: Naming, *, layer: int) -> list[Projection]:
    """Those of one layer, in the order in which they run."""
    found: dict[str, Projection] = {}
    handles = []
    root = model.get_submodule(f"{naming.layer_prefix}.{layer}")
    for name, module in root.named_modules():
        for kind, (reads, writes) in INPUTS.items():
            if isinstance(module, kind) and isinstance(module, nn.Module):
                projection = Projection(name, reads, writes)
                handles.append(
                    module.register_forward_pre_hook(
                        lambda *_, p=projection: found.setdefault(p.name, p) and None
                    )
                )
    try:
        answers(model, torch.arange(11)[None])
    finally:
        for handle in handles:
            handle.remove()
    return list(found.values())
