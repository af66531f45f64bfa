"""The outcome of a search in a few lines, as it is printed at its end."""

import logging

from pruning import engines_line
from search.finals.comparison import WINNER
from search.report.outcome import Outcome
from search.results.costs import cost_lines
from search.results.ledger import TOTAL
from search.results.results import Front, ShortRuns, named_students
from search.results.statements import BAD

LOGGER = logging.getLogger(__name__)


def log_outcome(outcome: Outcome) -> None:
    """Say the result: the verdicts, then figures in a few lines."""
    results, workspace = outcome.results, outcome.workspace
    for place, verdict in enumerate(results.verdicts):
        warning = "warning: " if verdict.tone == BAD else ""
        LOGGER.info(f"{warning if place else 'result: '}{verdict.text}")
    for name, student in named_students(results):
        LOGGER.info(f"  {name}: {student.architecture}, test KL {student.test.kl.mean:.4f}")
    for line in _short_lines(results.short):
        LOGGER.info(f"  {line}")
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
