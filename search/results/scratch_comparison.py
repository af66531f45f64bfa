"""A student against the same shape trained from random weights: tokens and compute to its loss."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from math import floor
from typing import Any

from common.errors import require

LossCurve = Sequence[tuple[float, float]]
"""(tokens trained on, loss), in the order of the tokens."""


@dataclass(frozen=True)
class ScratchComparison:
    """Tokens and compute that reach a student's loss from random initialisation."""

    scratch_tokens: float | None
    """None where it was not reached."""
    tokens_ratio: float
    """Tokens from scratch for each of the student's; a lower bound where it was not reached."""
    flops_ratio: float
    """FLOPs from scratch for each of the student's, search share included; a bound likewise."""
    measured_tokens: float
    """Where the curve from scratch ends."""
    earliest: bool
    """The first point of the curve was already there, so that the ratios are upper bounds."""

    @property
    def reached(self) -> bool:
        """Whether the run from random weights came to the student's loss."""
        return self.scratch_tokens is not None

    def to_dict(self) -> dict[str, Any]:
        """The fields, whether the loss was reached, and the comparison in words."""
        return asdict(self) | {"reached": self.reached, "text": str(self)}

    def __str__(self) -> str:
        if self.scratch_tokens is not None:
            most = "at most " if self.earliest else ""
            return (
                f"from scratch the same loss takes {most}{_times(self.tokens_ratio)} times the "
                f"tokens (measured) and {most}{_times(self.flops_ratio)} times the compute, search "
                "and teacher included"
            )
        until = f"it had not reached it after {self.measured_tokens:,.0f}"
        if self.tokens_ratio <= 1:
            return (
                "from scratch it is not known what the same loss takes "
                f"({until}, which are not more than the student's)"
            )
        return (
            f"from scratch the same loss takes more than {_at_least(self.tokens_ratio)} times the "
            f"tokens ({until}) and more than {_at_least(self.flops_ratio)} times the compute, "
            "search and teacher included"
        )


def tokens_to_reach(curve: LossCurve, loss: float) -> float | None:
    """Tokens at which `curve` first comes down to `loss`; None if it never does.

    Between two points the loss is taken as linear in the logarithm of the tokens (in the tokens,
    from a point at 0). At the first point nothing is known of what came before: where the loss is
    there already, its tokens are an upper bound.
    """
    require(len(curve) > 0, "a curve without points tells nothing; give at least one")
    ordered = all(first[0] < second[0] for first, second in pairwise(curve))
    require(ordered and curve[0][0] >= 0, "a curve must be in the order of its tokens, from 0 up")
    if curve[0][1] <= loss:
        return float(curve[0][0])
    for (before, higher), (after, lower) in pairwise(curve):
        if lower <= loss:
            share = (higher - loss) / (higher - lower)
            if before == 0:
                return float(share * after)
            return float(before * (after / before) ** share)
    return None


def against_scratch(
    scratch_curve: LossCurve,
    loss: float,
    *,
    tokens: float,
    flops: float,
    flops_per_training_token: float,
) -> ScratchComparison:
    """Hold a student against the same shape trained from random initialisation.

    Points along one run with a decaying learning rate are worse than the end of a shorter run would
    be, so that such a curve overstates the tokens from scratch; the ends of several runs do not.

    Args:
        scratch_curve: Of the run from random weights, the same metric on the same split as `loss`.
        loss: The student's.
        tokens: The student was trained on.
        flops: All that the student cost, its share of teacher and search included.
        flops_per_training_token: Of the shape from random weights.

    Raises:
        SearchError: Where the student cost nothing.
    """
    require(
        min(tokens, flops, flops_per_training_token) > 0,
        f"a student of {tokens} tokens, {flops} FLOPs and "
        f"{flops_per_training_token} FLOPs per token cannot be compared; all must be above 0",
    )
    reached = tokens_to_reach(scratch_curve, loss)
    end = float(scratch_curve[-1][0])
    needed = end if reached is None else reached
    return ScratchComparison(
        scratch_tokens=reached,
        tokens_ratio=needed / tokens,
        flops_ratio=needed * flops_per_training_token / flops,
        measured_tokens=end,
        earliest=scratch_curve[0][1] <= loss,
    )


def _times(ratio: float) -> str:
    return f"{ratio:.1f}" if ratio < 10 else f"{ratio:,.0f}"


def _at_least(ratio: float) -> str:
    """Rounded down, since it stands after `more than`."""
    return f"{floor(ratio * 10) / 10:g}" if ratio < 10 else f"{floor(ratio):,}"
