"""Architecture: the shape of a decoder-only transformer, the value that a search is about."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

Count = TypeVar("Count", int, NDArray[np.int64])


@dataclass(frozen=True)
class Sizes(Generic[Count]):
    """Sizes of a uniform decoder: the same heads, FFN and experts in every layer that has them.

    Of one, an `Architecture`, or of many at once, an `ArchitectureGrid`.
    """

    layers: Count
    """Number of transformer layers."""
    hidden: Count
    """Channels of the residual stream."""
    heads: Count
    """Query heads per layer."""
    kv_heads: Count
    """Key-value heads per layer; each serves `heads / kv_heads` query heads."""
    ffn: Count
    """Neurons of the feed-forward block; 0 where every layer is a mixture of experts."""
    experts: Count
    """Experts of a mixture-of-experts layer; 0 for a dense model."""
    expert_ffn: Count
    """Neurons of each expert; 0 for a dense model."""
    contiguous: Count
    """1: the layers left out are one contiguous span; 0: they are the least important ones."""


@dataclass(frozen=True, order=True)
class Architecture(Sizes[int]):
    """One architecture; by default of a dense model, without its least important layers."""

    # All again: who reads the types of fields, as pydantic does, is not told what Count stands for.
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    ffn: int
    experts: int = 0
    """Experts of a mixture-of-experts layer."""
    expert_ffn: int = 0
    """Neurons of each expert."""
    contiguous: int = 0
    """Whether the layers left out are one span."""

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
        """The architecture with the sizes of a `to_dict`."""
        known = (*AXES, "contiguous")
        return cls(**{axis: int(sizes[axis]) for axis in known if axis in sizes})


@dataclass(frozen=True, eq=False)
class ArchitectureGrid(Sizes[NDArray[np.int64]]):
    """Many architectures: an array [architectures] per axis."""

    @classmethod
    def of(cls, architectures: Sequence[Architecture]) -> "ArchitectureGrid":
        """These architectures, in this order."""
        axes = [field.name for field in fields(cls)]
        return cls(*(np.array([getattr(one, axis) for one in architectures]) for axis in axes))

    @classmethod
    def product(cls, choices: Mapping[str, Sequence[int]]) -> "ArchitectureGrid":
        """Every combination of the `choices` per axis; 0 on axes without. The last axis of
        `choices` changes fastest."""
        sizes = (np.array(values, dtype=np.int64) for values in choices.values())
        grid = np.meshgrid(*sizes, indexing="ij")
        columns = {axis: column.ravel() for axis, column in zip(choices, grid, strict=True)}
        zeros = np.zeros_like(next(iter(columns.values())))
        return cls(**{axis: columns.get(axis, zeros) for axis in (*AXES, "contiguous")})

    @property
    def columns(self) -> tuple[NDArray[np.int64], ...]:
        """The arrays, in the order of the fields."""
        return tuple(getattr(self, field.name) for field in fields(self))

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[Architecture]:
        rows = zip(*(column.tolist() for column in self.columns), strict=True)
        return (Architecture(*sizes) for sizes in rows)

    def __getitem__(self, index: int) -> Architecture:
        return Architecture(*(int(column[index]) for column in self.columns))

    def where(self, chosen: NDArray[np.bool_]) -> "ArchitectureGrid":
        """Those that the mask [architectures] is true of."""
        return ArchitectureGrid(*(column[chosen] for column in self.columns))


DENSE_AXES: tuple[str, ...] = ("layers", "hidden", "heads", "kv_heads", "ffn")
AXES: tuple[str, ...] = (*DENSE_AXES, "experts", "expert_ffn")
"""The sizes; which layers go (`contiguous`) changes none of them."""
