"""Configuration of run_export.py. The docstring of a field is its `--help`."""

from dataclasses import dataclass
from pathlib import Path

from common.bounds import bounded, check_bounds, one_of
from common.values import check_values
from pruning.exports import FORMS, PADDED


@dataclass(frozen=True)
class ExportConfig:
    """A student whose layers differ, and the form of its copy."""

    student: str
    """A student whose layers have sizes of their own: the folder that a search, run_prune or
    run_distill wrote, or its Hub id."""
    output: Path
    """New directory for the copy."""
    form: str = bounded(PADDED, one_of(FORMS))
    """padded: a stock checkpoint for any software, filled with zeros up to the widest layer, so
    that it saves nothing; decilm: the form that vLLM, llama.cpp's converter and mlx-lm read, at
    about the student's own cost, of students with Llama's blocks (llama, mistral, qwen2)."""

    def __post_init__(self) -> None:
        check_values(self)
        check_bounds(self)
