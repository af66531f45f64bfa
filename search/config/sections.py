"""Sections of the configuration of a study. The docstring of a field is its `--help`."""

import math
from dataclasses import dataclass, field

from common.bounds import (
    FRACTION,
    NOT_NEGATIVE,
    ONE_OR_MORE,
    Bound,
    at_least,
    between,
    bounded,
    check_bounds,
    one_of,
)
from common.errors import require
from pruning import PruneSettings
from pruning.importance import (
    DEFAULT_EXPERT_SCORE,
    DEFAULT_LAYER_SCORE,
    DEFAULT_SCORE,
    DEFAULT_SSM_SCORE,
    EXPERT_SCORES,
    LAYER_SCORES,
    SCORES,
)
from search.config.names import HALVING, STOPPERS
from search.config.plugins import is_import_path
from workspace.settings import MOST_REPORTS

MEMORY = Bound("be above 0", lambda value: 0 < value < math.inf)
SHARE = Bound("be in (0, 1]", lambda value: 0 < value <= 1)


@dataclass(frozen=True)
class ImportanceConfig:
    """What decides which channels, heads, neurons, experts and layers a student keeps."""

    score: str = bounded(DEFAULT_SCORE, one_of(SCORES))
    """Score of heads, neurons and channels, such as variance-norm, l2-mean or taylor."""
    layers: str = bounded(DEFAULT_LAYER_SCORE, one_of(LAYER_SCORES))
    """Score of layers: kl, loss, logit-mse, block-influence or span."""
    rms_rescale: bool = True
    """Give every norm of a student the size that it has in the teacher."""
    ssm_score: str = bounded(DEFAULT_SSM_SCORE, one_of(SCORES))
    """Score of the heads, channels and state of recurrent layers (Mamba-2, gated delta net), of the
    channels as they enter the state."""
    experts: str = bounded(DEFAULT_EXPERT_SCORE, one_of(EXPERT_SCORES))
    """Score of the experts of a mixture: reap, the mean norm of an expert's output over its tokens,
    times the router's weight (arXiv 2510.13999), or output-norm, without that weight."""
    least_layers: dict[str, int] = field(default_factory=dict)
    """Layers that stay at least, by a part that they have (attention, ssm, ffn or experts), of a
    teacher whose layers differ in kind: each kind keeps its share, and this many. One with
    attention stays always."""

    def __post_init__(self) -> None:
        check_bounds(self, "--importance.")
        self.settings.check_floors("--importance.least_layers")

    @property
    def settings(self) -> PruneSettings:
        """The same as settings of a cut."""
        return PruneSettings(
            self.score,
            self.layers,
            rms_rescale=self.rms_rescale,
            ssm_score=self.ssm_score,
            expert_score=self.experts,
            least_layers=self.least_layers,
        )


@dataclass(frozen=True)
class ResourceConfig:
    """What runs at once."""

    concurrent: int | None = bounded(None, ONE_OR_MORE)
    """Trials at once; by default as many as CPUs, memory and, with a GPU, GPUs allow."""
    workers: int = bounded(1, ONE_OR_MORE)
    """Processes that train one trial together, on one node, its state in shards (torch FSDP2): for
    students that one GPU does not hold."""
    cpus: int = bounded(1, ONE_OR_MORE)
    """CPUs, and so threads, of each process."""
    gpus: float | None = bounded(None, NOT_NEGATIVE)
    """GPUs of each process, a fraction allowed where it is a trial's only one; by default 1 on cuda
    and 0 on cpu."""
    memory_gb: float | None = bounded(None, MEMORY)
    """Memory of each process in GB, of the GPU on cuda; by default an estimate from the largest
    student of the space, the sequences of a forward pass and the vocabulary."""

    def __post_init__(self) -> None:
        check_bounds(self, "--resources.")


@dataclass(frozen=True)
class PlannedMachine:
    """Machine that --plan is for, where it is not this one. Nothing but a plan reads it."""

    memory_gb: float | None = bounded(None, MEMORY)
    """Free memory of one of its GPUs in GB, or on cpu of the machine; by default what is free on
    this machine."""
    devices: int = bounded(1, ONE_OR_MORE)
    """GPUs that it has, with --plan_for.memory_gb."""
    cpus: int | None = bounded(None, ONE_OR_MORE)
    """CPUs that it has; by default those of this machine, or beside GPUs as many as runs want."""
    tflops: float | None = bounded(None, MEMORY)
    """TFLOP/s that a run comes to there (some 40 % of what a GPU's maker promises of bf16), from
    which times follow; by default a few steps of random weights are measured, where the plan is
    for this machine and the teacher's weights are there."""

    def __post_init__(self) -> None:
        check_bounds(self, "--plan_for.")
        require(
            self.devices == 1 or self.memory_gb is not None,
            f"--plan_for.devices is {self.devices}, but the memory of one is not known; give "
            "--plan_for.memory_gb",
        )


@dataclass(frozen=True)
class FunnelConfig:
    """Scoring of candidates before any training, which leaves out those that will not recover."""

    candidates: int = bounded(0, NOT_NEGATIVE)
    """Candidates to score before any training, at most; 0: none."""
    keep: float = bounded(0.5, SHARE)
    """Share of the space that may be tried after it: the best by that score."""
    sequences: int = bounded(32, at_least(1))
    """Sequences of the selection split to score on, at most."""

    def __post_init__(self) -> None:
        check_bounds(self, "--funnel.")


@dataclass(frozen=True)
class HalvingConfig:
    """Early stopping of trials by comparison on the selection KL at equal tokens."""

    stopper: str = HALVING
    """halving (successive halving), hyperband, none, or the import path of an Optuna pruner
    (package.module:Name), which takes one objective only."""
    first_share: float = bounded(0.125, FRACTION)
    """Share of the short run's tokens at which candidates are first compared."""
    reduction: int = bounded(2, ONE_OR_MORE)
    """Each comparison keeps one in so many, and comes after so many times the tokens; 1: never."""
    reports: int = bounded(1, between(1, MOST_REPORTS))
    """Evaluations per short run, evenly spaced, besides those at the comparisons."""

    @property
    def own_pruner(self) -> bool:
        """Whether the stopper is a pruner that the user names."""
        return self.stopper not in STOPPERS

    def __post_init__(self) -> None:
        require(
            self.stopper in STOPPERS or is_import_path(self.stopper),
            f"--halving.stopper is {self.stopper!r}; it must be one of {', '.join(STOPPERS)}, or "
            "the import path of an Optuna pruner (package.module:Name)",
        )
        check_bounds(self, "--halving.")
