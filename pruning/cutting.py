"""The whole of a cut in one call: score, order, write."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import AutoModelForCausalLM

from pruning.architecture import Architecture
from pruning.checkpoint import Checkpoint
from pruning.engines import Served
from pruning.importance import Importance, layer_importance, measure_importance, repeatable
from pruning.layer_scores import input_device
from pruning.moments import Moments, measure_moments
from pruning.options import bias_compensation, check_options, head_merge, rms_rescale
from pruning.ordering import Ordering
from pruning.rows import Cut
from pruning.scores import DEFAULT_LAYER_SCORE, DEFAULT_SCORE
from pruning.sizes import architecture_of, check_architecture
from pruning.slicing import NO_CHANGES, Changes, cut_student, write_student
from pruning.writing import require_fresh


@dataclass(frozen=True)
class PruneSettings:
    """How a student is cut."""

    score: str = DEFAULT_SCORE
    """Score of heads, neurons and channels, such as variance-norm, l2-mean or taylor."""
    layer_score: str = DEFAULT_LAYER_SCORE
    """Score of layers: kl, loss, logit-mse, block-influence or span."""
    layers_after_width: bool = False
    """Score the layers again on the student with its width cut, which is held in memory."""
    rms_rescale: bool = True
    """Give every norm the size that it had in the teacher (see `pruning.options`)."""
    head_merge: bool = False
    """Fold dropped heads into kept ones."""
    bias_compensation: bool = False
    """Keep what dropped heads and neurons add on average, as biases."""

    def shape(self, architecture: Architecture) -> Architecture:
        """These sizes with what the layer score says of the layers that go: a span, or any."""
        return replace(architecture, contiguous=int(self.layer_score == "span"))


@dataclass(frozen=True)
class Pruned:
    """What a cut kept."""

    importance: Importance
    ordering: Ordering
    kept_layers: list[int]


def prune(
    teacher: Path | str,
    architecture: Architecture,
    batches: Iterable[Tensor],
    output: Path | str,
    settings: PruneSettings | None = None,
    kept_layers: list[int] | None = None,
    model: Any = None,
    serve_with: Sequence[str] = (),
) -> Pruned:
    """Cut `architecture` out of the checkpoint `teacher` into the new directory `output`.

    `batches` are token ids [batch, sequence] of calibration text. `kept_layers` names the layers to
    keep; else their scores decide. `model` is the teacher where it is loaded already. `serve_with`
    names engines of pruning.engines that must take the student. Raises PruningError for what cannot
    be cut.
    """
    settings = settings or PruneSettings()
    batches = repeatable(batches)
    checkpoint = Checkpoint(Path(teacher))
    whole = architecture_of(checkpoint.config)
    check_architecture(checkpoint.config, architecture)
    served = Served(checkpoint.config, tuple(serve_with))
    served.check(settings.shape(architecture), kept_layers)
    check_options(checkpoint.config, settings.head_merge, settings.bias_compensation)
    require_fresh(Path(output))
    if model is None:
        model = AutoModelForCausalLM.from_pretrained(
            teacher, dtype=checkpoint.dtype, device_map="auto"
        )
    importance = measure_importance(
        model, batches, settings.score, settings.layer_score, checkpoint
    )
    ordering = Ordering.from_importance(importance, whole, served.places)
    moments = None
    if settings.rms_rescale or settings.bias_compensation:
        moments = measure_moments(model, batches)
    if settings.layers_after_width and kept_layers is None:
        deep = Cut(checkpoint.config, ordering, replace(architecture, layers=whole.layers))
        every = list(range(whole.layers))
        changes = _changes(checkpoint, deep, every, settings, moments)
        narrow: Any = cut_student(checkpoint, deep.architecture, every, ordering, changes)
        narrow = narrow.to(device=input_device(model), dtype=model.dtype)
        scores = layer_importance(narrow, batches, settings.layer_score)
        ordering = ordering.with_layers(*scores)
    kept = ordering.kept_layers(architecture.layers) if kept_layers is None else kept_layers
    cut = Cut(checkpoint.config, ordering, architecture)
    changes = _changes(checkpoint, cut, kept, settings, moments)
    write_student(checkpoint, architecture, kept, Path(output), ordering, changes)
    return Pruned(importance, ordering, kept)


def _changes(
    teacher: Checkpoint,
    cut: Cut,
    kept: list[int],
    settings: PruneSettings,
    moments: Moments | None,
) -> Changes:
    changes = NO_CHANGES
    if settings.head_merge:
        changes = changes | head_merge(teacher, cut, kept)
    if settings.rms_rescale and moments:
        changes = changes | rms_rescale(cut, kept, moments.energies)
    if settings.bias_compensation and moments:
        changes = changes | bias_compensation(teacher, cut, kept, moments)
    return changes
