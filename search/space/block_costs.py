"""Costs of single layers, whose sum with what lies outside the layers is the cost of a student."""

from dataclasses import dataclass
from functools import cached_property

from pruning import Architecture, Block, architecture_of, family_of
from pruning.families import EXPERTS, windows_of
from search.space.budget import Budget
from search.space.costs import CostModel
from search.space.latency import TIMES
from search.space.variants import NOTHING


@dataclass(frozen=True)
class BlockCosts:
    """Costs of the layers of one teacher's students: those that a budget limits, and parameters."""

    model: CostModel
    """Costs of whole students."""
    budget: Budget
    """What students may cost."""

    @cached_property
    def names(self) -> list[str]:
        """Of the costs."""
        return list(dict.fromkeys(["parameters", *self.budget.costs]))

    @cached_property
    def fixed(self) -> dict[str, float]:
        """Of all that lies outside the layers."""
        costs = self._counted(NOTHING, 0)
        if self._times:
            assert self.model.block_latency is not None, "latencies of blocks need their table"
            around = self.model.block_latency.around(0)
            costs |= {name: around[name] for name in self._times}
        return costs

    def of(self, block: Block, layer: int) -> dict[str, float]:
        """Of a student's layer of this size that is cut from the teacher's `layer`."""
        asked = block, self.kinds[layer]
        if asked not in self._known:
            self._known[asked] = self._of(block, layer)
        return self._known[asked]

    @cached_property
    def kinds(self) -> list[tuple[bool, int]]:
        """What costs of a block depend on besides its size, by the teacher's layer: whether it is a
        mixture of experts, and the tokens that it attends to."""
        config = self.model.config
        *windows, _ = windows_of(config, self.model.context)
        family = family_of(config)
        return [(family.has(EXPERTS, config, i), tokens) for i, tokens in enumerate(windows)]

    @cached_property
    def _known(self) -> dict[tuple[Block, tuple[bool, int]], dict[str, float]]:
        """Costs that were counted before: layers of a kind and all depths ask for the same."""
        return {}

    def _of(self, block: Block, layer: int) -> dict[str, float]:
        costs = {
            name: cost - self.fixed[name] for name, cost in self._counted(block, layer).items()
        }
        table = self.model.block_latency
        if self._times and table is not None:
            student = self._student(block)
            times = table.predict(student, kept=[layer])
            costs |= {name: times[name] - self.fixed[name] for name in self._times}
        return costs

    @property
    def _times(self) -> list[str]:
        return [name for name in self.names if name in TIMES]

    def _counted(self, block: Block, layer: int) -> dict[str, float]:
        """Of a student with this layer alone."""
        counted = [name for name in self.names if name not in TIMES]
        costs = self.model.costs(self._student(block), counted, kept=[layer])
        return {name: float(cost) for name, cost in costs.items()}

    def _student(self, block: Block) -> Architecture:
        return Architecture.of_blocks(architecture_of(self.model.config).hidden, [block])
