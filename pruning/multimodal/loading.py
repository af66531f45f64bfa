"""Loading of multimodal checkpoints by their stock class."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForMultimodalLM, PreTrainedModel

from common.errors import PruningError
from pruning.families.loading import misfit, quiet


def load_multimodal(directory: Path, dtype: torch.dtype) -> PreTrainedModel:
    """The multimodal model in `directory`, for evaluation. Raises PruningError where its files are
    not those of its class."""
    with quiet():
        loaded: Any = AutoModelForMultimodalLM.from_pretrained(
            directory,
            dtype=dtype,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    model, report = loaded
    wrong = misfit(report | {"unexpected_keys": ()})  # the teacher's files may have more, too
    if wrong:
        raise PruningError(f"transformers cannot load {directory}: {wrong}")
    stock: PreTrainedModel = model.eval()
    return stock
