"""Importance of each part of a model, by a named score over calibration text.

Follows Minitron (arXiv 2407.14679): hooks on the model as it is, accumulated in fp32 and fp64 in
memory that does not grow with the number of samples. `pruning.importance.scores` names the scores.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PretrainedConfig

from common.errors import PruningError
from pruning.families.architecture import SSM_AXES
from pruning.families.checkpoint import Checkpoint
from pruning.families.table import family_of
from pruning.families.tensors import save_tensors
from pruning.importance.calibration import layers_of, left_as_found, repeatable, run_over
from pruning.importance.depth import (
    LEFT_OUT_SCORES,
    StreamObserver,
    influence,
    left_out_scores,
    left_out_sums,
    span_costs,
)
from pruning.importance.reductions import Sums
from pruning.importance.scores import (
    DEFAULT_LAYER_SCORE,
    DEFAULT_SCORING,
    Scoring,
    check_expert_score,
    check_layer_score,
    score_named,
)
from pruning.importance.weights import magnitudes, output_norms, output_norms_of
from pruning.importance.width import Observer, width_scores


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
    check_scoring(scoring, weights=checkpoint is not None)
    batches = repeatable(batches)
    sums = width_sums(model, batches, scoring=scoring)
    if scoring.layer_score in LEFT_OUT_SCORES:
        sums |= layer_sums(model, batches, scoring=scoring)
    config: Any = model.config
    return importance_of(sums, config, scoring=scoring, weights=checkpoint or model)


def check_scoring(scoring: Scoring, *, weights: bool) -> None:
    """Raises PruningError for unknown scores, and for those over all `weights` where these are not
    at hand."""
    check_layer_score(scoring.layer_score)
    check_expert_score(scoring.expert_score)
    for name in (scoring.score, scoring.ssm_score):
        if _signal_of(name) == "weight" and not weights:
            raise PruningError(f"the score {name!r} reads all weights; give the model's checkpoint")


def width_sums(model: nn.Module, batches: Iterable[Tensor], *, scoring: Scoring) -> Sums:
    """What the scores of width and of the residual stream come from, of a part of a text."""
    score, ssm_score = score_named(scoring.score), score_named(scoring.ssm_score)
    with left_as_found(model):
        observer = Observer(model, score, ssm_score, expert_score=scoring.expert_score)
        stream = StreamObserver(model, _has_spans(scoring))
        try:
            run_over(model, batches, gradients="gradient" in (score.signal, ssm_score.signal))
        finally:
            observer.close()
            stream.close()
    return observer.sums() | stream.sums()


def layer_sums(model: nn.Module, batches: Iterable[Tensor], *, scoring: Scoring) -> Sums:
    """What a score of layers that are left out comes from, of a part of a text."""
    with left_as_found(model):
        return left_out_sums(model, batches, method=scoring.layer_score)


def importance_of(
    sums: Mapping[str, Tensor],
    config: PretrainedConfig,
    *,
    scoring: Scoring,
    weights: Checkpoint | nn.Module,
) -> Importance:
    """The importance by the sums of all parts of a text.

    Args:
        sums: Those of `width_sums` and, for a score of layers that are left out, of `layer_sums`.
        config: Of the model.
        scoring: What they were measured for.
        weights: The model itself, or its checkpoint, which scores over all weights need.

    Raises:
        PruningError: Scores are not finite.
    """
    family, layer_score = family_of(config), scoring.layer_score
    width, ssm = score_named(scoring.score), score_named(scoring.ssm_score)
    scores = width_scores(config, sums, score=width, ssm_score=ssm)
    left_out = layer_score in LEFT_OUT_SCORES
    scores["layers"] = left_out_scores(sums) if left_out else influence(sums)
    scores["spans"] = span_costs(sums) if _has_spans(scoring) else torch.zeros(0, 0)
    if width.signal != "weight":
        _weighted(scores, weights, scoring=scoring)
    by_weight = [axis for axis in scores if _signal(scoring, axis) == "weight"]
    if by_weight:
        assert isinstance(weights, Checkpoint), "as was checked before anything was measured"
        sizes = magnitudes(weights)
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
            sums = left_out_sums(model, batches, method=layer_score)
            return left_out_scores(sums), none
        if layer_score == "random":
            generator = torch.Generator().manual_seed(seed)
            return torch.rand(len(layers_of(model)), generator=generator), none
        stream = StreamObserver(model, spans=layer_score == "span")
        try:
            run_over(model, batches)
        finally:
            stream.close()
    sums = stream.sums()
    return influence(sums), span_costs(sums) if layer_score == "span" else none


def _has_spans(scoring: Scoring) -> bool:
    return scoring.spans or scoring.layer_score == "span"


def _signal(scoring: Scoring, axis: str) -> str:
    """What an axis of width is scored by. Magnitudes and the random control as the score of all
    axes are those of recurrent parts too."""
    ssm = _signal_of(scoring.ssm_score)
    own = axis in SSM_AXES and ssm in ("weight", "random")
    return ssm if own else _signal_of(scoring.score)


def _signal_of(name: str) -> str:
    return score_named(name).signal


def _weighted(
    scores: dict[str, Tensor], weights: Checkpoint | nn.Module, *, scoring: Scoring
) -> None:
    """Multiply by the norms of the output projections those scores that say so."""
    powers = {
        axis: score_named(scoring.ssm_score if axis in SSM_AXES else scoring.score).weight_power
        for axis in scores
        if scores[axis].numel()  # the model has it
    }
    if not any(powers.values()):
        return
    if isinstance(weights, Checkpoint):
        axis_norms = output_norms(weights)
    else:
        axis_norms = output_norms_of(weights)
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
