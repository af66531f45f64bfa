"""The value that a search is about: the shape of a decoder-only transformer."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, order=True)
class Architecture:
    """Sizes of a uniform decoder: the same heads, FFN and experts in every layer that has them."""

    layers: int
    """Number of transformer layers."""
    hidden: int
    """Channels of the residual stream."""
    heads: int
    """Query heads per layer."""
    kv_heads: int
    """Key-value heads per layer; each serves `heads / kv_heads` query heads."""
    ffn: int
    """Neurons of the feed-forward block; 0 where every layer is a mixture of experts."""
    experts: int = 0
    """Experts of a mixture-of-experts layer; 0 for a dense model."""
    expert_ffn: int = 0
    """Neurons of each expert; 0 for a dense model."""
    contiguous: int = 0
    """1: the layers left out are one contiguous span; 0: they are the least important ones."""

    def __str__(self) -> str:
        span = "-span" if self.contiguous else ""
        shape = f"L{self.layers}{span} H{self.hidden} A{self.heads}/{self.kv_heads}"
        if self.ffn:
            shape += f" F{self.ffn}"
        return f"{shape} E{self.experts}x{self.expert_ffn}" if self.experts else shape

    def to_dict(self) -> dict[str, int]:
        """The sizes by axis, without those of experts for a dense model."""
        sizes: dict[str, int] = asdict(self)
        return {axis: size for axis, size in sizes.items() if size or axis in DENSE_AXES}

    @classmethod
    def from_dict(cls, sizes: Mapping[str, Any]) -> "Architecture":
        known = (*AXES, "contiguous")
        return cls(**{axis: int(sizes[axis]) for axis in known if axis in sizes})


DENSE_AXES: tuple[str, ...] = ("layers", "hidden", "heads", "kv_heads", "ffn")
AXES: tuple[str, ...] = (*DENSE_AXES, "experts", "expert_ffn")
"""The sizes; which layers go (`contiguous`) changes none of them."""
