"""Rows of types that are not in the table, with what they were inferred from and their proofs."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TypeVar

from transformers import PretrainedConfig

from pruning.families.block import Block
from pruning.families.spec import Family
from pruning.families.words import Axes
from pruning.inference.proofs.search import Finding
from pruning.inference.tiny.pattern import Kind, Pattern
from pruning.inference.tiny.sizes import TinyType

Result = TypeVar("Result")


@dataclass(frozen=True)
class InferredFamily(Family):
    """A row that was inferred: the tensors of a layer are those that transformers builds."""

    tiny: TinyType | None = None
    """The tiny type that it was inferred of."""
    axes: Mapping[str, Axes] = field(default_factory=dict)
    """Axes of all tensors of layers, of any kind."""
    pattern: Callable[[PretrainedConfig], Pattern] | None = None
    """The kinds of a model's layers."""
    findings: Mapping[str, Finding] = field(default_factory=dict)
    """Axis -> what came of its proof."""

    def layer_axes(self, config: PretrainedConfig, layer: int) -> dict[str, Axes]:
        """Tensors of one layer of a model with this configuration; "{expert}" not expanded."""
        kind = self.kinds(config)[layer]
        return {name: axes for name, axes in self.axes.items() if name in kind}

    def block_axes(self, config: PretrainedConfig, layer: int, *, block: Block) -> dict[str, Axes]:
        """The same of a student, since inferred types have no layers that differ in sizes."""
        return self.layer_axes(config, layer)

    def kinds(self, config: PretrainedConfig) -> list[Kind]:
        """The names of the tensors of each layer of a model."""
        assert self.pattern is not None
        return self.pattern(config).kinds


@dataclass(frozen=True)
class ConfigKey:
    """A configuration that is found again by what it says."""

    text: str
    """All that it says."""
    config: PretrainedConfig = field(compare=False)
    """The configuration."""

    @classmethod
    def of(cls, config: PretrainedConfig) -> "ConfigKey":
        """The key of a configuration."""
        values = json.dumps(config.to_dict(), sort_keys=True, default=str)
        return cls(f"{type(config).__qualname__} {values}", config)


def remembered(
    function: Callable[[PretrainedConfig], Result],
) -> Callable[[PretrainedConfig], Result]:
    """`function`, which keeps what it said of the last few configurations."""
    cached = lru_cache(maxsize=64)(lambda key: function(key.config))
    return lambda config: cached(ConfigKey.of(config))
