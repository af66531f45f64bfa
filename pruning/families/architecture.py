"""Architecture: the shape of a decoder-only transformer, the value that a search is about."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from common.errors import PruningError
from pruning.families.block import Block, blocks_from_text, text_of_blocks

Count = TypeVar("Count", int, NDArray[np.int64])


@dataclass(frozen=True)
class Sizes(Generic[Count]):
    """Sizes of a decoder with the same heads, FFN and experts in every layer that has them.

    Of one, an `Architecture`, or of many at once, an `ArchitectureGrid`.
    """

    layers: Count
    """Number of transformer layers."""
    hidden: Count
    """Channels of the residual stream."""
    heads: Count
    """Query heads per layer."""
    kv_heads: Count
    """Key-value heads per layer; each serves `heads / kv_heads` query heads."""
    ffn: Count
    """Neurons of the feed-forward block; 0 where every layer is a mixture of experts."""
    experts: Count
    """Experts of a mixture-of-experts layer; 0 for a dense model."""
    expert_ffn: Count
    """Neurons of each expert; 0 for a dense model."""
    contiguous: Count
    """1: the layers left out are one contiguous span; 0: they are the least important ones."""
    experts_per_token: Count
    """Experts that a token is sent to; 0: as many as in the teacher."""
    shared_ffn: Count
    """Neurons of the experts that every token is sent to; 0 where there are none."""
    expert_latent: Count
    """Channels of the space that experts read and write; 0 where that is the residual stream."""
    ssm_heads: Count
    """Heads of a layer with a recurrent state (Mamba-2, gated delta net); 0 for a transformer."""
    ssm_head_dim: Count
    """Channels of each of these heads; of a delta net those of its values."""
    ssm_groups: Count
    """Groups of these heads, each with an input and an output of the state in common; of a delta
    net its key heads."""
    ssm_state: Count
    """Channels of the state of each head; of a delta net those of its keys."""


@dataclass(frozen=True, order=True)
class Architecture(Sizes[int]):
    """One architecture; by default of a dense model, without its least important layers.

    Where layers differ (`per_layer`), the sizes are those of the uniform architecture that encloses
    them all.
    """

    # All again: who reads the types of fields, as pydantic does, is not told what Count stands for.
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    ffn: int
    experts: int = 0
    """Experts of a mixture-of-experts layer."""
    expert_ffn: int = 0
    """Neurons of each expert."""
    contiguous: int = 0
    """Whether the layers left out are one span."""
    experts_per_token: int = 0
    """Experts that a token is sent to; 0: as in the teacher."""
    shared_ffn: int = 0
    """Neurons of the experts that every token is sent to."""
    expert_latent: int = 0
    """Channels of the space of the experts, where that is not the residual stream."""
    ssm_heads: int = 0
    """Heads of a layer with a recurrent state."""
    ssm_head_dim: int = 0
    """Channels of each of these heads."""
    ssm_groups: int = 0
    """Groups of these heads."""
    ssm_state: int = 0
    """Channels of the state of each head."""
    blocks: tuple[Block, ...] = ()
    """Sizes of each layer; () where all are alike and have all that the teacher's have."""

    @classmethod
    def of_blocks(
        cls, hidden: int, blocks: Sequence[Block], *, contiguous: int = 0
    ) -> "Architecture":
        """The architecture of these layers; a uniform one where they are all alike."""
        group_heads = max(block.group_heads for block in blocks)
        kv_heads = max(block.kv_heads for block in blocks)
        whole = cls(
            layers=len(blocks),
            hidden=hidden,
            heads=kv_heads * group_heads,
            kv_heads=kv_heads,
            ffn=max(block.ffn for block in blocks),
            experts=max(block.experts for block in blocks),
            expert_ffn=max(block.expert_ffn for block in blocks),
            contiguous=contiguous,
        )
        uniform = all(block.complete and block == whole.block(0) for block in blocks)
        return whole if uniform else replace(whole, blocks=tuple(blocks))

    @property
    def per_layer(self) -> bool:
        """Whether layers differ, or leave something out."""
        return bool(self.blocks)

    @property
    def enclosing(self) -> "Architecture":
        """The smallest uniform architecture that is at no layer smaller than this one."""
        return replace(self, blocks=())

    def block(self, index: int) -> Block:
        """The sizes of the student's layer `index`, counted from 0."""
        if self.blocks:
            return self.blocks[index]
        return Block(self.heads, self.kv_heads, self.ffn, self.experts, self.expert_ffn)

    def layer_sizes(self, index: int) -> "Sizes[int]":
        """The same, with the hidden size, for what counts and cuts a layer."""
        block = self.block(index)
        return replace(
            self,
            blocks=(),
            layers=1,
            heads=block.heads,
            kv_heads=block.kv_heads,
            ffn=block.ffn,
            experts=block.experts,
            expert_ffn=block.expert_ffn,
            contiguous=0,
        )

    def __str__(self) -> str:
        span = "-span" if self.contiguous else ""
        start = f"L{self.layers}{span} H{self.hidden} "
        if self.blocks:
            return start + text_of_blocks(self.blocks)
        shape = f"{start}A{self.heads}/{self.kv_heads}"
        if self.ffn:
            shape += f" F{self.ffn}"
        return f"{shape}{self._experts_text()}{self._ssm_text()}"

    def _experts_text(self) -> str:
        if not self.experts:
            return ""
        text = f" E{self.experts}x{self.expert_ffn}"
        text += f"/{self.experts_per_token}" if self.experts_per_token else ""
        text += f"+{self.shared_ffn}" if self.shared_ffn else ""
        return text + (f"@{self.expert_latent}" if self.expert_latent else "")

    def _ssm_text(self) -> str:
        if not self.ssm_heads:
            return ""
        return f" S{self.ssm_heads}x{self.ssm_head_dim}/{self.ssm_groups}x{self.ssm_state}"

    @classmethod
    def parse(cls, text: str) -> "Architecture":
        """The architecture that is written so by `str`, such as "L6 H192 A[6/2*5 -] F[512*4 -*2]".

        Raises PruningError for anything else.
        """
        match = re.fullmatch(r"L(\d+)(-span)? H(\d+) (.+)", text.strip())
        if match is None or not int(match[1]):
            raise PruningError(
                f"the shape {text!r} is not written as L6 H192 A[6/2*5 -] F[512*4 -*2] is: layers, "
                "hidden size, heads/KV heads, FFN (and E8x64 for experts)"
            )
        rest, more = _without_extras(match[4])
        blocks = blocks_from_text(rest, int(match[1]))
        shape = cls.of_blocks(int(match[3]), blocks, contiguous=int(bool(match[2])))
        return replace(shape, **more)

    def to_dict(self) -> dict[str, Any]:
        """The sizes by axis, without those of experts for a dense model; the layers of a per-layer
        architecture as text, under "blocks"."""
        sizes = {axis: getattr(self, axis) for axis in (*AXES, "contiguous")}
        shown = {axis: size for axis, size in sizes.items() if size or axis in DENSE_AXES}
        return shown | ({"blocks": text_of_blocks(self.blocks)} if self.blocks else {})

    @classmethod
    def from_dict(cls, sizes: Mapping[str, Any]) -> "Architecture":
        """The architecture with the sizes of a `to_dict`."""
        known = (*AXES, "contiguous")
        given: dict[str, Any] = {axis: int(sizes[axis]) for axis in known if axis in sizes}
        uniform = cls(**given)
        if not sizes.get("blocks"):
            return uniform
        return replace(uniform, blocks=blocks_from_text(str(sizes["blocks"]), uniform.layers))


