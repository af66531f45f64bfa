"""Variants: the attentions and FFNs that each layer of a student may have, the teacher's own first.

An attention or FFN is written as a `Block` that has nothing else; two of them together are a layer.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import lcm

from transformers import PretrainedConfig

from pruning import (
    ATTENTION,
    FFN,
    Architecture,
    Block,
    architecture_of,
    block_of,
    family_of,
    is_legal,
)
from pruning.families import experts_per_token
from search.config.per_layer import PerLayerConfig

NOTHING = Block(0, 0, 0)
"""A layer, or a part of one, that is left out."""
WIDEST_MULTIPLE = 256
"""By default FFN widths are multiples of no more."""
FULL = "full_attention"
"""What `layer_types` calls a layer without a window."""


def with_part(block: Block, sub_block: str, part: Block) -> Block:
    """A layer with another attention or FFN."""
    return part.with_ffn_of(block) if sub_block == ATTENTION else block.with_ffn_of(part)


def with_layer(config: PretrainedConfig, layer: int, *, block: Block) -> Architecture:
    """The teacher with another block in one layer."""
    whole = architecture_of(config)
    blocks = [block_of(config, index, architecture=whole) for index in range(whole.layers)]
    blocks[layer] = block
    return Architecture.of_blocks(whole.hidden, blocks)


@dataclass(frozen=True)
class LayerVariants:
    """Attentions and FFNs that one layer may have; the teacher's own is the first of each."""

    attention: tuple[Block, ...]
    """Without FFNs."""
    ffn: tuple[Block, ...]
    """Without attentions."""

    @property
    def parent(self) -> Block:
        """The layer as it is in the teacher."""
        return self.attention[0].with_ffn_of(self.ffn[0])

    def of(self, sub_block: str) -> tuple[Block, ...]:
        """The attentions or the FFNs."""
        return self.attention if sub_block == ATTENTION else self.ffn

    def trained(self, sub_block: str) -> tuple[Block, ...]:
        """Those that have something to learn: neither the teacher's own nor left out."""
        return tuple(part for part in self.of(sub_block)[1:] if part != NOTHING)

    @property
    def pairs(self) -> list[tuple[Block, Block]]:
        """(attention, FFN) of every layer that can be had; whole layers are left out elsewhere."""
        every = ((attention, ffn) for attention in self.attention for ffn in self.ffn)
        return [pair for pair in every if pair != (NOTHING, NOTHING)]

    def replaced(self, sub_block: str, part: Block) -> Block:
        """The teacher's layer with another attention or FFN."""
        return with_part(self.parent, sub_block, part)


def variants_of(
    config: PretrainedConfig,
    settings: PerLayerConfig,
    *,
    sub_blocks: Sequence[str],
    block: int,
    multiple: int = 1,
) -> list[LayerVariants]:
    """The variants of each of the teacher's layers that its model type allows.

    Args:
        config: Of the teacher.
        settings: Sizes that are wanted.
        sub_blocks: Those that may differ from the teacher's, of `ATTENTION` and `FFN`.
        block: Tokens of a sequence: no layer is given a window that is as long, since nothing could
            be learnt of it.
        multiple: What FFN widths must be multiples of besides.
    """
    return [
        _Layer(config, settings, index, block=block, multiple=multiple).variants(sub_blocks)
        for index in range(config.num_hidden_layers)
    ]


@dataclass(frozen=True)
class _Layer:
    """One layer of the teacher, and what is wanted of it."""

    config: PretrainedConfig
    settings: PerLayerConfig
    index: int
    block: int
    multiple: int

    def variants(self, sub_blocks: Sequence[str]) -> LayerVariants:
        parent = block_of(self.config, self.index)
        own = LayerVariants((parent.part(ATTENTION),), (parent.part(FFN),))
        wanted = {ATTENTION: self._attentions(parent), FFN: self._ffns(parent)}
        parts = {
            sub_block: tuple(
                part
                for part in dict.fromkeys([*own.of(sub_block), *wanted[sub_block]])
                if part == own.of(sub_block)[0]
                or (sub_block in sub_blocks and self._legal(own.replaced(sub_block, part)))
            )
            for sub_block in (ATTENTION, FFN)
        }
        return LayerVariants(parts[ATTENTION], parts[FFN])

    def _attentions(self, parent: Block) -> list[Block]:
        kv_heads = self.settings.kv_heads
        if kv_heads is None:
            halves = [parent.kv_heads]
            while halves[-1] % 2 == 0:
                halves.append(halves[-1] // 2)
            kv_heads = [*halves, 0]
        wanted = [
            Block(groups * each, groups, 0)
            for groups in kv_heads
            for each in self.settings.group_heads or [parent.group_heads]
        ]
        if self._can_have_a_window():
            wanted.insert(0, Block(parent.heads, parent.kv_heads, 0, window=1))
        return wanted

    def _can_have_a_window(self) -> bool:
        kinds = getattr(self.config, "layer_types", None)
        window = getattr(self.config, "sliding_window", None)
        wanted = self.settings.windows and family_of(self.config).windows
        return bool(
            wanted and window and window < self.block and kinds and kinds[self.index] == FULL
        )

    def _ffns(self, parent: Block) -> list[Block]:
        if parent.experts:
            least = experts_per_token(self.config)
            return [
                replace(parent.part(FFN), experts=max(least, round(share * parent.experts)))
                if share
                else NOTHING
                for share in self.settings.expert_shares
            ]
        step = self._step(parent.ffn)
        return [
            Block(
                0,
                0,
                parent.ffn if share == 1 else _rounded(share * parent.ffn, step, most=parent.ffn),
            )
            if share
            else NOTHING
            for share in self.settings.ffn_shares
        ]

    def _step(self, width: int) -> int:
        """What widths are multiples of."""
        step = self.settings.multiple_of or 1
        most = min(WIDEST_MULTIPLE, width // 8)
        while self.settings.multiple_of is None and width % (step * 2) == 0 and step * 2 <= most:
            step *= 2
        return lcm(step, self.multiple)

    def _legal(self, block: Block) -> bool:
        """Whether a student of the teacher's depth can have it in this layer."""
        return is_legal(self.config, with_layer(self.config, self.index, block=block))


def _rounded(width: float, step: int, *, most: int) -> int:
    """The nearest multiple of `step`, at least one and at most `most`."""
    return max(1, min(round(width / step), most // step)) * step


def loadable(config: PretrainedConfig, layers: Sequence[int]) -> Sequence[int]:
    """These of the teacher's layers, or all where the model type ties them to their places: what
    can be loaded as a model of its own."""
    shape = replace(architecture_of(config), layers=len(layers))
    return layers if is_legal(config, shape) else range(config.num_hidden_layers)
