"""What to do with the result of a search, as its last lines say it."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Result:
    """What a search wrote for one student that was looked for."""

    student: Path
    """Folder of the winner."""
    report: Path
    """The page."""
    per_layer: bool
    """Whether the winner's layers differ, which transformers alone does not load."""


def next_steps(results: Sequence[Result], *, trials: int, cut: Sequence[str] = ()) -> list[str]:
    """How to load each winner, where the report is, and how the study goes on; the last lines.

    Args:
        results: Of the study, one for each member of a family.
        trials: Those that were asked for, or that are finished, if these are more.
        cut: What was left out for want of time.
    """
    lines = [_loading(result) for result in results]
    reports = ", ".join(shown_path(result.report) for result in results)
    lines.append(f"next: open {reports} in a browser")
    if cut:
        left_out = ", ".join(dict.fromkeys(cut))
        lines.append(f"next: the same command goes on with what time left out: {left_out}")
    else:
        lines.append(f"next: the same command with more --trials (now {trials}) searches on")
    return lines


def shown_path(path: Path) -> str:
    """A path as short as it can be given where the command runs."""
    here = Path(os.getcwd())  # noqa: PTH109 - as the shell has it, without links resolved
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def _loading(result: Result) -> str:
    path = shown_path(result.student)
    if result.per_layer:
        return f'next: load it by `from pruning import load_student; load_student("{path}")`'
    return f'next: load it by AutoModelForCausalLM.from_pretrained("{path}")'
