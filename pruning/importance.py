"""How much each part of a model matters, by a named score over calibration text.

Follows Minitron (arXiv 2407.14679): hooks on the model as it is, accumulated in fp32 and fp64 in
memory that does not grow with the number of samples. `pruning.scores` names the scores.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from pruning.checkpoint import Checkpoint
from pruning.errors import PruningError
from pruning.families import family_of
from pruning.layer_scores import (
    LEFT_OUT_SCORES,
    StreamObserver,
    at_once,
    input_device,
    left_out_scores,
)
from pruning.observer import Observer, layers_of
from pruning.saving import save_tensors
from pruning.scores import (
    DEFAULT_LAYER_SCORE,
    DEFAULT_SCORE,
    Score,
    check_layer_score,
    score_named,
)
from pruning.weight_scores import magnitudes, output_norms, output_norms_of


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
    spans: Tensor = field(default_factory=lambda: torch.zeros(0, 0))
    """[length, first], the cost of dropping that many layers from there; empty if ranks decide."""

    def save(self, path: Path) -> None:
        save_tensors({f.name: getattr(self, f.name) for f in fields(self)}, path)

    @classmethod
    def load(cls, path: Path) -> "Importance":
        return cls(**load_file(path))


def measure_importance(
    model: nn.Module,
    batches: Iterable[Tensor],
    score: str = DEFAULT_SCORE,
    layer_score: str = DEFAULT_LAYER_SCORE,
    checkpoint: Checkpoint | None = None,
    seed: int = 0,
    spans: bool = False,
) -> Importance:
    """Score every axis of a Hugging Face causal LM on `batches` of token ids [batch, sequence].

    `score` and `layer_score` are names of `SCORES` and `LAYER_SCORES`. The magnitude, and scores
    with weight norms of a model that is partly on disk, need the model's `checkpoint`. A model
    loaded with `device_map="auto"` works too. `seed` is of the random control. `spans` asks for the
    costs of contiguous layers beside any layer score. Raises PruningError
    for an unsupported model type, for no batches, and for scores that are not finite (the model's
    weights or its precision are broken then).
    """
    family_of(model.config)  # type: ignore[arg-type]
    how = score_named(score)
    check_layer_score(layer_score)
    batches = repeatable(batches)
    if how.signal == "weight" and checkpoint is None:
        raise PruningError(f"the score {score!r} reads all weights; give the model's checkpoint")
    with left_as_found(model):
        scores = _width_and_stream(model, batches, how, spans or layer_score == "span")
        if layer_score in LEFT_OUT_SCORES:
            scores["layers"] = left_out_scores(model, batches, layer_score)
    if how.signal == "weight" and checkpoint is not None:
        stream = {axis: scores[axis] for axis in ("layers", "spans")}
        scores = magnitudes(checkpoint) | stream
    elif how.weight_power:
        every = output_norms(checkpoint) if checkpoint else output_norms_of(model)
        for axis, norms in every.items():
            scores[axis] = scores[axis] * norms**how.weight_power
    generator = torch.Generator().manual_seed(seed)
    for axis in scores:
        random = layer_score if axis == "layers" else how.signal
        if random == "random" and axis != "spans":
            scores[axis] = torch.rand(scores[axis].shape, generator=generator)
    _require_finite(scores)
    return Importance(**scores)


def repeatable(batches: Iterable[Tensor]) -> Iterable[Tensor]:
    """The same batches for several passes; token ids are small enough to be kept."""
    return list(batches) if isinstance(batches, Iterator) else batches


def layer_importance(
    model: nn.Module,
    batches: Iterable[Tensor],
    layer_score: str = DEFAULT_LAYER_SCORE,
    seed: int = 0,
) -> tuple[Tensor, Tensor]:
    """Scores [layers] and span costs [length, first] of the layers alone, as in `Importance`.

    Of a width-cut student, to choose its depth after.
    """
    check_layer_score(layer_score)
    none = torch.zeros(0, 0)
    with left_as_found(model):
        if layer_score in LEFT_OUT_SCORES:
            return left_out_scores(model, batches, layer_score), none
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
    model: nn.Module, batches: Iterable[Tensor], score: Score, spans: bool
) -> dict[str, Tensor]:
    observer, stream = Observer(model, score), StreamObserver(model, spans)
    try:
        run_over(model, batches, gradients=score.signal == "gradient")
    finally:
        observer.close()
        stream.close()
    return {
        **observer.scores(),
        "layers": stream.influence(),
        "spans": stream.span_costs() if spans else torch.zeros(0, 0),
    }


def run_over(model: nn.Module, batches: Iterable[Tensor], gradients: bool = False) -> None:
    """Forward passes and, for scores that need them, backward ones of the summed loss.

    Raises PruningError for no batches.
    """
    backbone: Any = model.base_model
    device = input_device(model)
    seen = False
    with torch.set_grad_enabled(gradients):
        for batch in batches:
            seen = True
            ids = batch.to(device)
            if not gradients:
                backbone(input_ids=ids, use_cache=False)
                continue
            for few in ids.split(at_once(model, ids.shape[1])):
                _backward(model, few)
    if not seen:
        raise PruningError("no calibration sequences: importance needs at least one batch")


def _backward(model: nn.Module, ids: Tensor) -> None:
    """Gradients of the summed loss on [batch, sequence], at every activation."""
    embed: Any = model.get_input_embeddings()  # type: ignore[operator]
    embedded = embed(ids).detach().requires_grad_()
    logits = model(inputs_embeds=embedded, use_cache=False).logits
    following = ids[:, 1:].flatten().to(logits.device)
    flat = logits[:, :-1].flatten(0, 1).float()
    nn.functional.cross_entropy(flat, following, reduction="sum").backward()


@contextmanager
def left_as_found(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and frozen weights for a while."""
    modes = {module: module.training for module in model.modules()}
    frozen = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.eval()
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        for parameter in frozen:
            parameter.requires_grad_(True)


def _require_finite(scores: dict[str, Tensor]) -> None:
    for axis, values in scores.items():
        if axis != "spans" and not torch.isfinite(values).all():
            raise PruningError(
                f"the {axis} scores are not finite: the model's activations overflow; "
                "check its weights, or load it in fp32"
            )
