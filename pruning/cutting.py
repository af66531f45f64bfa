"""Pruner: a whole cut in one call (score, order, write)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import AutoModelForCausalLM

from common.errors import PruningError
from common.files import require_fresh
from pruning.engines.verdicts import Served
from pruning.families.architecture import Architecture
from pruning.families.checkpoint import Checkpoint
from pruning.families.legality import check_architecture
from pruning.families.shapes import architecture_of
from pruning.families.table import expert_groups
from pruning.importance.calibration import input_device, repeatable
from pruning.importance.experts import Routing, measure_routing
from pruning.importance.measure import Importance, layer_importance, measure_importance
from pruning.importance.moments import Moments, measure_moments
from pruning.importance.ordering import LayerMix, Ordering
from pruning.settings import PruneSettings
from pruning.slicing.compensation import bias_compensation, head_merge, rms_rescale
from pruning.slicing.edits import NO_EDITS, WeightEdits
from pruning.slicing.merging import expert_merge
from pruning.slicing.selection import Slice
from pruning.slicing.student import load_slice, write_slice


@dataclass(frozen=True)
class Pruned:
    """Result of a cut: the scores and order that it was made by, and the layers that it kept."""

    importance: Importance
    """Scores of all parts of the teacher; of its layers the block influence, where none was to go
    by its score."""
    ordering: Ordering
    """The order that they gave."""
    kept_layers: list[int]
    """The teacher's layers that the student has."""


def prune(
    teacher: Path | str,
    architecture: Architecture,
    batches: Iterable[Tensor],
    output: Path | str,
    settings: PruneSettings | None = None,
) -> Pruned:
    """Cut `architecture` out of a checkpoint, by scores on calibration text.

    `Pruner` takes a teacher that is loaded already, engines that must take the student, and layers
    to keep.

    Args:
        teacher: Directory of the checkpoint.
        architecture: Of the student.
        batches: Token ids [batch, sequence] of calibration text.
        output: New directory of the student.
        settings: How it is cut.

    Raises:
        PruningError: The student cannot be cut, or `output` is not empty.
    """
    pruner = Pruner(teacher, settings or PruneSettings())
    return pruner.prune(architecture, batches, output=output)


@dataclass(frozen=True)
class Pruner:
    """A teacher to be cut, and how."""

    teacher: Path | str
    """Directory of its checkpoint."""
    settings: PruneSettings = field(default_factory=PruneSettings)
    """How students are cut."""
    model: Any = None
    """The teacher where it is loaded already."""
    serve_with: Sequence[str] = ()
    """Names of engines of `pruning.engines.verdicts` that must take the student."""

    @cached_property
    def checkpoint(self) -> Checkpoint:
        """The teacher's."""
        return Checkpoint(Path(self.teacher))

    @cached_property
    def served(self) -> Served:
        """The engines. Raises PruningError for one that takes no such models."""
        return Served(self.checkpoint.config, tuple(self.serve_with))

    def prune(
        self,
        architecture: Architecture,
        batches: Iterable[Tensor],
        *,
        output: Path | str,
        kept_layers: Sequence[int] | None = None,
    ) -> Pruned:
        """Cut `architecture` into the new directory `output`.

        Args:
            architecture: Of the student.
            batches: Token ids [batch, sequence] of calibration text.
            output: New directory of the student.
            kept_layers: The layers to keep; by default their scores decide.

        Raises:
            PruningError: The student cannot be cut, or `output` is not empty.
        """
        config = self.checkpoint.config
        batches = repeatable(batches)
        check_architecture(config, architecture)
        self.served.check(self.settings.shape(architecture), kept_layers)
        self.settings.check(config, architecture)
        settings = self.settings.measured(
            architecture, layers=config.num_hidden_layers, chosen=kept_layers is not None
        )
        require_fresh(Path(output), error=PruningError)
        model = self._loaded()
        importance = measure_importance(
            model, batches, scoring=settings.scoring, checkpoint=self.checkpoint
        )
        ordering = Ordering.from_importance(
            importance,
            architecture_of(config),
            places=self.served.places,
            mix=LayerMix.of(config, settings.shares),
            expert_groups=expert_groups(config),
        )
        moments = None
        if settings.rms_rescale or settings.bias_compensation:
            moments = measure_moments(model, batches)
        routing = measure_routing(model, batches) if settings.merge_experts else None
        if settings.layers_after_width:
            depth = config.num_hidden_layers
            deep = Slice.of(
                config,
                replace(architecture, layers=depth),
                kept_layers=range(depth),
                ordering=ordering,
            )
            narrow: Any = load_slice(
                self.checkpoint, deep, edits=self._edits(deep, moments, routing)
            )
            narrow = narrow.to(device=input_device(model), dtype=model.dtype)
            scores = layer_importance(narrow, batches, layer_score=settings.layer_score)
            ordering = ordering.with_layers(*scores)
        kept = ordering.kept_layers(architecture.layers) if kept_layers is None else kept_layers
        cut = Slice.of(config, architecture, kept_layers=kept, ordering=ordering)
        edits = self._edits(cut, moments, routing)
        write_slice(self.checkpoint, cut, output=Path(output), edits=edits)
        return Pruned(importance, ordering, list(kept))

    def _loaded(self) -> Any:
        if self.model is not None:
            return self.model
        return AutoModelForCausalLM.from_pretrained(
            self.teacher, dtype=self.checkpoint.dtype, device_map="auto"
        )

    def _edits(self, cut: Slice, moments: Moments | None, routing: Routing | None) -> WeightEdits:
        edits = NO_EDITS
        if routing:
            edits = edits | expert_merge(self.checkpoint, cut, routing=routing)
        if self.settings.head_merge:
            edits = edits | head_merge(self.checkpoint, cut)
        if self.settings.rms_rescale and moments:
            edits = edits | rms_rescale(cut, moments.mean_squares)
        if self.settings.bias_compensation and moments:
            edits = edits | bias_compensation(self.checkpoint, cut, moments=moments)
        return edits
