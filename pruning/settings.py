"""Settings of a cut: scores, floors and what is done beside slicing."""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from common.errors import PruningError
from pruning.families.architecture import Architecture
from pruning.families.block import PARTS
from pruning.families.kinds import LayerShares
from pruning.importance.scores import (
    DEFAULT_EXPERT_SCORE,
    DEFAULT_LAYER_SCORE,
    DEFAULT_SCORE,
    DEFAULT_SSM_SCORE,
    FREE_LAYER_SCORE,
    Scoring,
)

if TYPE_CHECKING:
    from transformers import PretrainedConfig


@dataclass(frozen=True)
class PruneSettings:
    """How a student is cut."""

    score: str = DEFAULT_SCORE
    """Score of heads, neurons and channels, such as variance-norm, l2-mean or taylor."""
    layer_score: str = DEFAULT_LAYER_SCORE
    """Score of layers: kl, loss, logit-mse, block-influence or span."""
    ssm_score: str = DEFAULT_SSM_SCORE
    """Score of the heads, channels and state of recurrent layers (Mamba-2, gated delta net)."""
    least_layers: dict[str, int] = field(default_factory=dict)
    """Layers that stay at least, by a part that they have, such as attention: 4; of a model whose
    layers differ in kind, which keeps of each kind its share."""
    layers_after_width: bool = False
    """Score the layers again on the student with its width cut, which is held in memory."""
    rms_rescale: bool = True
    """Give every norm the size that it had in the teacher (see `pruning.slicing.compensation`)."""
    head_merge: bool = False
    """Fold dropped heads into kept ones."""
    expert_score: str = DEFAULT_EXPERT_SCORE
    """Score of the experts of a mixture: reap, the norm of their output weighted by the router, or
    output-norm, without that weight."""
    merge_experts: bool = False
    """Merge dropped experts into the kept ones that are most like them instead of leaving them out
    (M-SMoE, arXiv 2310.01334)."""
    bias_compensation: bool = False
    """Keep what dropped heads and neurons add on average, as biases."""

    @property
    def scoring(self) -> Scoring:
        """The scores to measure."""
        return Scoring(
            self.score,
            self.layer_score,
            ssm_score=self.ssm_score,
            expert_score=self.expert_score,
        )

    def measured(self, architecture: Architecture, *, layers: int, chosen: bool) -> "PruneSettings":
        """What is measured for a student of a teacher with `layers`: where these all stay, or are
        `chosen`, no score of layers that takes passes of its own."""
        if architecture.layers < layers and not chosen:
            return self
        return replace(self, layer_score=FREE_LAYER_SCORE, layers_after_width=False)

    @property
    def shares(self) -> LayerShares:
        """How many layers of each kind stay."""
        return LayerShares(self.least_layers)

    def check_floors(self, option: str) -> None:
        """Raises PruningError for a floor of `option` that names no part, or a number below 0."""
        for part, least in self.least_layers.items():
            if part not in PARTS or least < 0:
                raise PruningError(
                    f"{option} has {part}: {least}; a part is one of {', '.join(PARTS)}, and the "
                    "number at least 0"
                )

    @property
    def of_uniform(self) -> list[str]:
        """Options that are on and that only students whose layers are all alike are cut with."""
        options = ("layers_after_width", "head_merge", "merge_experts", "bias_compensation")
        return [name for name in options if getattr(self, name)]

    def check(self, config: "PretrainedConfig", architecture: Architecture) -> None:
        """Raises PruningError for options that students of these sizes are not cut with."""
        from pruning.families.shapes import architecture_of
        from pruning.slicing.compensation import check_options
        from pruning.slicing.merging import check_merge

        check_options(config, merge=self.head_merge, compensate=self.bias_compensation)
        if architecture.per_layer and self.of_uniform:
            raise PruningError(
                f"{', '.join(self.of_uniform)} only for layers that are all alike; "
                f"{architecture} is cut without"
            )
        if self.merge_experts:
            check_merge(architecture_of(config), architecture)

    def shape(self, architecture: Architecture) -> Architecture:
        """These sizes with what the layer score says of the layers that go: a span, or any."""
        return replace(architecture, contiguous=int(self.layer_score == "span"))
