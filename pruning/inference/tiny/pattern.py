"""Pattern: which values of a configuration say of what kind a layer is."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from transformers import PretrainedConfig

from pruning.inference.tiny.building import shapes_of
from pruning.inference.tiny.names import Naming

Kind = frozenset[str]


@dataclass(frozen=True)
class Pattern:
    """The kinds of a model's layers, and how a student keeps those of the layers that it keeps."""

    config: PretrainedConfig
    """A configuration with few channels, and the layers of the model."""
    layers_field: str
    """Field that holds the number of layers."""
    naming: Naming
    """How its tensors on disk are numbered."""

    @cached_property
    def kinds(self) -> list[Kind]:
        """The names of the tensors of each layer."""
        return self._kinds(self.config, getattr(self.config, self.layers_field)) or []

    def values(self, kept: Sequence[int]) -> dict[str, Any] | None:
        """Values of the configuration of a student with the kept layers that make each of the kind
        it had; None where none were found."""
        wanted = [self.kinds[layer] for layer in kept]
        if self._kinds(self._with(kept), len(kept)) == wanted:
            return {}
        for name, value in self.config.to_dict().items():
            if name == self.layers_field or not self._says_kinds(name, value):
                continue
            for other in range(len(kept) + 2):
                if self._kinds(self._with(kept, {name: other}), len(kept)) == wanted:
                    return {name: other}
        return None

    def _says_kinds(self, name: str, value: Any) -> bool:
        """Whether another number in this field gives a layer another kind."""
        if not isinstance(value, int) or isinstance(value, bool) or value > len(self.kinds):
            return False
        depth = len(self.kinds)
        found = [self._kinds(self._with(range(depth), {name: n}), depth) for n in (value + 1, 0)]
        return any(kinds is not None and kinds != self.kinds for kinds in found)

    def _with(self, kept: Sequence[int], changed: dict[str, Any] | None = None) -> Any:
        values = self.config.to_dict()
        depth = values[self.layers_field]
        for name, value in values.items():
            if isinstance(value, list) and len(value) == depth:
                values[name] = [value[layer] for layer in kept]
        return values | {self.layers_field: len(kept)} | (changed or {})

    def _kinds(self, config: Any, layers: int) -> list[Kind] | None:
        try:
            if isinstance(config, dict):
                config = type(self.config).from_dict(config)
            names = shapes_of(config).stored
        except Exception:  # a value that the type does not take
            return None
        return self.naming.kinds(names, layers=layers)
