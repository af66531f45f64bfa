"""Settings of the space: sizes per axis, and their multiples."""

from dataclasses import dataclass, field

from common.errors import require
from pruning import ATTENTION, FFN
from pruning.families import WIDTHS

CHANNEL_AXES = ("hidden", "ffn", "expert_ffn")
"""Axes of single channels, which kernels and quantised formats take in blocks."""
SUB_BLOCKS = (ATTENTION, FFN)


@dataclass(frozen=True)
class SpaceConfig:
    """Choices per axis: a list of sizes, or [min, max, step] (three numbers, step <= max)."""

    layers: list[int] | None = None
    """Depths; by default every depth from a third of the teacher's."""
    hidden: list[int] | None = None
    """Hidden sizes; by default from a third of the teacher's, in about 24 steps."""
    heads: list[int] | None = None
    """Query heads; by default every multiple of the KV heads."""
    kv_heads: list[int] | None = None
    """Key-value heads; by default those of the teacher."""
    ffn: list[int] | None = None
    """FFN sizes; by default from a quarter of the teacher's, in steps of at most a 32nd of it."""
    experts: list[int] | None = None
    """Experts of a mixture of experts; by default in eighths of the teacher's."""
    expert_ffn: list[int] | None = None
    """FFN sizes of an expert; by default as for the FFN."""
    experts_per_token: list[int] | None = None
    """Experts that a token is sent to; by default as many as in the teacher."""
    shared_ffn: list[int] | None = None
    """FFN sizes of the shared experts; by default as for the FFN."""
    expert_latent: list[int] | None = None
    """Channels of the latent space of the experts; by default those of the teacher."""
    ssm_heads: list[int] | None = None
    """Heads of layers with a recurrent state (Mamba-2, gated delta net); by default every multiple
    of their groups, from half of the teacher's."""
    ssm_head_dim: list[int] | None = None
    """Channels of each of these heads; by default those of the teacher."""
    ssm_groups: list[int] | None = None
    """Groups of these heads; by default those of the teacher."""
    ssm_state: list[int] | None = None
    """Channels of the state of each of these heads; by default those of the teacher."""
    multiple_of: int | dict[str, int] | None = None
    """What default sizes are multiples of, and given ones must be: one number for hidden size, FFN
    and expert FFN, or one per axis, as in --space.multiple_of.ffn 256. By default a power of two;
    on a GPU at least 64 where that divides the teacher's size and leaves eight choices."""
    per_layer: list[str] = field(default_factory=list)
    """Sub-blocks that may have other sizes in every layer, or be left out: any of attention and ffn
    (in a mixture, its experts); see --per_layer. The students among them keep the teacher's hidden
    size, and have the depths of --space.layers."""
    layer_choice: list[str] | None = None
    """Which layers a shallower student keeps: ranked (the most important), span (all but one
    contiguous span), or both, and the search chooses; by default ranked. Of a teacher whose layers
    differ in kind always kinds: of each kind its share, the most important ones (see
    --importance.least_layers)."""

    @property
    def multiples(self) -> dict[str, int]:
        """What sizes are to be multiples of, by axis."""
        given = self.multiple_of
        if given is None:
            return {}
        return given if isinstance(given, dict) else dict.fromkeys(CHANNEL_AXES, given)

    def __post_init__(self) -> None:
        require(
            len(set(self.per_layer)) == len(self.per_layer),
            f"--space.per_layer has {' '.join(self.per_layer)}; each sub-block may be there once",
        )
        for name in self.per_layer:
            require(
                name in SUB_BLOCKS,
                f"--space.per_layer has {name!r}; it must be any of {' and '.join(SUB_BLOCKS)}",
            )
        for axis, multiple in self.multiples.items():
            require(
                axis in WIDTHS,
                f"--space.multiple_of names {axis!r}; it must be one of {', '.join(WIDTHS)}",
            )
            require(
                multiple >= 1,
                f"--space.multiple_of has {multiple} for {axis}; it must be at least 1",
            )
