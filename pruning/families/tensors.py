"""Tensors in safetensors files: their types, and small files of tensors that are in memory."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

TENSOR_TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
"""The types that a student may be written in, as safetensors names them."""

TYPE_NAMES = {dtype: name for name, dtype in TENSOR_TYPES.items()}

STORED_BYTES = {
    **{name: dtype.itemsize for name, dtype in TENSOR_TYPES.items()},
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2"), 1),
    **dict.fromkeys(("U16", "I16"), 2),
    **dict.fromkeys(("U32", "I32"), 4),
    **dict.fromkeys(("U64", "I64"), 8),
}
"""Bytes of a value of every type that files have, also of those that no student is written in."""


def save_tensors(tensors: Mapping[str, Tensor], file: Path) -> None:
    """Write `tensors` to `file`, readable as the umask has it.

    `safetensors.torch.save_file` makes files that nobody else may read.
    """
    # Copies, since safetensors refuses tensors that share memory.
    copies = {n: t.clone(memory_format=torch.contiguous_format) for n, t in tensors.items()}
    file.write_bytes(save(copies, metadata={"format": "pt"}))
