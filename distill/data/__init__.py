"""Text to blocks of tokens: files, chats, packing, splits, order."""

from typing import TYPE_CHECKING

from common.lazy import lazy_exports

if TYPE_CHECKING:
    from distill.data.chat.beginning import beginning_of
    from distill.data.chat.encoder import Encoded, Encoder
    from distill.data.corpus import Corpus, SplitSizes
    from distill.data.files.sources import CorpusFiles
    from distill.data.order import slot_blocks
    from distill.data.settings import AUTO, NEVER, CorpusFrom
    from distill.data.splits import is_held_out, split_of

__all__ = [
    "AUTO",
    "NEVER",
    "Corpus",
    "CorpusFiles",
    "CorpusFrom",
    "Encoded",
    "Encoder",
    "SplitSizes",
    "beginning_of",
    "is_held_out",
    "slot_blocks",
    "split_of",
]

__getattr__ = lazy_exports(__name__)
