"""Block: the sizes of one layer of a student, where layers differ (Puzzle, arXiv 2411.19146)."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TypeVar

from common.errors import PruningError

Size = TypeVar("Size")
ATTENTION, FFN = "attention", "ffn"
"""The sub-blocks of a layer."""
SSM, EXPERTS = "ssm", "experts"
"""Further parts that a layer of some types has: a recurrent state, and experts for an FFN."""
PARTS = (ATTENTION, SSM, FFN, EXPERTS)
NONE = "-"
"""Written for a sub-block that is left out."""
PART = re.compile(r"([AFE])(?:\[([^\]]*)\]|(\S+))")


@dataclass(frozen=True, order=True)
class Block:
    """One layer: attention and FFN, either of which may be left out."""

    heads: int
    """Query heads; 0: no attention."""
    kv_heads: int
    """Key-value heads; each serves `heads / kv_heads` query heads."""
    ffn: int
    """Neurons of the feed-forward block; 0: none, or a mixture of experts."""
    experts: int = 0
    """Experts of a mixture; 0: no mixture."""
    expert_ffn: int = 0
    """Neurons of each expert."""
    window: int = 0
    """1: the attention has the model's sliding window, although the teacher's layer has none."""

    @property
    def has_attention(self) -> bool:
        """Whether it attends to other tokens."""
        return self.heads > 0

    @property
    def has_ffn(self) -> bool:
        """Whether it has neurons, its own or those of experts."""
        return self.ffn > 0 or self.experts > 0

    @property
    def group_heads(self) -> int:
        """Query heads that each KV head serves; 0 without attention."""
        return self.heads // self.kv_heads if self.kv_heads else 0

    @property
    def complete(self) -> bool:
        """Whether nothing is left out or narrowed to a window."""
        return self.has_attention and self.has_ffn and not self.window

    def has(self, sub_block: str) -> bool:
        """Whether it has its `ATTENTION` or its `FFN`."""
        return self.has_attention if sub_block == ATTENTION else self.has_ffn

    def part(self, sub_block: str) -> "Block":
        """Its `ATTENTION` or its `FFN` alone."""
        if sub_block == ATTENTION:
            return Block(self.heads, self.kv_heads, 0, window=self.window)
        return replace(self, heads=0, kv_heads=0, window=0)

    def with_ffn_of(self, other: "Block") -> "Block":
        """Its attention with the FFN of another layer."""
        return replace(self, ffn=other.ffn, experts=other.experts, expert_ffn=other.expert_ffn)


def text_of_blocks(blocks: Sequence[Block]) -> str:
    """The layers in short, such as "A[6/2*3 - 3/1] F[512*2 - 256*2]".

    A is attention (query heads/KV heads, w with a window), F the FFN, E experts and the neurons of
    each; "*3" means three layers in a row, "-" one that has none. Layers that are all alike are
    written once, without brackets.
    """
    parts = [_part("A", [_attention(block) for block in blocks])]
    if any(block.ffn for block in blocks) or not any(block.experts for block in blocks):
        parts.append(_part("F", [str(block.ffn or NONE) for block in blocks]))
    if any(block.experts for block in blocks):
        parts.append(_part("E", [_experts(block) for block in blocks]))
    return " ".join(parts)


def blocks_from_text(text: str, layers: int) -> tuple[Block, ...]:
    """The layers that `text_of_blocks` wrote. Raises PruningError for anything else."""
    found = PART.findall(text)
    parts = {letter: brackets or alone for letter, brackets, alone in found}
    if PART.sub("", text).strip() or "A" not in parts or len(parts) < len(found):
        raise PruningError(f"{text!r} does not describe layers as A[6/2*5 -] F[512*4 -*2] does")
    attention = _entries(parts["A"], layers, read=_attention_of)
    ffn = _entries(parts.get("F", NONE), layers, read=_number)
    experts = _entries(parts.get("E", NONE), layers, read=_pair)
    return tuple(
        Block(heads, kv_heads, neurons, count, each, window)
        for (heads, kv_heads, window), neurons, (count, each) in zip(
            attention, ffn, experts, strict=True
        )
    )


def _attention(block: Block) -> str:
    if not block.has_attention:
        return NONE
    return f"{block.heads}/{block.kv_heads}{'w' if block.window else ''}"


def _experts(block: Block) -> str:
    return f"{block.experts}x{block.expert_ffn}" if block.experts else NONE


def _part(letter: str, entries: Sequence[str]) -> str:
    runs = [(entry, len(list(run))) for entry, run in groupby(entries)]
    if len(runs) == 1:
        return f"{letter}{entries[0]}"
    shown = (entry if count == 1 else f"{entry}*{count}" for entry, count in runs)
    return f"{letter}[{' '.join(shown)}]"


def _entries(text: str, layers: int, *, read: Callable[[str], Size]) -> list[Size]:
    """One entry per layer; a single one stands for all."""
    found = list(_repeated(text, read))
    found = found * layers if len(found) == 1 else found
    if len(found) != layers:
        raise PruningError(f"{text!r} describes {len(found)} layers; there are {layers}")
    return found


def _repeated(text: str, read: Callable[[str], Size]) -> Iterator[Size]:
    for entry in text.split():
        size, _, count = entry.partition("*")
        try:
            yield from [read(size)] * int(count or 1)
        except ValueError as problem:
            raise PruningError(f"{entry!r} is no size of a layer, as 6/2, 512*4 or - are") from (
                problem
            )


def _attention_of(text: str) -> tuple[int, int, int]:
    if text == NONE:
        return 0, 0, 0
    heads, kv_heads = text.removesuffix("w").split("/")
    return _count(heads), _count(kv_heads), int(text.endswith("w"))


def _number(text: str) -> int:
    return 0 if text == NONE else _count(text)


def _pair(text: str) -> tuple[int, int]:
    if text == NONE:
        return 0, 0
    count, each = text.split("x")
    return _count(count), _count(each)


def _count(text: str) -> int:
    """Of parts that are there: 0 is written as `NONE`, of a whole sub-block."""
    if int(text) < 1:
        raise ValueError(text)
    return int(text)
