"""Scores of heads, neurons, channels and layers, by name."""

from dataclasses import dataclass

from common.errors import PruningError

REDUCTIONS = ("mean", "l2", "variance")
"""Of activations over a sequence, and over samples."""


@dataclass(frozen=True)
class Score:
    """How a unit of width is scored."""

    signal: str = "activation"
    """What is scored: "activation", "gradient" (activation times its gradient), "weight" or
    "random"."""
    batch: str = "l2"
    """Reduction over samples: mean, l2 or variance."""
    sequence: str = "mean"
    """Reduction over the sequence, before: mean, l2 or variance."""
    weight_power: int = 0
    """Activations are multiplied by the norm of the output projection's column to this power."""


DEFAULT_SCORE = "variance-norm"

SCORES: dict[str, Score] = {
    # Minitron (arXiv 2407.14679): activations over batch and sequence, each reduced in its way.
    **{f"{b}-{s}": Score(batch=b, sequence=s) for b in REDUCTIONS for s in REDUCTIONS},
    # Puzzle (arXiv 2411.19146): |activation| times the norm of the down-projection's column.
    "activation-norm": Score(batch="mean", sequence="mean", weight_power=1),
    # FLAP (arXiv 2312.11983): variance times the squared norm.
    "variance-norm": Score(batch="mean", sequence="variance", weight_power=2),
    # First-order Taylor (arXiv 1906.10771): the change of the loss when the unit is left out.
    "taylor": Score(signal="gradient", batch="mean"),
    "magnitude": Score(signal="weight"),
    "random": Score(signal="random"),
}
"""Names of width scores; "l2-mean" is L2 over samples of the mean over the sequence. Scores with a
weight norm apply it to heads and neurons; hidden channels, which many projections read, and experts
are scored by the activations alone."""

DEFAULT_SSM_SCORE = DEFAULT_SCORE
"""Minitron-SSM (arXiv 2504.11409) has l2-mean, which left a greater KL after distillation on the
hybrid that it was measured on: docs/hybrids.md."""

OUTPUT_NORM, REAP = "output-norm", "reap"
DEFAULT_EXPERT_SCORE = REAP
EXPERT_SCORES: dict[str, str] = {
    OUTPUT_NORM: "mean L2 norm of an expert's output over the tokens routed to it",
    REAP: "the same of its output times the router's weight (arXiv 2510.13999)",
}

DEFAULT_LAYER_SCORE = "kl"
FREE_LAYER_SCORE = "block-influence"
"""Of the pass that scores the widths, without one more."""

LAYER_SCORES: dict[str, str] = {
    FREE_LAYER_SCORE: "1 - the cosine between a layer's input and output (arXiv 2403.03853)",
    "logit-mse": "squared change of the logits when the layer is left out",
    "loss": "rise of the cross-entropy when the layer is left out",
    "kl": "KL from the whole model when the layer is left out",
    "span": "the contiguous layers whose input and output are most alike go (arXiv 2403.17887)",
    "random": "the control",
}


@dataclass(frozen=True)
class Scoring:
    """Which scores to measure."""

    score: str = DEFAULT_SCORE
    """Of heads, neurons and channels: one of `SCORES`."""
    layer_score: str = DEFAULT_LAYER_SCORE
    """Of layers: one of `LAYER_SCORES`."""
    spans: bool = False
    """Whether contiguous layers are scored beside any layer score."""
    seed: int = 0
    """Seeds the `random` scores."""
    ssm_score: str = DEFAULT_SSM_SCORE
    """Of the parts of recurrent layers: one of `SCORES`, of the channels as they enter the state;
    with `score` "magnitude" or "random" that."""
    expert_score: str = DEFAULT_EXPERT_SCORE
    """Of the experts of a mixture: one of `EXPERT_SCORES`; a width score over weights, or the
    random one, is theirs too."""


DEFAULT_SCORING = Scoring()


def score_named(name: str) -> Score:
    """The width score of this name. Raises PruningError for an unknown one."""
    if name not in SCORES:
        raise PruningError(f"no score is called {name!r}; known scores: {', '.join(SCORES)}")
    return SCORES[name]


def check_expert_score(name: str) -> None:
    """Raises PruningError for an unknown name."""
    if name not in EXPERT_SCORES:
        known = ", ".join(EXPERT_SCORES)
        raise PruningError(f"no expert score is called {name!r}; known expert scores: {known}")


def check_layer_score(name: str) -> None:
    """Raises PruningError for an unknown name."""
    if name not in LAYER_SCORES:
        known = ", ".join(LAYER_SCORES)
        raise PruningError(f"no layer score is called {name!r}; known layer scores: {known}")
