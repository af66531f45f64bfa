"""Names of tensors with their layer and expert taken out, so that a row can be written of them."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from common.errors import PruningError

FIRST_NUMBER = re.compile(r"^(.*?)\.(\d+)\.(.+)$")


@dataclass(frozen=True)
class Place:
    """A tensor by the name that all tensors of its kind share."""

    name: str
    """In the layer, with "{expert}" for the expert; outside the layers the full name."""
    layer: int | None = None
    """Its layer."""
    expert: int | None = None
    """Its expert."""


@dataclass(frozen=True)
class Naming:
    """How the tensors of a model are numbered."""

    layer_prefix: str
    """What comes before the number of a layer."""
    expert_prefixes: frozenset[str] = frozenset()
    """What comes, in a layer, before the number of an expert."""

    @classmethod
    def of(cls, names: Iterable[str], *, layers: int, experts: int) -> "Naming":
        """Those of the tensors of a model with so many layers and experts (0: none).

        Raises PruningError where no list of modules, or more than one, is as long as the layers.
        """
        found = [match.groups() for name in names if (match := FIRST_NUMBER.match(name))]
        prefixes: dict[str, set[int]] = {}
        for prefix, number, _ in found:
            prefixes.setdefault(prefix, set()).add(int(number))
        layered = [p for p, numbers in prefixes.items() if numbers == set(range(layers))]
        if len(layered) != 1:
            lists = ", ".join(sorted(layered)) or "none"
            raise PruningError(
                f"of its lists of modules one must be as long as its layers, and these are: {lists}"
            )
        inner: dict[str, set[int]] = {}
        for prefix, _, rest in found:
            if prefix == layered[0] and (match := FIRST_NUMBER.match(rest)):
                inner.setdefault(match[1], set()).add(int(match[2]))
        every = set(range(experts))
        return cls(layered[0], frozenset(p for p, found in inner.items() if found == every))

    def place(self, name: str) -> Place:
        """Of a tensor with this full name."""
        match = FIRST_NUMBER.match(name)
        if match is None or match[1] != self.layer_prefix:
            return Place(name)
        layer, local = int(match[2]), match[3]
        inner = FIRST_NUMBER.match(local)
        if inner is None or inner[1] not in self.expert_prefixes:
            return Place(local, layer)
        return Place(f"{inner[1]}.{{expert}}.{inner[3]}", layer, int(inner[2]))

    def full_name(self, place: Place) -> str:
        """The name of a tensor."""
        if place.layer is None:
            return place.name
        local = place.name.replace("{expert}", str(place.expert))
        return f"{self.layer_prefix}.{place.layer}.{local}"

    def alike(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...] | None]:
        """Shape by shared name; None where tensors of one name differ."""
        result: dict[str, tuple[int, ...] | None] = {}
        for name, shape in shapes.items():
            shared = self.place(name).name
            if result.setdefault(shared, shape) != shape:
                result[shared] = None
        return result

    def kinds(self, names: Iterable[str], *, layers: int) -> list[frozenset[str]]:
        """The shared names of the tensors of each layer."""
        found: list[set[str]] = [set() for _ in range(layers)]
        for place in map(self.place, names):
            if place.layer is not None:
                found[place.layer].add(place.name)
        return [frozenset(names) for names in found]
