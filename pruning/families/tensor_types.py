"""Types of tensors, as safetensors names them."""

import torch

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
