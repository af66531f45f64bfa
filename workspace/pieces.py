"""Pieces of what a study computes once: each the passes of a model over some text.

A piece leaves a folder of the workspace, whole or not at all, and the same whichever process
computes it. So pieces can be divided among processes, and work that was stopped goes on with those
that are missing.
"""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from common.progress import Progress, Throttle, left_in_words, tell
from workspace.models.loaded_model import LoadedModel

LOGGER = logging.getLogger(__name__)
LINE_SECONDS = 10.0
"""Least time between two lines of progress."""
SETTLING_SECONDS = 5.0
"""Time after which a speed is told: the first passes are slower than all others."""


class Passes(Protocol):
    """All that a process needs of a piece but the model."""

    def write(self, model: Any, folder: Path) -> None:
        """Compute the piece and write it to `folder`, whole or not at all."""


@dataclass(frozen=True)
class Piece:
    """One piece, as who divides the work sees it."""

    kind: str
    """What it is part of, in lines of progress."""
    tokens: int
    """Tokens that its passes read."""
    folder: Path
    """Where it goes."""
    passes: Callable[[], Passes]
    """Gives what computes it, with its text: read only now, since that of all may not fit."""


Compute = Callable[[LoadedModel, Sequence[Piece]], None]
"""Computes all pieces by passes of a model, somewhere."""


Words = Callable[[float], str]
"""Ends a line with how long everything still takes, where the pieces take so many seconds."""


def compute_here(model: LoadedModel, pieces: Sequence[Piece], words: Words = left_in_words) -> None:
    """Compute the pieces in this process, one after the other."""
    progress = PieceProgress(pieces, words=words)
    for piece in pieces:
        piece.passes().write(model(), piece.folder)
        progress.finished(piece)


class PieceProgress:
    """Lines that say how far pieces are, how fast, and how long the others take."""

    def __init__(self, pieces: Sequence[Piece], slots: int = 1, words: Words = left_in_words):
        """`slots` compute them at once; 1 is this process."""
        self.slots, self.words = slots, words
        self.finished_pieces = 0
        self.totals = Counter[str]()
        for piece in pieces:
            self.totals[piece.kind] += piece.tokens
        self.done = Counter[str]()
        self.progress, self.line_due = Progress(self.totals.total()), Throttle(LINE_SECONDS)
        if self.totals:
            self._tell(next(iter(self.totals)))

    def finished(self, piece: Piece) -> None:
        """One more is written; says so every now and then."""
        self.finished_pieces += 1
        self.done[piece.kind] += piece.tokens
        done = self.done.total()
        begun = self.finished_pieces <= self.slots
        if begun:  # the first of each slot waited for its process, which says nothing of the others
            self.progress = Progress(self.progress.total, done=done)
        self._tell(piece.kind)
        if begun or self.progress.seconds < SETTLING_SECONDS:
            return
        words = self.words(self.progress.left(done))
        if done < self.progress.total and self.line_due():
            where = f" on {self.slots} slots" if self.slots > 1 else ""
            LOGGER.info(
                f"{piece.kind}: {self.done[piece.kind]:,} of {self.totals[piece.kind]:,} tokens, "
                f"{self.progress.speed(done):,.0f} tokens/s{where}{words}"
            )

    def _tell(self, kind: str) -> None:
        tell(
            LOGGER,
            work=kind,
            done=float(self.done[kind]),
            total=float(self.totals[kind]),
            unit="tokens",
            speed=self.progress.speed(self.done.total()),
        )
