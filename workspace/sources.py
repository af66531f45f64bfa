"""Sources of every command: a teacher and a text, on a device."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from distill import Corpus, CorpusPlan
from workspace.models.loaded_model import LoadedModel
from workspace.models.model_source import ModelSource


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Teacher and text, read and checked; nothing is computed yet."""

    teacher: ModelSource
    """The model as the user named it."""
    text: CorpusPlan
    """Which text is read, and into which sequences it is packed."""
    device: torch.device
    """Where models are loaded."""
    teacher_precision: str
    """What the teacher is held and computes in: "file" or "fp32"."""
    spread: bool = False
    """Whether the teacher is spread over devices, memory and disk instead of held on `device`."""

    @property
    def block(self) -> int:
        """Tokens per sequence."""
        return self.text.packing.block

    @property
    def teacher_dtype(self) -> torch.dtype:
        """Type that the teacher is held and computes in."""
        return self.teacher.dtype_in(self.teacher_precision)

    @property
    def precision_part(self) -> dict[str, str]:
        """What fingerprints say of that type."""
        return self.teacher.precision_part(self.teacher_precision)

    @cached_property
    def model(self) -> LoadedModel:
        """The teacher, which is loaded when it is first called for."""
        placement = {"device_map": "auto"} if self.spread else {}
        return LoadedModel(self.teacher, self.device, self.teacher_dtype, placement)

    def pack(self, needed: int | None, root: Path, *, vocabulary: int, known_to: str) -> Corpus:
        """The corpus in the workspace `root`, packed now or before.

        Args:
            needed: Training tokens after which reading may end; None reads all.
            vocabulary: Number of tokens that there are; a text with others is refused.
            known_to: The models that know them, in words.

        Raises:
            DistillError: The text cannot be used.
        """
        tokenizer = self.teacher.tokenizer
        plan = self.text.needing(needed)
        corpus = plan.packed(tokenizer, self.teacher.tokenizer_fingerprint(), root=root)
        corpus.require_known(vocabulary, tokenizer, known_to)
        return corpus
