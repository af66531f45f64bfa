"""Running scores of activations: first over the sequence, then over the samples.

Accumulated in fp32 and fp64, in memory that does not grow with the number of samples.
"""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

VALUES, SQUARES, COUNT = ".values", ".squares", ".count"
"""End the names of sums."""
Sums = dict[str, Tensor]
"""What text adds up to, in fp64 on the CPU, by name: scores of all text come from the sums of its
parts, wherever each was read."""


def added(parts: Iterable[Mapping[str, Tensor]]) -> Sums:
    """The sums of all parts together, added in their order, which rounding depends on."""
    total: Sums = {}
    for part in parts:
        for name, values in part.items():
            total[name] = total[name] + values if name in total else values
    return total


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


class RunningSum:
    """Sum of rows in fp64, and how many they were."""

    def __init__(self) -> None:
        self._total: Tensor | None = None
        self.count = 0

    def add(self, rows: Tensor) -> None:
        """Add `rows` [rows, channels], any float type."""
        sums = rows.double().sum(0)
        self._total = sums if self._total is None else self._total.add_(sums)
        self.count += len(rows)

    @classmethod
    def of(cls, sums: Mapping[str, Tensor], name: str) -> "RunningSum":
        """What `sums` gave under this name."""
        found = cls()
        found._total, found.count = sums[name], int(sums[name + COUNT])
        return found

    def sums(self, name: str) -> Sums:
        """Under this name; nothing where no row was seen."""
        if self._total is None:
            return {}
        count = torch.tensor(float(self.count), dtype=torch.float64)
        return {name: self._total.cpu(), name + COUNT: count}

    @property
    def total(self) -> Tensor:
        """[channels]."""
        assert self._total is not None, "no batch was seen"
        return self._total

    @property
    def mean(self) -> Tensor:
        """[channels]."""
        return self.total / self.count


class OverSamples:
    """mean, L2 or variance over samples of what each sample gives per channel."""

    def __init__(self, reduction: str) -> None:
        self.reduction = reduction
        self._values, self._squares = RunningSum(), RunningSum()

    def add(self, samples: Tensor) -> None:
        """Add `samples` [samples, channels], any float type."""
        wide = samples.double()
        self._values.add(wide)
        self._squares.add(wide.square())

    @classmethod
    def of(cls, reduction: str, sums: Mapping[str, Tensor], name: str) -> "OverSamples":
        """What `sums` gave under this name."""
        found = cls(reduction)
        found._values = RunningSum.of(sums, name + VALUES)
        found._squares = RunningSum.of(sums, name + SQUARES)
        return found

    def sums(self, name: str) -> Sums:
        """Under this name."""
        return self._values.sums(name + VALUES) | self._squares.sums(name + SQUARES)

    def score(self) -> Tensor:
        """[channels] in fp32, on the CPU."""
        if self.reduction == "l2":
            result = self._squares.total.sqrt()
        elif self.reduction == "mean":
            result = self._values.mean
        else:
            result = self._squares.mean - self._values.mean.square()
        return result.clamp_min(0).float().cpu()
