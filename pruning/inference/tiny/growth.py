"""Growth: which dimension of which tensor grows with which size, and by how many rows."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from transformers import PretrainedConfig

from common.errors import PruningError, reason_of
from pruning.inference.tiny.building import BuiltShapes, Shape, random_model, shapes_of
from pruning.inference.tiny.names import Naming
from pruning.inference.tiny.precision import answers
from pruning.inference.tiny.sizes import FREE, HEAD_DIMS, TinyType

LARGEST = 30_000_000
"""Parameters of a model that is still tiny."""
STEPS: Mapping[str, int] = {
    "vocab": 8,
    "positions": 8,
    "hidden": 16,
    "heads": 4,
    "kv_heads": 4,
    "ffn": 16,
    "experts": 2,
    "expert_ffn": 16,
    "shared_ffn": 16,
}
"""Axis -> what is added to the size of the tiny model."""
TIED_HIDDEN = 32
"""Added to the hidden size with four heads more, where channels per head are hidden / heads."""


@dataclass(frozen=True)
class Growth:
    """The shapes of a tiny model, and of the same with one size after another changed."""

    tiny: TinyType
    """The tiny model."""
    free_heads: bool
    """Whether heads have a number of channels of their own (`head_dim`); else hidden size and
    heads grow together."""
    grouped: bool
    """Whether KV heads are fewer than query heads."""
    base: BuiltShapes
    """Its shapes."""
    grown: Mapping[str, BuiltShapes]
    """Axis -> the shapes with that size changed."""
    stiff: Mapping[str, str]
    """Axis -> why its size could not be changed."""

    @classmethod
    def of(cls, config: PretrainedConfig) -> "Growth":
        """Of the type of `config`. Raises PruningError where no tiny model of it can be built."""
        reasons = []
        for head_dim in HEAD_DIMS:
            for grouped in (True, False):
                tiny = TinyType.of(config, grouped=grouped, head_dim=head_dim)
                if grouped and "kv_heads" not in tiny.fields:
                    continue
                if head_dim == FREE and _computed(type(config), "head_dim"):
                    break
                try:
                    base = _working(tiny.config())
                    if head_dim == FREE and _working(tiny.config(head_dim=12)) == base:
                        reasons.append("head_dim changes nothing")
                        break
                    free = head_dim == FREE or _heads_grow_alone(tiny, base)
                except PruningError:
                    raise
                except Exception as problem:  # configurations and models break in their own ways
                    reasons.append(reason_of(problem))
                    continue
                found = cls(tiny, free, grouped, base, *_grown(tiny, free=free))
                if grouped and found.grown.get("kv_heads") == base:
                    reasons.append("its KV heads change nothing")
                    continue
                return found
        raise PruningError(f"no tiny model of it can be built: {reasons[-1]}")

    @cached_property
    def naming(self) -> Naming:
        """Of the tensors on disk."""
        sizes = self.tiny.sizes
        return Naming.of(self.base.stored, layers=sizes["layers"], experts=sizes.get("experts", 0))

    @cached_property
    def loaded(self) -> "Growth":
        """The same of the tensors as a model has them in memory."""
        grown = {axis: _in_memory(shapes) for axis, shapes in self.grown.items()}
        return replace(self, base=_in_memory(self.base), grown=grown)

    @property
    def head_dim(self) -> int:
        """Channels per head of the tiny model; 0 where it has no heads."""
        sizes = self.tiny.sizes
        if self.free_heads or "heads" not in sizes:
            return sizes.get("head_dim", 0)
        return sizes["hidden"] // sizes["heads"]

    def differs(self, name: str) -> bool:
        """Whether the tensors of that shared name differ in shape from layer to layer."""
        return self._base[name] is None

    def shape(self, name: str) -> Shape:
        """Of the tensors of that shared name; () where they differ from layer to layer."""
        return self._base[name] or ()

    def rows(self, name: str, dim: int) -> dict[str, int] | str:
        """Axis -> rows by which a dimension of the tensors of that shared name grows with each unit
        of it; a reason where it cannot be told.

        Neurons of experts and of a dense FFN are told apart by the tensors, since one field may
        hold the size of both.
        """
        shape = self.shape(name)
        found: dict[str, int] = {}
        for axis, shapes in self._grown.items():
            other = shapes.get(name)
            if other is None or len(other) != len(shape):
                return f"it changes its form with the {axis}"
            change, step = other[dim] - shape[dim], self._step(axis)
            if change % step:
                return f"it grows by {change} rows with {step} {axis}"
            if change:
                found[self._meant(axis, name)] = change // step
        return found

    def _meant(self, axis: str, name: str) -> str:
        """The axis that a field counts in the tensors of a name."""
        if axis not in ("ffn", "expert_ffn"):
            return axis
        if self.of_experts(name):
            return "expert_ffn"
        beside = any(kind & {*self.experts} for kind in self.kinds if name in kind)
        return "shared_ffn" if beside else "ffn"

    @cached_property
    def kinds(self) -> list[frozenset[str]]:
        """The shared names of the tensors of each layer."""
        return self.naming.kinds(self.base.stored, layers=self.tiny.sizes["layers"])

    @cached_property
    def experts(self) -> tuple[str, ...]:
        """Shared names of the tensors of experts."""
        return tuple(name for name in self.names if self.of_experts(name))

    def of_experts(self, name: str) -> bool:
        """Whether the tensors of that name are of one expert, or hold all experts."""
        shape, more = self._base[name], self._grown.get("experts", {}).get(name)
        fused = bool(shape and more and len(shape) > 1 and more[0] > shape[0])
        return fused or "{expert}" in name

    @cached_property
    def drivers(self) -> dict[str, tuple[str, int]]:
        """Axis of neurons -> (axis whose field holds its size, how many times that size it has)."""
        found: dict[str, tuple[str, int]] = {}
        for source in ("ffn", "expert_ffn", "shared_ffn"):
            for name, shape in self._base.items():
                other = self._grown.get(source, {}).get(name)
                if not shape or not other:
                    continue
                for rows, more in zip(shape, other, strict=False):
                    times, left = divmod(more - rows, STEPS[source])
                    meant = self._meant(source, name)
                    if times and not left and rows >= times * self.tiny.sizes[source]:
                        least = min(times, found.get(meant, (source, times))[1])
                        found[meant] = (source, least)
        return found

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Axis of an architecture -> size in the tiny model, of all that any tensor has."""
        own = self.tiny.sizes
        sizes = {axis: own[axis] for axis in ("layers", "hidden")}
        sizes["heads"] = own.get("heads", 1)
        sizes["kv_heads"] = own.get("kv_heads", 1) if self.grouped else sizes["heads"]
        if self.experts:
            sizes["experts"] = own["experts"]
        return sizes | {axis: own[at] * times for axis, (at, times) in self.drivers.items()}

    def field_axis(self, axis: str) -> str:
        """The axis whose field of the configuration holds the size of `axis`."""
        return self.drivers.get(axis, (axis, 1))[0]

    def together(self, axis: str) -> list[str]:
        """The axes whose sizes one field holds with that of `axis`."""
        field = self.field_axis(axis)
        return [other for other in self.sizes if self.field_axis(other) == field]

    def _step(self, axis: str) -> int:
        return TIED_HIDDEN if axis == "hidden" and not self.free_heads else STEPS[axis]

    @cached_property
    def _base(self) -> dict[str, Any]:
        return self.naming.alike(self.base.stored)

    @cached_property
    def _grown(self) -> dict[str, dict[str, Any]]:
        sizes, result = self.tiny.sizes, {}
        for axis, shapes in self.grown.items():
            experts = sizes.get("experts", 0) + (STEPS["experts"] if axis == "experts" else 0)
            naming = Naming.of(shapes.stored, layers=sizes["layers"], experts=experts)
            result[axis] = naming.alike(shapes.stored)
        return result

    def touching(self, name: str) -> list[str]:
        """The axes that change the shape of the tensors of that shared name."""
        changed = [a for a, shapes in self._grown.items() if shapes.get(name) != self._base[name]]
        return list(dict.fromkeys(self._meant(axis, name) for axis in changed))

    @cached_property
    def outer(self) -> frozenset[str]:
        """The names of the tensors outside the layers."""
        places = (self.naming.place(name) for name in self.base.stored)
        return frozenset(place.name for place in places if place.layer is None)

    @property
    def names(self) -> list[str]:
        """The shared names of all tensors."""
        return list(self._base)


