"""Sorted teacher: a checkpoint in the order of importance on every axis; a prefix is a student."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import PretrainedConfig, PreTrainedModel

from pruning import (
    ENERGIES_FILE,
    ORDERING_FILE,
    Architecture,
    Checkpoint,
    Ordering,
    Slice,
    architecture_of,
    load_slice,
    student_config,
)
from pruning.slicing import NO_EDITS, BlockLibrary, rms_rescale


@dataclass(frozen=True)
class SortedTeacher:
    """A sorted checkpoint, with the ordering that it was sorted by."""

    directory: Path
    """Its folder."""
    library: Path | None = None
    """Folder of the same form, of which students whose layers differ take the blocks that are
    smaller than the teacher's."""

    @property
    def ordering(self) -> Ordering:
        """Where each channel, head, neuron, expert and layer was before the sorting."""
        return Ordering.load(self.directory / ORDERING_FILE)

    def kept_layers(self, architecture: Architecture) -> list[int]:
        """The layers that a student of this architecture keeps, counted from 0."""
        return self.ordering.kept_layers(architecture.layers, bool(architecture.contiguous))

    def cut(
        self, architecture: Architecture, *, dtype: torch.dtype = torch.float32
    ) -> PreTrainedModel:
        """A student of this architecture; to be trained, it is in fp32."""
        source = Checkpoint(self.directory)
        kept = self.kept_layers(architecture)
        cut = Slice.of(source.config, architecture, kept_layers=kept)
        mean_squares = self.directory / ENERGIES_FILE
        edits = rms_rescale(cut, load_file(mean_squares)) if mean_squares.exists() else NO_EDITS
        library = None if self.library is None else BlockLibrary(self.library)
        return load_slice(source, cut, edits=edits, library=library, dtype=dtype)

    def layers(self, kept: Sequence[int], *, dtype: torch.dtype) -> PreTrainedModel:
        """A model of these layers alone, each of full size, as the sorted teacher has them."""
        return load_layers(Checkpoint(self.directory), kept, dtype=dtype)

    def config_of(self, architecture: Architecture) -> PretrainedConfig:
        """The configuration of a student of this architecture."""
        config = Checkpoint(self.directory).config
        return student_config(config, architecture, self.kept_layers(architecture))


def load_layers(
    checkpoint: Checkpoint, kept: Sequence[int], *, dtype: torch.dtype
) -> PreTrainedModel:
    """A model of these layers of a checkpoint alone, each of full size.

    Raises PruningError where the model type ties its layers to their places.
    """
    shape = replace(architecture_of(checkpoint.config), layers=len(kept))
    return load_slice(checkpoint, Slice.of(checkpoint.config, shape, kept_layers=kept), dtype=dtype)
