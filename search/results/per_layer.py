"""Results of a study whose students may have other sizes in every layer; keys of results.json."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from statistics import mean

from common.intervals import Interval
from pruning import Architecture, Block
from pruning.families import text_of_blocks
from search.results.stored import StoredArchitecture
from search.statistics.rank_correlation import RankCorrelation

COMBINATIONS_HEADER = [
    "combination",
    "architecture",
    "summed score",
    "gap",
    "layers apart",
    "KL before training",
    "selection KL",
    "tokens",
]
LAYERS_HEADER = ["layers", "attention", "FFN"]
BLOCKS_HEADER = ["sub-block", "layers", "error before", "error after", "used in", "tokens"]


@dataclass(frozen=True, kw_only=True)
class CombinationResult:
    """A combination of blocks that the programme, or a control, chose."""

    architecture: StoredArchitecture
    """Its sizes."""
    name: str | None
    """Of its trial, such as "per-layer 1"; None of one that did not become a trial."""
    control: str | None
    """Name of the control; None of a solution of the programme."""
    round: int
    """Of scores and solutions, from 1."""
    score: float
    """Sum of the scores of its blocks, which the programme minimises."""
    proven: bool
    """Whether it is the optimum within the gap asked for."""
    gap: float | None
    """Relative gap to the optimum that is left; None where no bound is known."""
    distance: int | None
    """Fewest layers in which it differs from a solution of its depth; None where there is no
    other."""
    zero_shot: float | None
    """KL before training, nats per token; None where it is not finite."""
    trial: int | None = None
    """Number of its trial."""
    tokens: int | None = None
    """That the trial was trained on; fewer than a short run's where it was stopped early."""
    kl: float | None = None
    """Selection KL after them."""

    @property
    def shown(self) -> str:
        """What it is called in tables."""
        return self.name or f"solution of depth {self.architecture.layers}"


@dataclass(frozen=True)
class BlockLoss:
    """Error of one size of a sub-block in the library, relative to leaving it out."""

    layer: int
    """Of the teacher, counted from 0."""
    block: str
    """The size, as it is written in an architecture."""
    before: float
    """Before block-wise distillation."""
    after: float
    """After it."""
    tokens: int
    """That the layer was trained on."""
    used: bool
    """Whether students take what was trained; else it came no closer to the teacher."""


@dataclass(frozen=True)
class KindsCompared:
    """The best student whose layers differ against the best whose layers are alike."""

    per_layer: int
    """Place of the first among the winners, from 0."""
    uniform: int
    """Place of the second."""
    difference: Interval
    """Test KL of the first minus that of the second after full distillation, paired."""


@dataclass(frozen=True, kw_only=True)
class PerLayerResult:
    """Everything that a study found out about students whose layers differ."""

    sub_blocks: list[str]
    """Those that may differ."""
    combinations: list[CombinationResult]
    """Solutions of the programme by depth, and controls."""
    ended: list[str]
    """Sentences on solutions and controls that there are not."""
    correlations: list[RankCorrelation] = field(default_factory=list)
    """How well summed scores ranked the combinations, and the KL before training."""
    blocks: list[BlockLoss] = field(default_factory=list)
    """Errors of the library's blocks; [] where they were not trained."""
    library: str | None = None
    """Its directory in the workspace; None where blocks were not trained."""
    compared: KindsCompared | None = None
    """None where students of one kind only came through."""


def combination_rows(found: PerLayerResult) -> list[list[str]]:
    """Cells of a table under COMBINATIONS_HEADER: the trials, then the other solutions."""
    ordered = sorted(found.combinations, key=lambda one: one.name is None)
    return [
        [
            one.shown,
            str(one.architecture),
            f"{one.score:.4g}",
            _shown_gap(one),
            "" if one.distance is None else str(one.distance),
            _shown(one.zero_shot),
            _shown(one.kl),
            "" if one.tokens is None else f"{one.tokens:,}",
        ]
        for one in ordered
    ]


def correlation_lines(found: PerLayerResult) -> list[str]:
    """How well cheap scores ranked the combinations."""
    return [
        f"The {pair.predictor} against the {pair.outcome}: Spearman {pair.spearman}, Kendall "
        f"{pair.kendall}, {pair.candidates} combinations."
        for pair in found.correlations
    ]


def layer_rows(architecture: Architecture) -> list[list[str]]:
    """Cells of a table under LAYERS_HEADER: layers in a row that are alike in one."""
    blocks = [architecture.block(index) for index in range(architecture.layers)]
    rows, first = [], 0
    for block, run in groupby(blocks):
        last = first + len(list(run)) - 1
        places = str(first) if first == last else f"{first} to {last}"
        rows.append([places, *_parts(block)])
        first = last + 1
    return rows


def block_rows(losses: Sequence[BlockLoss]) -> list[list[str]]:
    """Cells of a table under BLOCKS_HEADER: means over the layers that have such a block."""
    rows = []
    for name in dict.fromkeys(loss.block for loss in losses):
        own = [loss for loss in losses if loss.block == name]
        tokens = sorted({loss.tokens for loss in own})
        shown = " to ".join(f"{count:,}" for count in dict.fromkeys([tokens[0], tokens[-1]]))
        means = (mean(loss.before for loss in own), mean(loss.after for loss in own))
        used = str(sum(loss.used for loss in own))
        rows.append([name, str(len(own)), *map(_shown, means), used, shown])
    return rows


def _parts(block: Block) -> list[str]:
    """Attention and FFN of a layer in words."""
    attention, _, ffn = text_of_blocks([block]).partition(" ")
    sizes = [text[1:] for text in (attention, *ffn.split()) if text[1:] != "-"]
    own = sizes[1:] if block.has_attention else sizes
    return [sizes[0] if block.has_attention else "none", " ".join(own) or "none"]


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _shown_gap(one: CombinationResult) -> str:
    if one.control is not None:
        return ""
    if one.gap is None:
        return "not known"
    return f"{one.gap:.2%}" + ("" if one.proven else ", not proven")
