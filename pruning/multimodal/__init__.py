"""Multimodal checkpoints: their text model alone, and students of it put back."""

from pruning.multimodal.configuration import is_multimodal
from pruning.multimodal.part import TextPart
from pruning.multimodal.proof import text_tokens

__all__ = ["TextPart", "is_multimodal", "text_tokens"]
