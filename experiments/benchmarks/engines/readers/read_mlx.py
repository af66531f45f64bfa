"""Logits from mlx-lm on a CPU."""

from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx_lm.utils import load_model, quantize_model
from one_by_one import answer


def read(folder: Path, ids: list[int], request: dict[str, Any]) -> tuple[Any, list[str]]:
    mx.set_default_device(mx.cpu)
    model, config = load_model(folder)
    logits = np.array(model(mx.array([ids])).astype(mx.float32))[0]
    quantised, _ = quantize_model(model, dict(config), 64, 8)
    left = [
        name
        for name, module in quantised.named_modules()
        if isinstance(module, nn.Linear | nn.Embedding)
    ]
    return logits, left


if __name__ == "__main__":
    answer(read)
