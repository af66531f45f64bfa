"""Splits: which one a document belongs to, decided by its name alone.

The same name always lands in the same split, on every machine and in every run, so that a teacher
trained elsewhere and the study that compresses it can hold out the same documents without sharing a
list. Nothing here reads a document.
"""

import hashlib

HELD_OUT_SHARE = 0.10
"""Documents whose position is below this are held out; a teacher's training must skip them all."""


def position(name: str) -> float:
    """A number in [0, 1) that depends on `name` alone (SHA-256, so it is uniform)."""
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def split_of(name: str, selection_share: float, test_share: float) -> str:
    """The split of the document called `name`: "selection", "test" or "train".

    The two held-out splits take their shares from fixed halves of the held-out range, so changing
    one share never moves a document from one held-out split to the other.
    """
    at = position(name)
    half = HELD_OUT_SHARE / 2
    if at < min(selection_share, half):
        return "selection"
    if half <= at < half + min(test_share, half):
        return "test"
    return "train"


def is_held_out(name: str) -> bool:
    """Whether any study could use this document for selection or test."""
    return position(name) < HELD_OUT_SHARE
