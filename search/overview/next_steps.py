"""What to do with the result of a search, as its last lines say it."""

import os
from collections.abc import Sequence
from pathlib import Path

from search.report.outcome import Outcome


def next_steps(outcomes: Sequence[Outcome], *, trials: int, cut: Sequence[str] = ()) -> list[str]:
    """How to load each winner, where the report is, and how the study goes on; the last lines.

    Args:
        outcomes: Of the study, one for each member of a family.
        trials: Those that were asked for.
        cut: What was left out for want of time.
    """
    lines = [_loading(outcome) for outcome in outcomes]
    reports = ", ".join(shown_path(outcome.workspace.report) for outcome in outcomes)
    lines.append(f"next: open {reports} in a browser")
    if cut:
        lines.append(f"next: the same command goes on with what time left out: {', '.join(cut)}")
    else:
        lines.append(f"next: the same command with more --trials (now {trials}) searches on")
    return lines


def shown_path(path: Path) -> str:
    """A path as short as it can be given where the command runs."""
    here = Path(os.getcwd())  # noqa: PTH109 - as the shell has it, without links resolved
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def _loading(outcome: Outcome) -> str:
    path = shown_path(outcome.workspace.best)
    if outcome.winner.per_layer:
        return f'next: load it by `from pruning import load_student; load_student("{path}")`'
    return f'next: load it by AutoModelForCausalLM.from_pretrained("{path}")'
