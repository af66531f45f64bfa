"""The permutation that importance gives: most important first on every axis."""

from dataclasses import dataclass, fields
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pruning.architecture import Architecture
from pruning.importance import Importance


@dataclass(frozen=True)
class Ordering:
    """Where each place of the sorted teacher comes from (int64 indices into the teacher)."""

    hidden: Tensor
    """[hidden], one order for the whole residual stream."""
    heads: Tensor
    """[layers, heads], query heads; a head stays in the place of its KV group."""
    kv_heads: Tensor
    """[layers, kv_heads], key-value heads; the identity where groups are kept."""
    ffn: Tensor
    """[layers, ffn]."""
    layers: Tensor
    """[layers], layers by importance. The sorted teacher keeps the model's order."""

    @classmethod
    def from_importance(cls, importance: Importance, teacher: Architecture) -> "Ordering":
        """Sort stably, so that equal scores keep the model's order."""
        group = teacher.heads // teacher.kv_heads
        if group == 1:
            heads = _descending(importance.heads)
            kv_heads = heads
        else:
            in_group = _descending(importance.heads.unflatten(1, (teacher.kv_heads, group)))
            first = torch.arange(teacher.kv_heads)[:, None] * group
            heads = (in_group + first).flatten(1)
            kv_heads = torch.arange(teacher.kv_heads).repeat(teacher.layers, 1)
        return cls(
            hidden=_descending(importance.hidden),
            heads=heads,
            kv_heads=kv_heads,
            ffn=_descending(importance.ffn),
            layers=_descending(importance.layers),
        )

    def kept_layers(self, depth: int) -> list[int]:
        """The `depth` most important layers, in the model's order."""
        return sorted(self.layers[:depth].tolist())

    def save(self, path: Path) -> None:
        # Copies, since heads and kv_heads may be one tensor, which safetensors refuses.
        orders = {f.name: getattr(self, f.name) for f in fields(self)}
        copies = {n: o.clone(memory_format=torch.contiguous_format) for n, o in orders.items()}
        save_file(copies, path)

    @classmethod
    def load(cls, path: Path) -> "Ordering":
        return cls(**load_file(path))


def _descending(scores: Tensor) -> Tensor:
    return torch.argsort(scores, dim=-1, descending=True, stable=True)
