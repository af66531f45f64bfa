"""Loading of multimodal checkpoints by their stock class."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForMultimodalLM, PreTrainedModel

from common.errors import PruningError, reason_of
from pruning.families.loading import misfit, quiet


def load_multimodal(directory: Path, dtype: torch.dtype) -> PreTrainedModel:
    """The multimodal model in `directory`, for evaluation. Raises PruningError where its files are
    not those of its class."""
    model, report = _loaded(directory, dtype)
    check_report(directory, report)
    stock: PreTrainedModel = model.eval()
    return stock


def multimodal_report(directory: Path) -> Mapping[str, Any]:
    """What the class of the multimodal model takes of its files, as transformers reports it,
    without reading a value. Raises PruningError where the model cannot be built."""
    try:
        return _loaded(directory, torch.float32, device_map={"": "meta"})[1]
    except Exception as problem:  # configurations break in as many ways as there are models
        raise PruningError(
            f"transformers cannot build the model of {directory}: {reason_of(problem)}; mend its "
            "files"
        ) from problem


def check_report(directory: Path, report: Mapping[str, Any]) -> None:
    """Raises PruningError for files that lack a tensor of the whole model; they may have more."""
    wrong = misfit({**report, "unexpected_keys": ()})
    if wrong:
        raise PruningError(f"the multimodal model in {directory} is not whole: {wrong}")


def _loaded(directory: Path, dtype: torch.dtype, **options: Any) -> tuple[Any, Mapping[str, Any]]:
    with quiet():
        loaded: Any = AutoModelForMultimodalLM.from_pretrained(
            directory,
            dtype=dtype,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **options,
        )
    model, report = loaded
    return model, report
