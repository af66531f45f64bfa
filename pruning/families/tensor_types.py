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
