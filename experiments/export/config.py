"""Configuration of run_export.py. The docstring of a field is its `--help`."""

from dataclasses import dataclass
from pathlib import Path

from common.bounds import bounded, check_bounds, one_of
from common.values import check_values
from pruning import PruningError
from pruning.exports import EXPORTS, MULTIMODAL, PADDED


@dataclass(frozen=True)
class ExportConfig:
    """A student, and the form of its copy."""

    student: str
    """A student whose layers have sizes of their own, or one of a multimodal teacher: the folder
    that a search, run_prune or run_distill wrote, or its Hub id."""
    output: Path
    """New directory for the copy."""
    form: str = bounded(PADDED, one_of(EXPORTS))
    """padded: a stock checkpoint for any software, filled with zeros up to the widest layer, so
    that it saves nothing; decilm: the form that vLLM, llama.cpp's converter and mlx-lm read, at
    about the student's own cost, of students with Llama's blocks (llama, mistral, qwen2);
    multimodal: the multimodal model that the student was cut out of, with the student in the place
    of its text model and all else as it was, where the hidden size is the same."""
    multimodal: str | None = None
    """For that form, the multimodal model: its folder or Hub id."""

    def __post_init__(self) -> None:
        check_values(self)
        check_bounds(self)
        if (self.form == MULTIMODAL) != (self.multimodal is not None):
            raise PruningError(
                f"--form {MULTIMODAL} and --multimodal, the model that the student is put back "
                "into, go together; give both or neither"
            )
