"""Checkpoints in memory for as long as they are needed."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from workspace.models.model_source import ModelSource


@dataclass(frozen=True)
class LoadedModel:
    """A checkpoint that is loaded when it is first called for, and kept until it is released."""

    source: ModelSource
    """The checkpoint."""
    device: torch.device
    """Where it is held, unless `placement` says otherwise."""
    dtype: torch.dtype
    """Type that its weights are held in."""
    placement: Mapping[str, Any] = field(default_factory=dict)
    """For transformers, where the model is not on `device` alone."""
    _held: list[Any] = field(default_factory=list, compare=False, repr=False)

    def __call__(self) -> Any:
        """The model. Raises SearchError where it cannot be loaded or cannot answer."""
        if not self._held:
            self._held.append(self.source.load(self.device, self.dtype, **self.placement))
        return self._held[0]

    @property
    def loaded(self) -> bool:
        """Whether it is in memory."""
        return bool(self._held)

    def release(self) -> None:
        """Give its memory back."""
        self._held.clear()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def like(self, source: ModelSource) -> "LoadedModel":
        """Another checkpoint, to be held in the same way."""
        return replace(self, source=source, _held=[])
