"""Encoding of a model's next-token distributions into the arrays of a `TargetFormat`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from common.errors import DistillError
from distill.backend.layers import input_device
from distill.backend.placing import placed
from distill.backend.precision import autocast
from distill.targets.formats import TargetFormat
from distill.targets.shards import NEXT, Arrays, write_shard

SHARD_BLOCKS = 128
"""Blocks of a shard."""


@torch.no_grad()
def encode(
    model: nn.Module,
    blocks: Tensor,
    *,
    target_format: TargetFormat,
    first_slot: int = 0,
    precision: str = "fp32",
) -> Arrays:
    """Run `model` on `blocks` [blocks, sequence], which are on its device.

    Returns the arrays of the slots `first_slot`, ... Raises DistillError where the model's
    vocabulary is smaller than the format's, and where its answer is not finite.
    """
    with autocast(blocks.device, precision):
        logits: Tensor = model(input_ids=blocks, use_cache=False).logits
    vocabulary, temperature = target_format.vocabulary, target_format.temperature
    if logits.shape[-1] < vocabulary:
        raise DistillError(
            f"the teacher has {logits.shape[-1]:,} logits, fewer than the vocabulary of "
            f"{vocabulary:,} that targets are asked for; give the vocabulary of its tokenizer"
        )
    logits = logits[..., :vocabulary].float()
    plain = torch.log_softmax(logits, -1)
    if plain.amax(-1).isnan().any():
        raise DistillError(
            f"the teacher's answer to blocks {first_slot} to {first_slot + len(blocks) - 1} is not "
            "finite: its activations overflow; check its weights, or let it compute in fp32"
        )
    following = plain[:, :-1].gather(-1, blocks[:, 1:, None]).squeeze(-1)
    next_log_probs = torch.nn.functional.pad(following, (0, 1)).cpu().numpy()
    scaled = plain if temperature == 1.0 else torch.log_softmax(logits / temperature, -1)
    return {NEXT: next_log_probs, **target_format.codec.encode(scaled, first_slot)}


def blocks_at_once(block: int, vocabulary: int) -> int:
    """Blocks whose logits take at most 256 MB in fp32, at most 16."""
    return max(1, min(16, 2**26 // (block * vocabulary)))


@dataclass(frozen=True)
class ShardText:
    """Text of one shard, of which any process that has the model computes the same targets."""

    blocks: NDArray[Any]
    """Token ids [blocks, sequence]."""
    target_format: TargetFormat
    """How they are stored."""
    first_slot: int
    """Slot of the first block."""

    def answered(self, model: nn.Module, precision: str = "fp32") -> list[Arrays]:
        """The arrays of the shard, computed some blocks at a time. Raises what `encode` raises."""
        device = input_device(model)
        size = blocks_at_once(self.blocks.shape[1], self.target_format.vocabulary)
        pieces = []
        for start in range(0, len(self.blocks), size):
            ids = placed(self.blocks[start : start + size].astype(np.int64), device)
            pieces.append(
                encode(
                    model,
                    ids,
                    target_format=self.target_format,
                    first_slot=self.first_slot + start,
                    precision=precision,
                )
            )
        return pieces

    def write(self, model: nn.Module, folder: Path) -> None:
        """Compute the shard and write it to `folder`, whole or not at all."""
        write_shard(folder, self.answered(model))
