"""The value that a search is about: the shape of a decoder-only transformer."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, order=True)
class Architecture:
    """Sizes of a uniform decoder: the same heads and FFN in every layer."""

    layers: int
    """Number of transformer layers."""
    hidden: int
    """Channels of the residual stream."""
    heads: int
    """Query heads per layer."""
    kv_heads: int
    """Key-value heads per layer; each serves `heads / kv_heads` query heads."""
    ffn: int
    """Neurons of the feed-forward block."""

    def __str__(self) -> str:
        return f"L{self.layers} H{self.hidden} A{self.heads}/{self.kv_heads} F{self.ffn}"

    def to_dict(self) -> dict[str, int]:
        return asdict(self)

    @classmethod
    def from_dict(cls, sizes: Mapping[str, Any]) -> "Architecture":
        return cls(**{axis: int(sizes[axis]) for axis in AXES})


AXES: tuple[str, ...] = ("layers", "hidden", "heads", "kv_heads", "ffn")
