"""Settings of students whose layers differ (Puzzle, arXiv 2411.19146)."""

from dataclasses import dataclass, field
from itertools import pairwise

from common.bounds import (
    ABOVE_ZERO,
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

NESTED, SEPARATE = "nested", "separate"
DISTILLATIONS = (NESTED, SEPARATE)
"""How the blocks of the library are trained."""

KL_SCORE, REVERSE_KL, JENSEN_SHANNON = "kl", "reverse-kl", "jensen-shannon"
LOSS_SCORE, COSINE_SCORE = "loss", "cosine"
BLOCK_SCORES = (KL_SCORE, REVERSE_KL, JENSEN_SHANNON, LOSS_SCORE, COSINE_SCORE)
"""Measures of a model with one block replaced."""

RANDOM_BLOCKS, GREEDY_BLOCKS, NO_OPS, MOST_PARAMETERS = "random", "greedy", "no-ops", "largest"
CONTROLS = (RANDOM_BLOCKS, GREEDY_BLOCKS, NO_OPS, MOST_PARAMETERS)
"""What the solutions of the programme are held against."""

SHARE_OF_LAYERS = Bound("be in [0, 1]", lambda value: 0 <= value <= 1)
SMALL_SHARE = Bound("be in [0, 1)", lambda value: 0 <= value < 1)
LONGEST_SOLVE = 24 * 3600


@dataclass(frozen=True)
class PerLayerConfig:
    """Blocks that a layer may have, how they learn, and how they are combined."""

    ffn_shares: list[float] = field(default_factory=lambda: [1.0, 0.75, 0.5, 0.25, 0.0])
    """FFN widths of a layer as shares of the teacher's, the largest first; 0: no FFN. The teacher's
    own is always among the choices, here and below."""
    kv_heads: list[int] | None = None
    """Key-value heads of a layer, the most first; 0: no attention. By default the teacher's, halved
    as often as they can be, and 0."""
    group_heads: list[int] | None = None
    """Query heads that a key-value head serves; by default as many as in the teacher alone."""
    windows: bool = True
    """Whether a layer with full attention may have the model's sliding window instead, with all its
    heads, where the model type has one and --block is longer."""
    expert_shares: list[float] = field(default_factory=lambda: [1.0, 0.75, 0.5, 0.25, 0.0])
    """Experts of a layer that is a mixture, likewise as shares, never fewer than a token uses; 0:
    none at all."""
    multiple_of: int | None = bounded(None, ONE_OR_MORE)
    """What FFN widths are rounded to multiples of; by default the largest power of two that divides
    the teacher's, at most an eighth of it, and at most 256."""
    tokens: int = bounded(500_000, NOT_NEGATIVE)
    """Training tokens of the block-wise distillation of the library; 0: blocks stay as they are cut
    out of the sorted teacher."""
    distillation: str = bounded(NESTED, one_of(DISTILLATIONS))
    """nested (one run trains all sizes, a drawn one in each step) or separate (each size of each
    sub-block in a run of its own, with equal shares of --per_layer.tokens and a library for each on
    the disk)."""
    learning_rate: float | None = bounded(None, ABOVE_ZERO)
    """Peak learning rate of the blocks; by default that of block-wise distillation for the
    teacher's size."""
    batch: int | None = bounded(None, ONE_OR_MORE)
    """Sequences per optimiser step of the blocks; by default what gives 400 steps, at most 64."""
    plateau: float = bounded(0.01, SMALL_SHARE)
    """A layer stops learning when the errors of its sizes fell by less than this share within three
    tenths of the tokens, from the middle on; 0: never."""
    sequences: int = bounded(32, at_least(1))
    """Sequences of the selection split that blocks are scored on, at most."""
    score: str = bounded(KL_SCORE, one_of(BLOCK_SCORES))
    """Score of a block, which takes the place of the teacher's own: kl (of its answers),
    reverse-kl, jensen-shannon, loss (on the text) or cosine (of the last hidden state)."""
    depths: int = bounded(3, between(1, 1000))
    """Depths that the programme is solved for, at most: of --space.layers, from the deepest on,
    evenly spread over those that meet the budget."""
    solutions: int = bounded(4, between(1, 100))
    """Solutions of the programme for each depth; as many of them all become trials: the best by the
    KL before training."""
    distance: float = bounded(0.2, SHARE_OF_LAYERS)
    """Least share of the layers that two solutions differ in."""
    gap: float = bounded(1e-3, SMALL_SHARE)
    """Relative gap to the optimum at which a solution is taken."""
    time_limit: float = bounded(60.0, between(1, LONGEST_SOLVE))
    """Seconds for one solution; the best found so far is taken then, and it is said."""
    controls: list[str] = field(default_factory=lambda: list(CONTROLS))
    """What the solutions are held against, as trials of the same budget: random (blocks at random),
    greedy (score by saved cost), no-ops (whole sub-blocks only) and largest (most parameters)."""
    rounds: int = bounded(1, between(1, 10))
    """Rounds of scores and solutions; from the second on blocks are scored in the best student so
    far instead of the teacher."""

    def __post_init__(self) -> None:
        check_bounds(self, "--per_layer.")
        for name in ("ffn_shares", "expert_shares"):
            shares: list[float] = getattr(self, name)
            require(
                bool(shares) and all(0 <= share <= 1 for share in shares),
                f"--per_layer.{name} is {_shown(shares)}; give shares from 0 to 1",
            )
            _require_falling(name, shares)
        for name, least in (("kv_heads", 0), ("group_heads", 1)):
            heads: list[int] | None = getattr(self, name)
            if heads is not None:
                require(
                    bool(heads) and min(heads) >= least,
                    f"--per_layer.{name} is {_shown(heads)}; give numbers from {least} on",
                )
                _require_falling(name, heads)
        for control in self.controls:
            require(
                control in CONTROLS,
                f"--per_layer.controls has {control!r}; it must be one of {', '.join(CONTROLS)}",
            )
        require(
            len(set(self.controls)) == len(self.controls),
            f"--per_layer.controls is {' '.join(self.controls)}; give each once",
        )


def _require_falling(name: str, sizes: "list[float] | list[int]") -> None:
    require(
        all(larger > smaller for larger, smaller in pairwise(sizes)),
        f"--per_layer.{name} is {_shown(sizes)}; give each once, the largest first",
    )


def _shown(sizes: "list[float] | list[int]") -> str:
    return " ".join(f"{size:g}" for size in sizes) or "empty"
