"""Settings of a corpus: how it is read and packed, besides which files it has."""

import datetime
import re
from dataclasses import dataclass

from common.errors import DistillError

AUTO, ALWAYS, NEVER = "auto", "always", "never"
BOS = (AUTO, ALWAYS, NEVER)
ISO_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


@dataclass(frozen=True)
class CorpusFrom:
    """How much is read of a corpus, and how its documents begin."""

    config: str | None = None
    """Configuration of a data set (Hub or a folder in its layout) that has several."""
    split: str = "train"
    """Split of a data set to read; what is held out is taken from it."""
    field: str | None = None
    """Field of a row that is its text or its chat; by default text, messages or conversations."""
    revision: str | None = None
    """Branch, tag or commit of a Hub data set; by default its main branch."""
    weights: list[float] | None = None
    """Shares of the tokens that several sources have, in their order; the text ends where the first
    of them ends. By default all of them are read through, side by side."""
    tokens: int | None = None
    """Tokens to read at most, held-out ones included; by default what the runs and the splits need.
    Give more than there are to read all."""
    max_bad_share: float = 0.01
    """Share of the rows that may be unusable; they are left out, counted and said."""
    bos: str = AUTO
    """Whether a document begins with the tokenizer's BOS token: auto (where the tokenizer puts it
    before every text), always or never."""
    date: str = "2024-07-26"
    """The day (YYYY-MM-DD) that a chat template is told when it asks what day it is; fixed, so that
    the same rows are the same corpus tomorrow."""

    @property
    def day(self) -> datetime.date:
        """The date."""
        return datetime.date.fromisoformat(self.date)

    def __post_init__(self) -> None:
        if self.bos not in BOS:
            raise DistillError(
                f"--corpus_from.bos is {self.bos!r}; it must be one of {', '.join(BOS)}"
            )
        if not 0 <= self.max_bad_share <= 1:
            raise DistillError(
                f"--corpus_from.max_bad_share is {self.max_bad_share}; it must be in [0, 1]"
            )
        if self.tokens is not None and self.tokens < 1:
            raise DistillError(f"--corpus_from.tokens is {self.tokens}; it must be at least 1")
        for weight in self.weights or ():
            if not 0 < weight < float("inf"):
                raise DistillError(f"--corpus_from.weights has {weight}; a weight must be above 0")
        if not self.split:
            raise DistillError("--corpus_from.split is empty; name the split to read")
        try:
            if not ISO_DATE.fullmatch(self.date):
                raise ValueError
            self.day  # noqa: B018
        except ValueError:
            raise DistillError(
                f"--corpus_from.date is {self.date!r}; it must be a day such as 2024-07-26"
            ) from None
