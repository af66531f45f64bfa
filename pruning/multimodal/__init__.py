"""Multimodal checkpoints: their text model alone, and students of it put back."""

from pruning.multimodal.combined import PROCESSOR, Combined, check_student, check_whole
from pruning.multimodal.configuration import is_multimodal
from pruning.multimodal.loading import load_multimodal
from pruning.multimodal.part import TextPart
from pruning.multimodal.proof import text_tokens

__all__ = [
    "PROCESSOR",
    "Combined",
    "TextPart",
    "check_whole",
    "check_student",
    "is_multimodal",
    "load_multimodal",
    "text_tokens",
]