def _computed(kind: type, name: str) -> bool:
    """Whether a class works a value out of others, so that it cannot be set."""
    value = getattr(kind, name, None)
    return isinstance(value, property) and value.fset is None


def _in_memory(shapes: BuiltShapes) -> BuiltShapes:
    return BuiltShapes(shapes.loaded, shapes.loaded)


def _grown(tiny: TinyType, *, free: bool) -> tuple[dict[str, BuiltShapes], dict[str, str]]:
    grown: dict[str, BuiltShapes] = {}
    stiff: dict[str, str] = {}
    sizes = tiny.sizes
    for axis, step in STEPS.items():
        tied = not free and "heads" in sizes
        if axis not in sizes or (axis == "heads" and tied):  # with the hidden size
            continue
        if axis == "kv_heads" and sizes["kv_heads"] == sizes["heads"]:
            continue
        changed = {axis: sizes[axis] + step}
        if axis == "hidden" and tied:
            changed = {"hidden": sizes["hidden"] + TIED_HIDDEN, "heads": sizes["heads"] + 4}
        if "heads" in changed and sizes.get("kv_heads") == sizes["heads"]:
            changed["kv_heads"] = changed["heads"]
        try:
            grown[axis] = shapes_of(tiny.config(**changed))
        except Exception as problem:  # as above
            stiff[axis] = reason_of(problem)
    return grown, stiff


def _heads_grow_alone(tiny: TinyType, base: BuiltShapes) -> bool:
    """Whether projections grow with the heads although the hidden size stays."""
    if "heads" not in tiny.sizes:
        return True
    heads = tiny.sizes["heads"] + STEPS["heads"]
    both = tiny.sizes.get("kv_heads") == tiny.sizes["heads"]
    try:
        grown = shapes_of(tiny.config(heads=heads, **({"kv_heads": heads} if both else {})))
    except Exception:  # as above: it cannot be asked
        return False
    return any(grown.stored[name] > shape for name, shape in base.stored.items())


def _working(config: PretrainedConfig) -> BuiltShapes:
    """The shapes of a model that answers. Raises whatever the model does."""
    shapes = shapes_of(config)
    if sum(torch.Size(shape).numel() for shape in shapes.loaded.values()) > LARGEST:
        raise PruningError("it is large whatever its known sizes are")
    answers(random_model(config), torch.arange(11)[None])
    return shapes
