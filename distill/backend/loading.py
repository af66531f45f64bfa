"""Loading of checkpoints by stock transformers."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM


def load(directory: Path, dtype: torch.dtype | str, **options: Any) -> Any:
    """A stock causal LM for evaluation, in `dtype` or, for "auto", in the type of its file;
    `options` are those of `from_pretrained`."""
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        directory, dtype=dtype, trust_remote_code=False, **options
    )
    return loaded.eval()
