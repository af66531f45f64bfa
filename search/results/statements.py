"""Statements on a result: sentences with a tone, the same in terminal, report and card."""

from dataclasses import dataclass
from typing import Literal

GOOD: Literal["good"] = "good"
"""For the winner, beyond what chance explains."""
NOTE: Literal["note"] = "note"
"""Neither; or not known."""
BAD: Literal["bad"] = "bad"
"""Against the winner: something else is better, or too little was done to tell."""
Tone = Literal["good", "note", "bad"]


@dataclass(frozen=True)
class Statement:
    """A sentence on the result, or a few that belong together."""

    tone: Tone
    """good, note or bad."""
    text: str
    """In words, without markup."""

    def __str__(self) -> str:
        return self.text
