"""The text model of a multimodal checkpoint: found, proven, and written as a checkpoint alone."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import PretrainedConfig

from common.errors import PruningError
from common.files import require_space
from pruning.families.checkpoint import Checkpoint, Reader
from pruning.families.config_file import raw_config, write_config
from pruning.families.table import family_of
from pruning.multimodal.configuration import (
    SAME_FOR_TEXT,
    TEXT_CONFIG,
    multimodal_class,
    text_config_of,
)
from pruning.multimodal.loading import multimodal_report
from pruning.multimodal.names import stored_names
from pruning.multimodal.proof import TextProof, prove
from pruning.slicing.writer import TensorPlan, copied, write_tensors

TIE = "tie_word_embeddings"


@dataclass(frozen=True)
class TextCheckpoint(Checkpoint):
    """The text model in the files of a multimodal checkpoint, tensor by tensor."""

    text: PretrainedConfig = field(kw_only=True)
    """Configuration of the text model alone."""

    @cached_property
    def config(self) -> PretrainedConfig:
        """That of the text model alone."""
        return self.text

    @cached_property
    def placement(self) -> dict[str, tuple[Path, str]]:
        """Tensor by its name in the text model alone -> (file, its name in the file)."""
        files = {name: file for file, names in self.files().items() for name in names}
        names = stored_names(self.text, files)
        return {name: (files[stored], stored) for name, stored in names.items()}


@dataclass(frozen=True)
class TextPart:
    """A multimodal checkpoint, seen as the text model inside."""

    folder: Path
    """Of the multimodal checkpoint."""
    whole: PretrainedConfig
    """Configuration of the multimodal model."""
    config: PretrainedConfig
    """Configuration of its text model, as a stock causal language model."""
    proof: TextProof
    """That the one computes for text what the other does."""

    @classmethod
    def of(cls, folder: Path) -> "TextPart":
        """Look at configuration and names of tensors, and prove the two models equal for text.

        Raises PruningError where the text model cannot be had alone, or has no row in the table of
        families.
        """
        whole = Checkpoint(folder).config
        model_class, config = multimodal_class(whole), text_config_of(whole)
        kinds: list[str] = getattr(whole, "architectures", None) or [model_class.__name__]
        if model_class.__name__ not in kinds:
            raise PruningError(
                f"config.json names a {kinds[0]}, which is no whole {model_class.__name__}"
            )
        family_of(config)
        proof = prove(whole, config)
        config.tie_word_embeddings = proof.tied and not _untied_by_file(folder, config)
        return cls(folder, whole, config, proof)

    @cached_property
    def checkpoint(self) -> TextCheckpoint:
        """The tensors of the text model, where they lie."""
        return TextCheckpoint(self.folder, text=self.config)

    @cached_property
    def names(self) -> Mapping[str, str]:
        """Tensor of the text model alone -> its name in the multimodal files."""
        return {name: stored for name, (_, stored) in self.checkpoint.placement.items()}

    @cached_property
    def report(self) -> Mapping[str, Any]:
        """What the multimodal class takes of the files, as transformers reports it."""
        return multimodal_report(self.folder)

    @property
    def left_aside(self) -> tuple[str, ...]:
        """Tensors of the files that the multimodal model does not have, and so neither has its text
        model."""
        return tuple(sorted(self.report["unexpected_keys"]))

    @property
    def line(self) -> str:
        """What is used of the multimodal model, in a line."""
        kind = self.whole.get_text_config().model_type
        used = f", as {self.config.model_type}" if kind != self.config.model_type else ""
        return f"the text model ({kind}{used}) of a multimodal {self.whole.model_type} is used"

    def check(self) -> None:
        """Raises PruningError for tensors that are missing, quantised or of another shape, from
        the headers of the files."""
        self.checkpoint.check_forms()

    def write(self, directory: Path, tell: Callable[[int, int], None]) -> None:
        """Write weights and config.json of the text model alone into `directory`.

        Args:
            directory: An empty one.
            tell: Told again and again how many bytes are written, and of how many.

        Raises:
            PruningError: The disk is too small.
        """
        written, total = 0, self.bytes
        require_space(directory.parent, total, error=PruningError)

        def counted(plan: TensorPlan) -> Iterator[Tensor]:
            nonlocal written
            for piece in plan.pieces():
                yield piece
                written += piece.nbytes
                tell(written, total)

        with self.checkpoint.reading() as reader:
            plans = [replace(p, pieces=partial(counted, p)) for p in self._plans(reader)]
            write_tensors(plans, directory)
        write_config(directory, self._raw, self.config)

    @property
    def bytes(self) -> int:
        """That the weights of the text model alone take."""
        with self.checkpoint.reading() as reader:
            return sum(plan.bytes for plan in self._plans(reader))

    def _plans(self, reader: Reader) -> list[TensorPlan]:
        tensors = family_of(self.config).tensors(self.config)
        return [copied(reader, tensor.name) for tensor in tensors]

    @property
    def _raw(self) -> Mapping[str, Any]:
        """What config.json says of the text model in words that the text model alone has too."""
        raw = raw_config(self.folder)
        inside = {} if self._converted else dict(raw.get(TEXT_CONFIG) or {})
        return inside | {TIE: self.config.tie_word_embeddings}

    @property
    def _converted(self) -> bool:
        return self.whole.get_text_config().model_type in SAME_FOR_TEXT


def _untied_by_file(folder: Path, config: PretrainedConfig) -> bool:
    """Whether the files have a head although config.json does not say that the embedding is it,
    which is only what the class takes for granted: transformers then keeps both."""
    raw = raw_config(folder)
    said = raw.get(TIE) is True or (raw.get(TEXT_CONFIG) or {}).get(TIE) is True
    names = [name for found in Checkpoint(folder).files().values() for name in found]
    return not said and family_of(config).output_head[0] in stored_names(config, names)
