"""Rows of the table of engines: the demands of one serving program on models."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PretrainedConfig

from pruning.families.architecture import Sizes
from pruning.families.shapes import architecture_of
from pruning.families.table import head_dim_of

LOADING, COMPUTING, QUANTISING, WINDOWS = "loading", "computing", "quantising", "windows"
"""What breaks where a rule is not met: the engine refuses the model, computes something else
without a word, leaves tensors out of its quantised formats, or attends beyond the window."""
RUN, READ = "run", "read"
"""How a rule is known: tried in the engine, or read in its source."""


@dataclass(frozen=True)
class Engine:
    """Software that serves models."""

    name: str
    """As `--serve_with` has it."""
    version: str
    """The one that was tried or read."""
    known: str
    """RUN or READ, of the model types that it takes."""
    model_types: frozenset[str]
    """Those that were tried or read, and that it takes."""
    refused: frozenset[str] = frozenset()
    """Those that were tried or read, and that it does not take."""
    absent: str = ""
    """Why it does not."""

    def why_not(self, model_type: str) -> str:
        """Why a model of this type is not for it; empty where it takes them. A type that has not
        been tried may well be one that it takes."""
        if model_type in self.model_types:
            return ""
        if model_type in self.refused:
            return f"it takes no {model_type} models ({self.absent})"
        return f"it was not tried with {model_type} models"


@dataclass(frozen=True)
class Tie:
    """A size that an engine derives from another: `axis` = `of` x factor."""

    axis: str
    """The size that the engine derives."""
    of: str
    """The size that it derives it from."""
    factor: Callable[[PretrainedConfig], int]
    """What it multiplies that by, from the teacher's configuration."""

    def holds(self, config: PretrainedConfig, sizes: Sizes[Any]) -> Any:
        """Whether `sizes` meet it, elementwise for a grid."""
        return getattr(sizes, self.axis) == getattr(sizes, self.of) * self.factor(config)


@dataclass(frozen=True)
class Pattern:
    """Kinds of layers that an engine assumes by their place, whatever the configuration says."""

    kinds: Callable[[PretrainedConfig], Sequence[Any]]
    """Kind of each layer of a model."""
    at: Callable[[int], Any]
    """Kind that the engine takes the layer at a place for, counted from 0."""

    def places(self, config: PretrainedConfig) -> torch.Tensor:
        """[places, layers], whether a layer of the model may stand at a place of a student."""
        kinds = self.kinds(config)
        rows = [[kind == self.at(place) for kind in kinds] for place in range(len(kinds))]
        return torch.tensor(rows)


@dataclass(frozen=True)
class Rows:
    """Rows of weights that a quantised format takes: a multiple of so many values, on every axis
    where the teacher's are."""

    multiple: int
    """Values of a block."""

    def multiples(self, config: PretrainedConfig) -> dict[str, int]:
        """Axes that must be a multiple of a number, with the number."""
        whole = architecture_of(config)
        sizes = {axis: getattr(whole, axis) for axis in ("hidden", "ffn", "expert_ffn")}
        return {axis: self.multiple for axis, size in sizes.items() if not size % self.multiple}

    def holds(self, config: PretrainedConfig, sizes: Sizes[Any]) -> Any:
        """Whether `sizes` meet it, elementwise for a grid."""
        holds: Any = True
        for axis, multiple in self.multiples(config).items():
            holds = holds & (getattr(sizes, axis) % multiple == 0)
        head_dim = head_dim_of(config)
        if not architecture_of(config).heads * head_dim % self.multiple:
            holds = holds & (sizes.heads * head_dim % self.multiple == 0)
        return holds


@dataclass(frozen=True)
class Rule:
    """Need of an engine, of models of some types. One of `tie`, `pattern`, `rows` and `shape`
    says when it holds."""

    engine: str
    """Name of the engine."""
    model_types: tuple[str, ...]
    """Types of models that it is about."""
    needs: str
    """Completes "... needs"."""
    reason: str
    """Why, as it follows a colon."""
    source: str
    """File of the engine."""
    breaks: str = COMPUTING
    """LOADING, COMPUTING, QUANTISING or WINDOWS."""
    known: str = RUN
    """RUN or READ."""
    tie: Tie | None = None
    """A size that must follow from another."""
    pattern: Pattern | None = None
    """Kinds of layers that must stand at certain places."""
    rows: Rows | None = None
    """Blocks of values that sizes must be multiples of."""
    shape: Callable[[PretrainedConfig, Sizes[Any]], Any] | None = None
    """(teacher's configuration, sizes) -> whether it holds; elementwise for a grid."""

    def holds(self, config: PretrainedConfig, sizes: Sizes[Any]) -> Any:
        """Whether `sizes` meet it, elementwise for a grid; a pattern does not depend on sizes."""
        if self.shape is not None:
            return self.shape(config, sizes)
        part = self.tie or self.rows
        return sizes.layers >= 1 if part is None else part.holds(config, sizes)

    def holds_for(self, config: PretrainedConfig, kept: Sequence[int]) -> bool:
        """Whether a student of these layers meets it."""
        if self.pattern is None:
            return True
        kinds = self.pattern.kinds(config)
        return all(kinds[layer] == self.pattern.at(place) for place, layer in enumerate(kept))
