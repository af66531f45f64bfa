"""Costs of architectures that are cut out of one teacher, by name."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PretrainedConfig

from common.errors import require
from pruning import (
    Architecture,
    ArchitectureGrid,
    Workload,
    active_parameters,
    architecture_of,
    forward_flops,
    memory_bytes,
    non_embedding_parameters,
    parameter_count,
)
from pruning.families import ALL_SHARES, LayerShares
from search.config.budget import BYTES_PER_VALUE, BudgetConfig
from search.space.block_latency import BlockLatencyTable
from search.space.latency import TIMES, LatencyTable


@dataclass(frozen=True)
class CostModel:
    """Costs of architectures that are cut out of one teacher and served in one way."""

    config: PretrainedConfig
    """Of the teacher."""
    batch: int
    """Sequences served at once."""
    context: int
    """Tokens of each."""
    dtype: str
    """Type of weights and KV cache, of `BYTES_PER_VALUE`."""
    latency: LatencyTable | None = None
    """Must be given for costs in milliseconds."""
    block_latency: BlockLatencyTable | None = None
    """Must be given for costs in milliseconds of architectures whose layers differ."""
    shares: LayerShares = ALL_SHARES
    """How many layers of each kind a student keeps, of a teacher whose layers differ in kind."""

    @classmethod
    def of(
        cls,
        config: PretrainedConfig,
        limits: BudgetConfig,
        *,
        block: int | None = None,
        latency: LatencyTable | None = None,
        block_latency: BlockLatencyTable | None = None,
    ) -> "CostModel":
        """Served as `limits` say; with `block` tokens of context, or the teacher's positions, where
        they say nothing. Raises SearchError for a longer context than the teacher has positions.
        """
        positions = getattr(config, "max_position_embeddings", None)
        context = limits.context or block or int(positions or 0)
        require(context > 0, "the teacher does not say its positions; give --budget.context")
        require(
            positions is None or context <= positions,
            f"--budget.context is {context}; the teacher has positions for {positions} tokens",
        )
        return cls(config, limits.batch, context, limits.dtype, latency, block_latency)

    @property
    def bytes_per_value(self) -> int:
        """Bytes of a weight, a key or a value."""
        return BYTES_PER_VALUE[self.dtype]

    def costs(
        self,
        architecture: Architecture | ArchitectureGrid,
        names: Iterable[str],
        *,
        kept: Sequence[int] | None = None,
    ) -> dict[str, Any]:
        """The costs of these names, elementwise for a grid; bytes, FLOP per token, ms.

        `kept` are the teacher's layers that a student keeps. Where they are not given, it keeps of
        each kind its share, and memory and arithmetic are upper bounds of a teacher with windows in
        some layers.
        """
        config, context, names = self.config, self.context, tuple(names)
        layers = self.shares if kept is None else kept
        sizes: Any = architecture
        workload = Workload(self.batch, context, self.bytes_per_value)
        formulas: dict[str, Callable[[], Any]] = {
            "parameters": lambda: parameter_count(config, sizes, kept=layers),
            "non_embedding": lambda: non_embedding_parameters(config, sizes, kept=layers),
            "active": lambda: active_parameters(config, sizes, kept=layers),
            "memory": lambda: memory_bytes(config, sizes, workload, kept=layers),
            "flops": lambda: forward_flops(config, sizes, context, kept=layers),
        }
        found = {name: formulas[name]() for name in names if name in formulas}
        timed = [name for name in names if name in TIMES]
        if timed:
            predicted = self.times(architecture, kept=kept)
            found |= {name: predicted[name] for name in timed}
        return found

    def times(
        self,
        architecture: Architecture | ArchitectureGrid,
        *,
        kept: Sequence[int] | None = None,
    ) -> dict[str, Any]:
        """Milliseconds by name of the time, of those that were measured."""
        if isinstance(architecture, Architecture) and architecture.per_layer:
            assert self.block_latency is not None, "layers that differ need a table of their own"
            return self.block_latency.predict(architecture, kept=kept)
        assert self.latency is not None, "latencies need a table"
        return self.latency.predict(architecture)

    def of_teacher(self, names: Iterable[str]) -> dict[str, float]:
        """The teacher's own costs."""
        return self.costs(architecture_of(self.config), names)

    def __str__(self) -> str:
        return f"batch {self.batch}, context {self.context}, {self.dtype}"
