"""Dropped experts of a mixture, merged into the kept ones that are most like them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from common.errors import PruningError
from pruning.families.architecture import Architecture
from pruning.families.block import EXPERTS
from pruning.families.checkpoint import Checkpoint, Reader
from pruning.families.shapes import architecture_of
from pruning.families.table import expert_groups, family_of
from pruning.families.words import TensorSpec
from pruning.importance.experts import Routing
from pruning.importance.weights import axis_parts
from pruning.slicing.edits import WeightEdits
from pruning.slicing.selection import Slice, gather


def check_merge(teacher: Architecture, student: Architecture) -> None:
    """Raises PruningError for students that no dropped expert could be merged into."""
    if not teacher.experts:
        raise PruningError("merge_experts is for mixtures of experts; the teacher has no experts")
    if student.experts == teacher.experts:
        raise PruningError(
            f"merge_experts merges dropped experts into kept ones; the student keeps all "
            f"{teacher.experts}: give it fewer, or leave merge_experts out"
        )


def expert_merge(teacher: Checkpoint, cut: Slice, *, routing: Routing) -> WeightEdits:
    """Merge each dropped expert into the kept one whose router logits are most like its own.

    As M-SMoE (arXiv 2310.01334): its neurons are put into the order in which their weights are
    most like the kept one's, and the experts of a cluster are averaged by the tokens routed to
    each. The router's rows of dropped experts go. With groups of experts that are routed in, one
    is merged inside its group.
    """
    family = family_of(cut.teacher)
    edits: dict[str, Callable[[Tensor], Tensor]] = {}
    for index, layer in enumerate(cut.kept_layers):
        if not family.has(EXPERTS, cut.teacher, layer) or not cut.block(layer).experts:
            continue
        merger = _LayerMerger(teacher, cut, layer, routing)
        for name, axes in family.layer_axes(cut.teacher, layer).items():
            if not family.of_experts(name, axes):
                continue
            target, source = family.layer_tensor(index, name), family.layer_tensor(layer, name)
            if "{expert}" not in name:
                edits[target] = merger.of_all(TensorSpec(source, axes, layer))
                continue
            for place, expert in enumerate(merger.kept):
                own = TensorSpec(source, axes, layer, expert)
                edits[target.replace("{expert}", str(place))] = merger.of_one(own)
    return WeightEdits(edits=edits)


@dataclass(frozen=True)
class _Member:
    """A dropped expert of the cluster of a kept one."""

    expert: int
    share: float
    """Of the tokens that are routed to the cluster."""
    cut: Slice
    """That of the student, with this expert's neurons in the order of the kept one's."""


class _LayerMerger:
    """Merges the experts of one layer."""

    def __init__(self, teacher: Checkpoint, cut: Slice, layer: int, routing: Routing):
        self.teacher, self.cut, self.layer = teacher, cut, layer
        self.kept: list[int] = cut.kept("experts", layer).tolist()
        self._members = dict(self._clusters(routing))

    def of_one(self, own: TensorSpec) -> Callable[[Tensor], Tensor]:
        """The edit of a tensor of one expert, whose name has a place for the expert's number."""
        assert own.expert is not None, f"{own.name} is of an expert"
        kept = own.expert

        def edit(tensor: Tensor) -> Tensor:
            with self.teacher.reading() as reader:

                def other(member: _Member) -> Tensor:
                    name = own.name.replace("{expert}", str(member.expert))
                    spec = replace(own, name=name, expert=member.expert)
                    return gather(reader.view(name), member.cut.selection(spec))

                return self._merged(tensor, kept, other)

        return edit

    def of_all(self, tensor_of_all: TensorSpec) -> Callable[[Tensor], Tensor]:
        """The edit of a tensor of all experts."""
        axes = tensor_of_all.axes[1:]

        def edit(tensor: Tensor) -> Tensor:
            with self.teacher.reading() as reader:
                view = reader.view(tensor_of_all.name)

                def other(member: _Member) -> Tensor:
                    expert = member.expert
                    spec = replace(tensor_of_all, axes=axes, expert=expert)
                    rows = [slice(expert, expert + 1), *member.cut.selection(spec)]
                    return gather(view, rows)[0]

                merged = [
                    self._merged(own, kept, other)
                    for own, kept in zip(tensor, self.kept, strict=True)
                ]
            return torch.stack(merged)

        return edit

    def _merged(self, own: Tensor, kept: int, other: Callable[[_Member], Tensor]) -> Tensor:
        members = self._members[kept]
        total = own.double() * (1 - sum(member.share for member in members))
        for member in members:
            total += member.share * other(member).double()
        return total.to(own.dtype)

    def _clusters(self, routing: Routing) -> Iterator[tuple[int, list[_Member]]]:
        """Every kept expert, and the dropped ones that go into it."""
        tokens = routing.tokens[self.layer].double() + 1  # one that no token reached counts little
        home = self._homes(routing.similarity[self.layer])
        with self.teacher.reading() as reader:
            for kept in self.kept:
                dropped = [expert for expert, into in home.items() if into == kept]
                whole = tokens[kept] + tokens[dropped].sum()
                found = []
                weights = self._neurons(reader, kept) if dropped else None
                for expert in dropped:
                    assert weights is not None
                    likeness = weights @ self._neurons(reader, expert).T
                    match = torch.from_numpy(linear_sum_assignment(likeness, maximize=True)[1])
                    share = float(tokens[expert] / whole)
                    found.append(_Member(expert, share, self._in_order(expert, kept, match)))
                yield kept, found

    def _homes(self, similarity: Tensor) -> dict[int, int]:
        """Dropped expert -> the kept one that it goes into, of its group."""
        size = len(similarity) // expert_groups(self.cut.teacher)
        homes = {}
        for expert in sorted(set(range(len(similarity))) - set(self.kept)):
            near = [kept for kept in self.kept if kept // size == expert // size]
            homes[expert] = max(near, key=lambda kept: float(similarity[expert, kept]))
        return homes

    def _in_order(self, expert: int, kept: int, match: Tensor) -> Slice:
        """The slice in which the neurons of `expert` have the order of those that they match."""
        neurons = self.cut.ordering.expert_ffn.clone()
        neurons[self.layer, expert] = match[neurons[self.layer, kept]]
        return replace(self.cut, ordering=replace(self.cut.ordering, expert_ffn=neurons))

    def _neurons(self, reader: Reader, expert: int) -> Tensor:
        """[expert_ffn, weights] of an expert, in the teacher's order."""
        config = self.cut.teacher
        family, neurons = family_of(config), architecture_of(config).expert_ffn
        found = []
        for name, axes in family.layer_axes(config, self.layer).items():
            if not family.of_experts(name, axes):
                continue
            stacked = "{expert}" not in name
            full = family.layer_tensor(self.layer, name).replace("{expert}", str(expert))
            view = reader.view(full)
            values = (view[expert] if stacked else view[:]).float()
            spec = TensorSpec(full, axes[1:] if stacked else axes, self.layer, expert)
            for axis, dim, places, _ in axis_parts(spec, config):
                if axis == "expert_ffn":
                    part = values.index_select(dim, places).movedim(dim, 0)
                    found.append(part.reshape(neurons, -1))
        return torch.cat(found, 1)