@dataclass(frozen=True, eq=False)
class ArchitectureGrid(Sizes[NDArray[np.int64]]):
    """Many architectures: an array [architectures] per axis."""

    @classmethod
    def of(cls, architectures: Sequence[Architecture]) -> "ArchitectureGrid":
        """These architectures, in this order."""
        axes = [field.name for field in fields(cls)]
        return cls(*(np.array([getattr(one, axis) for one in architectures]) for axis in axes))

    @classmethod
    def product(cls, choices: Mapping[str, Sequence[int]]) -> "ArchitectureGrid":
        """Every combination of the `choices` per axis; 0 on axes without. The last axis of
        `choices` changes fastest."""
        sizes = (np.array(values, dtype=np.int64) for values in choices.values())
        grid = np.meshgrid(*sizes, indexing="ij")
        columns = {axis: column.ravel() for axis, column in zip(choices, grid, strict=True)}
        zeros = np.zeros_like(next(iter(columns.values())))
        return cls(**{axis: columns.get(axis, zeros) for axis in (*AXES, "contiguous")})

    @property
    def columns(self) -> tuple[NDArray[np.int64], ...]:
        """The arrays, in the order of the fields."""
        return tuple(getattr(self, field.name) for field in fields(self))

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[Architecture]:
        names = [field.name for field in fields(self)]
        rows = zip(*(column.tolist() for column in self.columns), strict=True)
        return (Architecture(**dict(zip(names, sizes, strict=True))) for sizes in rows)

    def __getitem__(self, index: int) -> Architecture:
        sizes: dict[str, Any] = {
            field.name: int(getattr(self, field.name)[index]) for field in fields(self)
        }
        return Architecture(**sizes)

    def where(self, chosen: NDArray[np.bool_]) -> "ArchitectureGrid":
        """Those that the mask [architectures] is true of."""
        taken: dict[int, NDArray[np.int64]] = {}  # columns of zeros are one array
        for column in self.columns:
            if id(column) not in taken:
                taken[id(column)] = column[chosen]
        return ArchitectureGrid(*(taken[id(column)] for column in self.columns))


DENSE_AXES: tuple[str, ...] = ("layers", "hidden", "heads", "kv_heads", "ffn")
EXPERT_AXES: tuple[str, ...] = (
    "experts",
    "expert_ffn",
    "experts_per_token",
    "shared_ffn",
    "expert_latent",
)
SSM_AXES: tuple[str, ...] = ("ssm_heads", "ssm_head_dim", "ssm_groups", "ssm_state")
AXES: tuple[str, ...] = (*DENSE_AXES, *EXPERT_AXES, *SSM_AXES)
"""The sizes; which layers go (`contiguous`) changes none of them."""
WIDTHS: tuple[str, ...] = tuple(
    axis for axis in AXES if axis not in ("layers", "experts_per_token")
)
"""The sizes that weights have; the hidden size first."""
EXPERTS_TEXT = re.compile(r"( E\d+x\d+)(?:/(\d+))?(?:\+(\d+))?(?:@(\d+))?(?= |$)")
SSM_TEXT = re.compile(r" S(\d+)x(\d+)/(\d+)x(\d+)$")


def _without_extras(text: str) -> tuple[str, dict[str, Any]]:
    """The sizes of attention, FFN and experts alone, and those of the other axes."""
    found: dict[str, Any] = {}
    if ssm := SSM_TEXT.search(text):
        found |= dict(zip(SSM_AXES, map(int, ssm.groups()), strict=True))
        text = text[: ssm.start()]
    if experts := EXPERTS_TEXT.search(text):
        sizes = zip(EXPERT_AXES[2:], experts.groups()[1:], strict=True)
        found |= {axis: int(size) for axis, size in sizes if size}
        text = text[: experts.end(1)]
    return text, found
