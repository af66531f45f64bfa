"""Layout: the axis of every dimension of every tensor, and the candidates where there are several.

What grows with one size alone has one meaning, unless it could be joined in two ways. Where hidden
size and heads grow together, the order in which a layer's projections run tells which is which.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import permutations

from pruning.families.spec import Axes
from pruning.inference.growth import Growth
from pruning.inference.trace import Projection

WHOLE = ("vocab", "positions")
"""Axes that are never cut."""


@dataclass(frozen=True)
class Alias:
    """An axis by the rows that one of its units takes in a tensor."""

    axis: str
    """The size that counts the units; "" for rows that every student has in full."""
    rows: int
    """Rows per unit in the tiny model."""
    of: tuple[str, int] = ("", 0)
    """A (tensor, dimension) with these rows, to tell how many they are in other sizes."""


@dataclass(frozen=True)
class Layout:
    """A meaning of all tensors of a model on disk."""

    axes: Mapping[str, Axes]
    """Shared name of a tensor -> axis of each dimension."""
    aliases: Mapping[str, Alias]
    """By the names in `axes`."""
    blocked: Mapping[str, str] = field(default_factory=dict)
    """Axis -> why it cannot be cut."""

    def counts(self, axis: str) -> bool:
        """Whether any tensor has this axis."""
        return any(
            self.aliases[part].axis == axis
            for axes in self.axes.values()
            for dim in axes
            for part in dim.split("+")
        )


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


class Reading:
    """Reads the growth of a type, dimension by dimension."""

    def __init__(self, growth: Growth, projections: Sequence[Projection]):
        self.growth = growth
        self.tied = not growth.free_heads
        self.aliases: dict[str, Alias] = {}
        self.blocked: dict[str, str] = {}
        self.sizes = {**growth.tiny.sizes, **growth.sizes}
        for axis in ("hidden", "ffn", "experts", "expert_ffn", "shared_ffn"):
            self.aliases[axis] = Alias(axis, 1)
        for axis in ("heads", "kv_heads"):
            self.aliases[axis] = Alias(axis, growth.head_dim)
        for axis in WHOLE:
            self.aliases[axis] = Alias("", self.sizes.get(axis, 0))
        self.aliases["head_dim"] = Alias("", growth.head_dim)
        self.roles = _roles(growth, projections) if self.tied else {}

    def candidates(self) -> Candidates:
        """Of all tensors."""
        options = {}
        for name in self.growth.names:
            shape = self.growth._base[name]
            if shape is None:
                options[name] = ((self._refuse(name, "all", "layers differ in its shape"),),)
                continue
            dims = [self._dimension(name, dim) for dim in range(len(shape))]
            options[name] = _products(dims)
        return Candidates(options, self.aliases, self.blocked)

    def _dimension(self, name: str, dim: int) -> tuple[str, ...]:
        found = self.growth.rows(name, dim)
        if isinstance(found, str):
            return (self._refuse(name, dim, found),)
        rows, per = found
        sizes = self.sizes
        times = {axis: number for axis, (_, number) in self.growth.drivers.items()}
        per = {axis: number // times.get(axis, 1) for axis, number in per.items()}
        whole = [axis for axis in per if axis in WHOLE]
        if whole:
            exact = len(per) == 1 and rows == sizes[whole[0]]
            return (whole[0],) if exact else (self._refuse(name, dim, "", rows=rows),)
        if not per:
            return (self._fixed(name, dim, rows),)
        parts: list[tuple[str, int]] = []
        options: list[tuple[str, int]] = []
        if self.tied and "hidden" in per:
            options = list(self.roles.get((name, dim), ()))
        if not options:
            options = [("", 0)]
        result: list[str] = []
        for role, _ in options:
            counted = dict(per)
            if role == "heads":
                counted = {"heads": per["hidden"] * self.growth.head_dim} | {
                    axis: n for axis, n in per.items() if axis != "hidden"
                }
            left = rows - sum(n * sizes[axis] for axis, n in counted.items())
            if left < 0:
                continue
            parts = list(counted.items())
            result += self._joined(name, dim, parts, left)
        if not result:
            axes = ", ".join(sorted(per))
            return (self._refuse(name, dim, f"it mixes {axes} in a way that is not known", per=per),)
        return tuple(dict.fromkeys(result))

    def _joined(
        self, name: str, dim: int, parts: list[tuple[str, int]], left: int
    ) -> list[str]:
        blocks: list[str] = []
        for axis, rows in sorted(parts):
            base = self.aliases[axis].rows
            if base and rows % base == 0 and rows // base <= 8:
                blocks.append("+".join([axis] * (rows // base)))
            else:
                blocks.append(self._alias(name, dim, axis, rows))
        if left:
            blocks.append(self._fixed(name, dim, left))
        result = ["+".join(order) for order in permutations(blocks)]
        if len(parts) == 1 and not left:
            (axis, rows), = parts
            if "+" in blocks[0]:
                result.append(self._alias(name, dim, axis, rows))
        return result

    def _alias(self, name: str, dim: int, axis: str, rows: int) -> str:
        alias = f"{axis} of {name}"
        if alias in self.aliases and self.aliases[alias].rows != rows:
            alias = f"{axis} of {name}, dimension {dim}"
        self.aliases[alias] = Alias(axis, rows, (name, dim))
        return alias

    def _fixed(self, name: str, dim: int, rows: int) -> str:
        alias = f"all {rows} of {name}"
        if alias in self.aliases and self.aliases[alias].of != (name, dim):
            alias = f"all {rows} of {name}, dimension {dim}"
        self.aliases[alias] = Alias("", rows, (name, dim))
        return alias

    def _refuse(
        self,
        name: str,
        dim: int | str,
        reason: str,
        *,
        rows: int = 0,
        per: Mapping[str, int] | None = None,
    ) -> str:
        if not rows and isinstance(dim, int):
            rows = self.growth._base[name][dim]
        grown = [axis for axis in (per or self.growth.touched(name)) if axis not in WHOLE]
        for axis in grown if reason else ():
            axes = ("hidden", "heads", "kv_heads") if self.tied and axis == "hidden" else (axis,)
            for each in axes:
                self.blocked.setdefault(each, f"{name}: {reason}")
        alias = f"all of {name}, dimension {dim}"
        self.aliases[alias] = Alias("", rows, (name, dim if isinstance(dim, int) else -1))
        return alias


def _products(dims: Sequence[tuple[str, ...]]) -> tuple[Axes, ...]:
    result: list[Axes] = [()]
    for options in dims:
        result = [(*before, option) for before in result for option in options]
    return tuple(result)


def _roles(
    growth: Growth, projections: Sequence[Projection]
) -> dict[tuple[str, int], tuple[tuple[str, int], ...]]:
    """(tensor, dimension) -> whether it counts heads or hidden channels, where both grow together:
    the last projection of an attention reads its heads, and the others write them."""
    roles: dict[tuple[str, int], tuple[tuple[str, int], ...]] = {}
    hidden, heads = (("hidden", 0),), (("heads", 0),)

    def tied(name: str, dim: int) -> int:
        found = growth.rows(name, dim) if name in growth.names else ""
        return 0 if isinstance(found, str) else found[1].get("hidden", 0)

    def only(name: str, dim: int) -> bool:
        found = growth.rows(name, dim)
        return not isinstance(found, str) and set(found[1]) == {"hidden"}

    both = [
        p
        for p in projections
        if tied(p.weight, p.reads) and tied(p.weight, p.writes)
    ]
    groups: dict[str, list[Projection]] = {}
    for projection in both:
        groups.setdefault(projection.group, []).append(projection)
    attention = max(groups.values(), key=len, default=[])
    for projection in both:
        last = bool(attention) and projection == attention[-1]
        inside = projection in attention
        reads, writes = (heads, hidden) if last else (hidden, heads if inside else hidden)
        roles[projection.weight, projection.reads] = reads
        roles[projection.weight, projection.writes] = writes
        roles[projection.bias, 0] = writes
    known = {p.weight for p in projections}
    for projection in projections:
        if projection in both:
            continue
        for dim in (projection.reads, projection.writes):
            if tied(projection.weight, dim):
                inside = any(projection.group == p.group for p in attention)
                # K and V of fewer heads read the hidden channels
                roles[projection.weight, dim] = hidden
        if tied(projection.bias, 0):
            roles[projection.bias, 0] = hidden
    for name in growth.names:
        if name in growth.outer:
            roles |= {(name, dim): hidden for dim in range(4)}
            continue
        if name in known or name.endswith(".bias") and (name, 0) in roles:
            continue
        shape = growth._base[name] or ()
        for dim in range(len(shape)):
            if tied(name, dim) == 1 and only(name, dim):
                roles.setdefault((name, dim), (("hidden", 0), ("heads", 0)))
    return roles
