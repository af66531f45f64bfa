"""Small safetensors files of tensors that are in memory."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor


def save_tensors(tensors: Mapping[str, Tensor], file: Path) -> None:
    """Write `tensors` to `file`, readable as the umask has it.

    `safetensors.torch.save_file` makes files that nobody else may read.
    """
    # Copies, since safetensors refuses tensors that share memory.
    copies = {n: t.clone(memory_format=torch.contiguous_format) for n, t in tensors.items()}
    file.write_bytes(save(copies, metadata={"format": "pt"}))
