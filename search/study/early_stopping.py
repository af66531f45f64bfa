"""Early stopping by comparison at rungs: successive halving and Hyperband, asynchronous.

As in ASHA (arXiv 1810.05934): a candidate is compared, at a rung, with all that have reached it.
Decided on the study's own record, so that it survives any restart; unlike Optuna's pruners of the
name, an interrupted trial and its continuation count once, failed trials do not count, nobody is
stopped for arriving first, and it works with several objectives, on the KL at equal tokens.
"""

from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from math import ceil

from distill.recipes import report_steps
from search.config.names import HALVING, HYPERBAND, NEVER
from search.config.sections import HalvingConfig


@dataclass(frozen=True)
class Rungs:
    """When candidates are compared, and who goes on."""

    tokens: tuple[int, ...]
    """Tokens after which candidates are compared; never the end of the run."""
    reduction: int
    """Each comparison keeps the best one in so many."""
    brackets: int = 1
    """Hyperband (arXiv 1603.06560): candidates of bracket b skip the first b rungs."""

    @classmethod
    def of(
        cls,
        stopper: str,
        total_steps: int,
        *,
        step_tokens: int,
        first_share: float,
        reduction: int,
    ) -> "Rungs":
        """Rungs from `first_share` of the run on, each after `reduction` times the steps."""
        steps: list[int] = []
        if reduction > 1 and stopper != NEVER:
            wanted = float(max(1, round(first_share * total_steps)))
            while round(wanted) < total_steps:
                steps.append(round(wanted))
                wanted *= reduction
        brackets = len(steps) + 1 if stopper == HYPERBAND else 1
        return cls(tuple(step * step_tokens for step in steps), reduction, brackets)

    @classmethod
    def of_settings(cls, halving: HalvingConfig, total_steps: int, *, step_tokens: int) -> "Rungs":
        """As a study's settings say; a pruner of the user's own decides at those of halving."""
        return cls.of(
            HALVING if halving.own_pruner else halving.stopper,
            total_steps,
            step_tokens=step_tokens,
            first_share=halving.first_share,
            reduction=halving.reduction,
        )

    def applies(self, origin: int, tokens: int) -> bool:
        """Whether the candidate with this origin is compared after so many tokens."""
        return tokens in self.tokens and self.tokens.index(tokens) >= self._bracket(origin)

    def _bracket(self, origin: int) -> int:
        ends = self._cycle
        return bisect_right(ends, origin % ends[-1])

    @cached_property
    def _cycle(self) -> tuple[int, ...]:
        """Where each bracket ends among candidates in turn: as many in each as give all the same
        tokens."""
        most = self.brackets - 1
        sizes = [
            ceil(self.brackets / (most - b + 1) * self.reduction ** (most - b))
            for b in range(self.brackets)
        ]
        return tuple(accumulate(sizes))

    def stops(self, own: float, others: list[float]) -> bool:
        """Whether a candidate with this KL ends here; `others` have reached the rung before."""
        count = len(others) + 1
        if count < self.reduction:
            return False
        return sum(value < own for value in others) >= ceil(count / self.reduction)

    def expected_tokens(self, total: int, trials: int, *, never_stopped: int) -> float:
        """Tokens of so many trials of `total`, if the order in which they come says nothing.

        The k-th that comes to a rung goes on if it is among the best ceil(k / reduction) of k. A
        search that learns proposes better ones later, and stops fewer.
        """
        alive = [0.0] * self.brackets
        for trial in range(trials):
            alive[self._bracket(trial)] += 1
        spent, before = 0.0, 0
        for index, tokens in enumerate(self.tokens):
            arrived = max(1, round(sum(alive)))
            spent += sum(alive) * (tokens - before)
            before = tokens
            passing = [
                1.0 if k <= never_stopped else ceil(k / self.reduction) / k
                for k in range(1, arrived + 1)
            ]
            share = sum(passing) / arrived
            alive = [n * share if b <= index else n for b, n in enumerate(alive)]
        return spent + sum(alive) * (total - before)


def measured_steps(
    total_steps: int, step_tokens: int, *, rungs: Rungs, reports: int
) -> tuple[int, ...]:
    """The optimiser steps after which a short run is measured: the rungs, evenly spaced reports,
    and its end."""
    return tuple(
        sorted(
            {
                *(tokens // step_tokens for tokens in rungs.tokens),
                *report_steps(total_steps, reports),
                total_steps,
            }
        )
    )
