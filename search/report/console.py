"""The outcome of a search in a few lines, as it is printed at its end."""

import logging

from pruning import engines_line
from search.finals.comparison import WINNER
from search.report.outcome import Outcome
from search.results.costs import cost_lines
from search.results.ledger import TOTAL
from search.results.results import Front, ShortRuns
from search.results.statements import BAD

LOGGER = logging.getLogger(__name__)


def log_outcome(outcome: Outcome) -> None:
    """Say the result in a few lines."""
    results, workspace = outcome.results, outcome.workspace
    best, teacher = results.winners[0], results.teacher
    share = best.parameters / teacher.parameters
    LOGGER.info(
        f"best: {best.architecture}, {best.parameters:,} parameters ({share:.1%} of the teacher), "
        f"test KL {best.test.kl.mean:.4f}, cross-entropy {best.test.ce.mean:.4f} (teacher "
        f"{teacher.test.ce.mean:.4f})"
    )
    for name, baseline in results.baselines.items():
        LOGGER.info(f"  {name}: test KL {baseline.test.kl.mean:.4f}")
    for line in _short_lines(results.short):
        LOGGER.info(f"  {line}")
    for verdict in results.verdicts:
        LOGGER.info(("warning: " if verdict.tone == BAD else "") + verdict.text)
    for line in [*cost_lines(results.costs), *_front_lines(results.front)]:
        LOGGER.info(line)
    if results.engines:
        LOGGER.info(engines_line(results.engines))
    LOGGER.info(f"cost: {results.ledger[TOTAL]}")
    for line in results.estimates.lines() if results.estimates else []:
        LOGGER.info(line)
    LOGGER.info(f"checkpoint: {workspace.best}; report: {workspace.report}")


def _short_lines(short: ShortRuns | None) -> list[str]:
    """Selection KL after the short run of the winner's architecture, and of the baselines that were
    not distilled in full."""
    if short is None or len(short.selection_kl) < 2:
        return []
    return [
        f"{name if name != WINNER else 'architecture of the winner'}: selection KL "
        f"{kl.mean:.4f} after {short.tokens:,} tokens"
        for name, kl in short.selection_kl.items()
    ]


def _front_lines(front: Front | None) -> list[str]:
    """The trade-offs; none with one objective."""
    if front is None:
        return []
    lines = [f"front of {', '.join(front.objectives)}, {len(front.front)} architectures:"]
    for point in front.front:
        values = ", ".join(f"{name} {value:.4g}" for name, value in point.values.items())
        mark = "  <- knee" if point.trial == front.knee.trial else ""
        lines.append(f"  {point.architecture}: {values}{mark}")
    return lines
