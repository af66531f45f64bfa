"""Running scores of activations: first over the sequence, then over the samples.

Accumulated in fp32 and fp64, in memory that does not grow with the number of samples.
"""

import torch
from torch import Tensor

REDUCTIONS = ("mean", "l2", "variance")


def over_sequence(activations: Tensor, reduction: str) -> Tensor:
    """[batch, channels] in fp32 from [batch, sequence, channels].

    "mean" is of the absolute value, "l2" the root mean square, "variance" of the signed value.
    """
    if reduction == "mean":
        return activations.abs().mean(1, dtype=torch.float32)
    values = activations.float()
    if reduction == "l2":
        return values.square().mean(1).sqrt()
    # Not var(): over a dimension that is not the last it takes eight times as long.
    return (values.square().mean(1) - values.mean(1).square()).clamp_min(0)


class OverSamples:
    """mean, L2 or variance over samples of what each sample gives per channel."""

    def __init__(self, reduction: str) -> None:
        self.reduction = reduction
        self.count = 0
        self.sums: Tensor | None = None
        self.squares: Tensor | None = None

    def add(self, samples: Tensor) -> None:
        """`samples` is [samples, channels], any float type."""
        self.count += len(samples)
        wide = samples.double()
        sums, squares = wide.sum(0), wide.square().sum(0)
        self.sums = sums if self.sums is None else self.sums.add_(sums)
        self.squares = squares if self.squares is None else self.squares.add_(squares)

    def score(self) -> Tensor:
        """[channels] in fp32, on the CPU."""
        assert self.sums is not None and self.squares is not None, "no batch was seen"
        if self.reduction == "l2":
            result = self.squares.sqrt()
        elif self.reduction == "mean":
            result = self.sums / self.count
        else:
            result = self.squares / self.count - (self.sums / self.count).square()
        return result.clamp_min(0).float().cpu()
