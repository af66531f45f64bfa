"""Export of a trained student as a stock checkpoint, from one process or from shards."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from distill.backend.parallel import ALONE, World, to_full


def gathered_weights(model: Any, dtype: torch.dtype, world: World = ALONE) -> dict[str, Tensor]:
    """The weights of `model` in one piece and in `dtype`, on the first process; {} on the others.

    All processes must call it. Of tensors that are tied, one is kept, as checkpoints have them; all
    are copies, which stay as they are when the model trains on.
    """
    gathered: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, value in model.state_dict(keep_vars=True).items():
        if id(value) in seen:
            continue
        seen.add(id(value))
        full = to_full(value.detach())
        if world.first:
            wanted = dtype if full.is_floating_point() else full.dtype
            gathered[name] = full.to(device="cpu", dtype=wanted, copy=True).contiguous()
    return gathered


def write_model(model: Any, weights: dict[str, Tensor], directory: Path) -> None:
    """Write `weights` to `directory` as `save_pretrained` of `model` would, in their own type."""
    dtype = next(value.dtype for value in weights.values() if value.is_floating_point())
    with torch.device("meta"):
        frame: Any = AutoModelForCausalLM.from_config(model.config, dtype=dtype)
    frame.generation_config = model.generation_config
    frame.save_pretrained(directory, state_dict=weights)
