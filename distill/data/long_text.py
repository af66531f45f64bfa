"""Tokenisation of very long texts in parts, so that memory does not grow with them.

A tokenizer holds a hundred bytes or so for each token of a text that it works on. A text is cut
after a line end, and only where the tokens around the cut are the same with and without it; where
no such place is found (some tokenizers begin every text with a token for a blank), it stays whole.
"""

import re
from collections.abc import Callable

LONG_CHARACTERS = 1_000_000
"""A text with more is tokenised in parts of about so many."""
TRIED = 20
"""Line ends that are tried for each cut."""
AROUND = 400
"""Characters on each side of a cut whose tokens are compared."""
_LINE = re.compile(r"\n(?=\S)")
Tokenise = Callable[[str], list[int]]


def parts_of(text: str, tokenise: Tokenise) -> list[str]:
    """Parts whose tokens, one after the other, are those of the text."""
    parts, start = [], 0
    while len(text) - start > LONG_CHARACTERS:
        cut = _cut(text, start + LONG_CHARACTERS, tokenise)
        if cut is None:
            break
        parts.append(text[start:cut])
        start = cut
    return [*parts, text[start:]]


def _cut(text: str, after: int, tokenise: Tokenise) -> int | None:
    for count, line in enumerate(_LINE.finditer(text, after)):
        if count == TRIED:
            return None
        cut = line.end()
        before, behind = text[cut - AROUND : cut], text[cut : cut + AROUND]
        if tokenise(before) + tokenise(behind) == tokenise(before + behind):
            return cut
    return None
