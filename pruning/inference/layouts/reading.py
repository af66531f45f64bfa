"""Reading of a type's growth: what each dimension of its tensors may count.

What grows with one size alone has one meaning, unless it could be joined in two ways. Where hidden
size and heads grow together, the order in which a layer's projections run tells which is which.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import permutations

from common.errors import PruningError
from pruning.families.words import Axes
from pruning.inference.layouts.layout import Alias, Candidates
from pruning.inference.layouts.trace import Projection
from pruning.inference.tiny.growth import Growth

UNCUT = ("vocab", "positions")
"""Axes that are never cut."""
MOST_PARTS = 8
"""Parts of one axis that a dimension may be a join of."""


class Reading:
    """Reads the growth of a type, dimension by dimension."""

    def __init__(self, growth: Growth, projections: Sequence[Projection]):
        """`projections` are the matrices of a layer, in the order in which they run."""
        self.growth = growth
        self.projections = projections
        self.sizes = {**growth.tiny.sizes, **growth.sizes}
        self.blocked: dict[str, str] = {}
        head_dim = growth.head_dim
        self.aliases = {
            **{axis: Alias(axis, 1) for axis in ("hidden", "ffn", "experts")},
            **{axis: Alias(axis, 1) for axis in ("expert_ffn", "shared_ffn")},
            **{axis: Alias(axis, head_dim) for axis in ("heads", "kv_heads")},
            **{axis: Alias("", self.sizes.get(axis, 0)) for axis in UNCUT},
        }

    def candidates(self) -> Candidates:
        """Of all tensors. Raises PruningError where layers differ in the shape of one."""
        options: dict[str, tuple[Axes, ...]] = {}
        for name in self.growth.names:
            if self.growth.differs(name):
                raise PruningError(f"layers differ in the shape of {name}")
            found: list[Axes] = [()]
            for dim in range(len(self.growth.shape(name))):
                dims = self._dimension(name, dim)
                found = [(*before, option) for before in found for option in dims]
            options[name] = tuple(found)
        return Candidates(options, self.aliases, self.blocked)

    def _dimension(self, name: str, dim: int) -> tuple[str, ...]:
        """What one dimension may be, likeliest first."""
        rows = self.growth.shape(name)[dim]
        per = self.growth.rows(name, dim)
        if isinstance(per, str):
            return (self._refused(name, dim, per),)
        uncut = [axis for axis in per if axis in UNCUT]
        if uncut:
            exact = len(per) == 1 and rows == self.sizes[uncut[0]]
            return (uncut[0],) if exact else (self._fixed(name, dim, rows),)
        if not per:
            return (self._fixed(name, dim, rows),)
        times = {axis: number for axis, (_, number) in self.growth.drivers.items()}
        per = {axis: number // times.get(axis, 1) for axis, number in per.items()}
        result: list[str] = []
        for counted in self._counted(name, dim, per):
            left = rows - sum(number * self.sizes[axis] for axis, number in counted.items())
            if left >= 0:
                result += self._joined(name, dim, counted, left=left)
        if not result:
            axes = ", ".join(sorted(per))
            return (self._refused(name, dim, f"it mixes {axes} in a way that is not known"),)
        return tuple(dict.fromkeys(result))

    def _counted(self, name: str, dim: int, per: Mapping[str, int]) -> list[dict[str, int]]:
        """Rows per unit, for each meaning of what grows with hidden size and heads at once."""
        if self.growth.free_heads or "hidden" not in per:
            return [dict(per)]
        others = {axis: number for axis, number in per.items() if axis != "hidden"}
        as_heads = {"heads": per["hidden"] * self.growth.head_dim, **others}
        meant = self._roles.get((name, dim), ("hidden",))
        return [as_heads if role == "heads" else dict(per) for role in meant]

    def _joined(self, name: str, dim: int, parts: Mapping[str, int], *, left: int) -> list[str]:
        """The orders in which the rows of these axes may lie in a dimension with `left` others."""
        blocks: list[str] = []
        for axis, rows in sorted(parts.items()):
            times, rest = divmod(rows, self.aliases[axis].rows or rows + 1)
            if times and not rest and times <= MOST_PARTS:
                blocks.append("+".join([axis] * times))
            else:
                blocks.append(self._alias(name, dim, axis, rows=rows))
        if left:
            blocks.append(self._fixed(name, dim, left))
        orders = ["+".join(order) for order in permutations(blocks)]
        if len(parts) == 1 and not left and "+" in blocks[0]:  # or unit by unit
            ((axis, rows),) = parts.items()
            orders.append(self._alias(name, dim, axis, rows=rows))
        return orders

    def _alias(self, name: str, dim: int, axis: str, *, rows: int) -> str:
        alias = f"{axis} of {name}, dimension {dim}"
        self.aliases[alias] = Alias(axis, rows)
        return alias

    def _fixed(self, name: str, dim: int, rows: int) -> str:
        alias = f"all of {name}, dimension {dim}"
        self.aliases[alias] = Alias("", rows)
        return alias

    def _refused(self, name: str, dim: int, reason: str) -> str:
        """A dimension that is not understood, so that no axis that changes it can be cut."""
        for axis in self.growth.touching(name):
            tied = not self.growth.free_heads and axis == "hidden"
            for each in ("hidden", "heads", "kv_heads") if tied else (axis,):
                self.blocked.setdefault(each, f"{name}: {reason}")
        return self._fixed(name, dim, self.growth.shape(name)[dim])

    @cached_property
    def _roles(self) -> dict[tuple[str, int], tuple[str, ...]]:
        """(tensor of a layer, dimension) -> "hidden" or "heads", or what it may be of them, where
        both grow together: the last projection of an attention reads its heads, the others write
        them."""
        both = [
            p
            for p in self.projections
            if self._tied(p.weight, p.reads) and self._tied(p.weight, p.writes)
        ]
        groups: dict[str, list[Projection]] = {}
        for projection in both:
            groups.setdefault(projection.group, []).append(projection)
        attention = max(groups.values(), key=len, default=[])
        roles: dict[tuple[str, int], tuple[str, ...]] = {}
        for projection in self.projections:
            reads, writes = "hidden", "hidden"
            if projection in attention:
                last = projection == attention[-1]
                reads, writes = ("heads", "hidden") if last else ("hidden", "heads")
            roles[projection.weight, projection.reads] = (reads,)
            roles[projection.weight, projection.writes] = (writes,)
            roles[projection.bias, 0] = (writes,)
        for name in self.growth.names:
            if name not in self.growth.outer:
                roles.setdefault((name, 0), ("hidden", "heads"))
        return roles

    def _tied(self, name: str, dim: int) -> bool:
        """Whether a dimension grows with hidden size and heads."""
        found = self.growth.rows(name, dim) if name in self.growth.names else ""
        return not isinstance(found, str) and "hidden" in found
