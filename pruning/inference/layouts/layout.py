"""Layout: the axis of every dimension of every tensor, and candidates where there are several."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from pruning.families.words import Axes


@dataclass(frozen=True)
class Alias:
    """An axis by the rows that one of its units takes in a tensor."""

    axis: str
    """The size that counts the units; "" for rows that every student has in full."""
    rows: int
    """Rows per unit in the tiny model."""


@dataclass(frozen=True)
class Layout:
    """A meaning of all tensors of a model on disk."""

    axes: Mapping[str, Axes]
    """Shared name of a tensor -> axis of each dimension."""
    aliases: Mapping[str, Alias]
    """By the names in `axes`."""
    blocked: Mapping[str, str] = field(default_factory=dict)
    """Axis -> why it cannot be cut."""

    def has(self, axis: str, joined: str) -> bool:
        """Whether a dimension, or a part of it, counts an axis."""
        return any(self.aliases[part].axis == axis for part in joined.split("+"))

    def counts(self, axis: str) -> bool:
        """Whether any tensor has this axis."""
        return any(self.has(axis, joined) for axes in self.axes.values() for joined in axes)


@dataclass(frozen=True)
class Candidates:
    """What each tensor may mean, likeliest first."""

    options: Mapping[str, tuple[Axes, ...]]
    """Shared name -> possible axes."""
    aliases: Mapping[str, Alias]
    """By the names in `options`."""
    blocked: Mapping[str, str]
    """Axis -> why it cannot be cut."""

    def layout(self, chosen: Mapping[str, int] | None = None) -> Layout:
        """The layout with these options, by default the first of each."""
        chosen = chosen or {}
        axes = {name: found[chosen.get(name, 0)] for name, found in self.options.items()}
        return Layout(axes, self.aliases, self.blocked)

    def open_for(self, axis: str) -> list[str]:
        """Tensors with several options that differ in where `axis` is."""
        return [
            name
            for name, found in self.options.items()
            if len({tuple(self._marks(axes, axis)) for axes in found}) > 1
        ]

    def _marks(self, axes: Axes, axis: str) -> Iterator[str]:
        for dim in axes:
            parts = dim.split("+")
            counts = [self.aliases[part].axis == axis for part in parts]
            yield dim if any(counts) else "-"
