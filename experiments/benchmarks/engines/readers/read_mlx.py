"""Logits from mlx-lm on a CPU: of the given tokens, and of those that it continues them with where
the request asks for some."""

from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.utils import load_model, quantize_model
from one_by_one import answer


def read(folder: Path, ids: list[int], request: dict[str, Any]) -> tuple[Any, list[str]]:
    mx.set_default_device(mx.cpu)
    model, config = load_model(folder)
    greedy = request.get("greedy", 0)
    cache = make_prompt_cache(model) if greedy else None

    def logits_of(tokens: list[int]) -> Any:
        return np.array(model(mx.array([tokens]), cache=cache).astype(mx.float32))[0]

    parts = [logits_of(ids)]
    for _ in range(greedy):
        parts.append(logits_of([int(parts[-1][-1].argmax())]))
    quantised, _ = quantize_model(model, dict(config), 64, 8)
    left = [name for name, module in quantised.named_modules() if hasattr(module, "to_quantized")]
    return np.concatenate(parts), left


if __name__ == "__main__":
    answer(read)
