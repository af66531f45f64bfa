"""Block library: sizes of every layer, their training, and what a model loses with each."""

from search.library.block_scores import Parent
from search.library.library import Library, LibraryBuilder
from search.library.scoring import BlockScores
from search.library.slots import Slots
from search.library.training import BlockError
from search.space.variants import LayerVariants, variants_of

__all__ = [
    "BlockError",
    "BlockScores",
    "LayerVariants",
    "Library",
    "LibraryBuilder",
    "Parent",
    "Slots",
    "variants_of",
]
