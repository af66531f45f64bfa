"""Cutting of tiny models by a layout that is not believed yet, in memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pruning.families.architecture import Architecture
from pruning.importance.ordering import Ordering
from pruning.inference.layouts.layout import Layout
from pruning.inference.tiny.names import Naming, Place


@dataclass(frozen=True)
class TinyCut:
    """A student of a tiny model: its units, and its layers."""

    whole: Architecture
    """The tiny model's sizes."""
    student: Architecture
    """The student's sizes."""
    ordering: Ordering
    """Order of the units, the ones to keep first."""
    layers: Sequence[int]
    """The layers that the student keeps."""

    def kept(self, axis: str, layer: int | None, expert: int | None) -> Tensor:
        """The units of the teacher that the student has on an axis, in its order."""
        order = self.ordering
        if axis == "hidden":
            return order.hidden[: self.student.hidden]
        assert layer is not None, f"axis {axis} exists only inside layers"
        if axis == "heads":
            groups: Tensor = order.heads[layer].unflatten(0, (self.whole.kv_heads, -1))
            per_group = self.student.heads // self.student.kv_heads
            return groups[: self.student.kv_heads, :per_group].flatten()
        if axis == "expert_ffn":
            assert expert is not None
            neurons: Tensor = order.expert_ffn[layer, expert]
            return neurons[: self.student.expert_ffn]
        units: Tensor = getattr(order, axis)[layer]
        return units[: getattr(self.student, axis)]

    def tensors(
        self, stored: Mapping[str, Tensor], naming: Naming, *, layout: Layout
    ) -> dict[str, Tensor]:
        """The student's tensors, cut out of those of the tiny model."""
        result = {}
        places = {layer: index for index, layer in enumerate(self.layers)}
        for name, tensor in stored.items():
            place = naming.place(name)
            if place.layer is not None and place.layer not in places:
                continue
            new = place
            if place.layer is not None:
                new = Place(place.name, places[place.layer], place.expert)
            if place.expert is not None:
                experts = self.kept("experts", place.layer, None).tolist()
                if place.expert not in experts:
                    continue
                new = Place(place.name, new.layer, experts.index(place.expert))
            result[naming.full_name(new)] = self._cut(tensor, place, layout)
        return result

    def _cut(self, tensor: Tensor, place: Place, layout: Layout) -> Tensor:
        axes = layout.axes[place.name]
        inner = {layout.aliases[part].axis for dim in axes[1:] for part in dim.split("+")}
        if axes[:1] == ("experts",) and "expert_ffn" in inner:  # all experts in one
            experts = self.kept("experts", place.layer, None).tolist()
            cut = [
                self._cut_dims(tensor[old], axes[1:], Place(place.name, place.layer, old), layout)
                for old in experts
            ]
            return torch.stack(cut)
        return self._cut_dims(tensor, axes, place, layout)

    def _cut_dims(
        self, tensor: Tensor, axes: Sequence[str], place: Place, layout: Layout
    ) -> Tensor:
        for dim, joined in enumerate(axes):
            parts, start = [], 0
            for part in joined.split("+"):
                alias = layout.aliases[part]
                if alias.axis:
                    units = self.kept(alias.axis, place.layer, place.expert)
                    length = alias.rows * getattr(self.whole, alias.axis)
                    rows = (units[:, None] * alias.rows + torch.arange(alias.rows)).flatten()
                else:
                    rows, length = torch.arange(alias.rows), alias.rows
                parts.append(rows + start)
                start += length
            if start != tensor.shape[dim]:  # a tensor of no known form stays as it is
                continue
            tensor = tensor.index_select(dim, torch.cat(parts))
        return tensor.clone()
