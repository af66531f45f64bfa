"""Importance of each part of a model, by a named score over calibration text.

Follows Minitron (arXiv 2407.14679): hooks on the model as it is, accumulated in fp32 and fp64 in
memory that does not grow with the number of samples. `pruning.importance.scores` names the scores.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from common.errors import PruningError
from pruning.families.architecture import SSM_AXES
from pruning.families.checkpoint import Checkpoint
from pruning.families.table import family_of
from pruning.families.tensors import save_tensors
from pruning.importance.calibration import layers_of, left_as_found, repeatable, run_over
from pruning.importance.depth import LEFT_OUT_SCORES, StreamObserver, left_out_scores
from pruning.importance.scores import (
    DEFAULT_LAYER_SCORE,
    DEFAULT_SCORING,
    Scoring,
    check_expert_score,
    check_layer_score,
    score_named,
)
from pruning.importance.weights import magnitudes, output_norms, output_norms_of
from pruning.importance.width import Observer


@dataclass(frozen=True)
class Importance:
    """Scores in fp32, higher is more important."""

    hidden: Tensor
    """[hidden], summed over the places where layers read the residual stream."""
    heads: Tensor
    """[layers, heads], query heads."""
    ffn: Tensor
    """[layers, ffn]; zeros in a mixture-of-experts layer."""
    layers: Tensor
    """[layers]."""
    experts: Tensor = field(default_factory=lambda: torch.zeros(0, 0))
    """[layers, experts]."""
    expert_ffn: Tensor = field(default_factory=lambda: torch.zeros(0, 0, 0))
    """[layers, experts, expert_ffn]."""
    shared_ffn: Tensor = field(default_factory=lambda: torch.zeros(0, 0))
    """[layers, shared_ffn]; as all further ones zeros in layers without."""
    expert_latent: Tensor = field(default_factory=lambda: torch.zeros(0, 0))
    """[layers, expert_latent]."""
    ssm_heads: Tensor = field(default_factory=lambda: torch.zeros(0, 0))
    """[layers, ssm_heads]."""
    ssm_head_dim: Tensor = field(default_factory=lambda: torch.zeros(0, 0, 0))
    """[layers, ssm_heads, ssm_head_dim]."""
    ssm_state: Tensor = field(default_factory=lambda: torch.zeros(0, 0, 0))
    """[layers, ssm_groups, ssm_state]."""
    spans: Tensor = field(default_factory=lambda: torch.zeros(0, 0))
    """[length, first], the cost of dropping that many layers from there; empty if ranks decide."""

    def save(self, path: Path) -> None:
        """Write the scores to a safetensors file."""
        save_tensors({f.name: getattr(self, f.name) for f in fields(self)}, path)

    @classmethod
    def load(cls, path: Path) -> "Importance":
        """The scores in a file that `save` wrote."""
        return cls(**load_file(path))


def measure_importance(
    model: nn.Module,
    batches: Iterable[Tensor],
    *,
    scoring: Scoring = DEFAULT_SCORING,
    checkpoint: Checkpoint | None = None,
) -> Importance:
    """Score every axis of a Hugging Face causal LM.

    Args:
        model: A causal LM; one loaded with `device_map="auto"` works too.
        batches: Token ids [batch, sequence].
        scoring: Which scores to measure.
        checkpoint: The model's own. The magnitude, and scores with weight norms of a model that is
            partly on disk, need it.

    Raises:
        PruningError: The model type is not supported, there are no batches, or scores are not
            finite (the model's weights or its precision are broken then).
    """
    family = family_of(model.config)  # type: ignore[arg-type]
    width, layer_score = score_named(scoring.score), scoring.layer_score
    check_layer_score(layer_score)
    check_expert_score(scoring.expert_score)
    batches = repeatable(batches)
    weighed = [name for name in (scoring.score, scoring.ssm_score) if _signal_of(name) == "weight"]
    if weighed and checkpoint is None:
        raise PruningError(
            f"the score {weighed[0]!r} reads all weights; give the model's checkpoint"
        )
    with left_as_found(model):
        spans = scoring.spans or layer_score == "span"
        scores = _width_and_stream(model, batches, scoring=scoring, spans=spans)
        if layer_score in LEFT_OUT_SCORES:
            scores["layers"] = left_out_scores(model, batches, method=layer_score)
    if width.signal != "weight":
        _weighted(scores, model, checkpoint, scoring=scoring)
    if weighed and checkpoint is not None:
        sizes = magnitudes(checkpoint)
        by_weight = [axis for axis in scores if _signal(scoring, axis) == "weight"]
        scores |= {axis: sizes[axis] for axis in by_weight if axis not in ("layers", "spans")}
    generator = torch.Generator().manual_seed(scoring.seed)
    for axis in scores:
        random = layer_score if axis == "layers" else _signal(scoring, axis)
        if random == "random" and axis != "spans":
            scores[axis] = torch.rand(scores[axis].shape, generator=generator)
    if family.shared_channels:
        channels = scores["ssm_head_dim"]
        scores["ssm_head_dim"] = channels.mean(1, keepdim=True).expand_as(channels).contiguous()
    _require_finite(scores)
    for axis in family.unsorted:  # equal scores keep the model's order
        scores[axis] = torch.zeros_like(scores[axis]) if axis in scores else torch.zeros(0)
    scores.pop("kv_heads", None)
    return Importance(**scores)


def layer_importance(
    model: nn.Module,
    batches: Iterable[Tensor],
    *,
    layer_score: str = DEFAULT_LAYER_SCORE,
    seed: int = 0,
) -> tuple[Tensor, Tensor]:
    """Scores [layers] and span costs [length, first] of the layers alone, as in `Importance`.

    Of a width-cut student, to choose its depth after.

    Args:
        model: A causal LM.
        batches: Token ids [batch, sequence].
        layer_score: One of `LAYER_SCORES`.
        seed: Seeds the `random` score.

    Raises:
        PruningError: There is no such score, or there are no batches.
    """
    check_layer_score(layer_score)
    none = torch.zeros(0, 0)
    with left_as_found(model):
        if layer_score in LEFT_OUT_SCORES:
            return left_out_scores(model, batches, method=layer_score), none
        if layer_score == "random":
            generator = torch.Generator().manual_seed(seed)
            return torch.rand(len(layers_of(model)), generator=generator), none
        stream = StreamObserver(model, spans=layer_score == "span")
        try:
            run_over(model, batches)
        finally:
            stream.close()
    return stream.influence(), stream.span_costs() if layer_score == "span" else none


def _width_and_stream(
    model: nn.Module, batches: Iterable[Tensor], *, scoring: Scoring, spans: bool
) -> dict[str, Tensor]:
    score, ssm_score = score_named(scoring.score), score_named(scoring.ssm_score)
    observer = Observer(model, score, ssm_score, expert_score=scoring.expert_score)
    stream = StreamObserver(model, spans)
    try:
        run_over(model, batches, gradients="gradient" in (score.signal, ssm_score.signal))
    finally:
        observer.close()
        stream.close()
    return {
        **observer.scores(),
        "layers": stream.influence(),
        "spans": stream.span_costs() if spans else torch.zeros(0, 0),
    }


def _signal(scoring: Scoring, axis: str) -> str:
    """What an axis of width is scored by. Magnitudes and the random control as the score of all
    axes are those of recurrent parts too."""
    ssm = _signal_of(scoring.ssm_score)
    own = axis in SSM_AXES and ssm in ("weight", "random")
    return ssm if own else _signal_of(scoring.score)


def _signal_of(name: str) -> str:
    return score_named(name).signal


def _weighted(
    scores: dict[str, Tensor],
    model: nn.Module,
    checkpoint: Checkpoint | None,
    *,
    scoring: Scoring,
) -> None:
    """Multiply by the norms of the output projections those scores that say so."""
    powers = {
        axis: score_named(scoring.ssm_score if axis in SSM_AXES else scoring.score).weight_power
        for axis in scores
        if scores[axis].numel()  # the model has it
    }
    if not any(powers.values()):
        return
    axis_norms = output_norms(checkpoint) if checkpoint else output_norms_of(model)
    for axis, norms in axis_norms.items():
        if powers.get(axis):
            scores[axis] = scores[axis] * norms ** powers[axis]


def _require_finite(scores: dict[str, Tensor]) -> None:
    for axis, values in scores.items():
        if axis != "spans" and not torch.isfinite(values).all():
            raise PruningError(
                f"the {axis} scores are not finite: the model's activations overflow; "
                "check its weights, or load it in fp32"
            )
