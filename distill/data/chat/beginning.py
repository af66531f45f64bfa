"""Beginning of a text: the tokens that a tokenizer puts before every text, such as a BOS.

A model that was trained with a BOS before every text is another one without it: in many, the first
position is where attention rests (arXiv 2309.17453).
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from common.errors import DistillError
from distill.data.settings import ALWAYS, AUTO

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_TEXT = "a"


def beginning_of(tokenizer: "PreTrainedTokenizerBase", bos: str = AUTO) -> tuple[int, ...]:
    """The tokens that a text begins with, by `CorpusFrom.bos`.

    Raises DistillError where a BOS is always wanted and the tokenizer has none.
    """
    if bos == ALWAYS:
        if tokenizer.bos_token_id is None:
            raise DistillError(
                "--corpus_from.bos is always, but the tokenizer has no BOS token; give auto or "
                "never, or a teacher whose tokenizer names its bos_token"
            )
        return (int(tokenizer.bos_token_id),)
    if bos != AUTO:
        return ()
    alone = tokenizer(_TEXT, add_special_tokens=False)["input_ids"]
    framed = tokenizer(_TEXT, add_special_tokens=True)["input_ids"]
    for start in range(len(framed) - len(alone) + 1):
        if framed[start : start + len(alone)] == alone:
            return tuple(framed[:start])
    return ()


def missing(beginning: tuple[int, ...], ids: Sequence[int]) -> tuple[int, ...]:
    """The part of `beginning` to put before `ids`, which may have all or the end of it already."""
    for start in range(len(beginning)):
        rest = beginning[start:]
        if tuple(ids[: len(rest)]) == rest:
            return beginning[:start]
    return beginning
