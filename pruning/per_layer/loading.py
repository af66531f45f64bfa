"""Loading of any student's folder, stock or per-layer."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from common.errors import PruningError, reason_of
from pruning.families.checkpoint import Checkpoint
from pruning.families.loading import misfit, quiet


def load_student(
    directory: Path | str, dtype: torch.dtype | str = "auto", **options: Any
) -> PreTrainedModel:
    """A student of any kind, for evaluation.

    Args:
        directory: Its folder.
        dtype: Type of its weights; "auto" is that of the file.
        options: More for `from_pretrained` of transformers, such as `device_map`.

    Raises:
        PruningError: The folder holds no whole student.
    """
    folder = Path(directory)
    if not folder.is_dir():
        raise PruningError(f"{folder} is no folder; give a student's folder")
    config = Checkpoint(folder).config
    try:
        with quiet():
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                folder,
                config=config,
                dtype=dtype,
                ignore_mismatched_sizes=True,  # refused below, by name
                output_loading_info=True,
                trust_remote_code=False,
                **options,
            )
    except Exception as problem:  # configurations and files break in many ways
        raise PruningError(
            f"the student in {folder} cannot be loaded: {reason_of(problem)}; copy it again"
        ) from problem
    student, report = loaded
    if misfit(report):
        raise PruningError(
            f"the weights in {folder} are not those of its config.json: {misfit(report)}; copy it "
            "again"
        )
    model: PreTrainedModel = student.eval()
    return model
