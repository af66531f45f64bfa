"""Copies of arrays on a device."""

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor


def placed(array: NDArray[Any], device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """`array` on `device`, in `dtype` where one is given.

    On a GPU by way of pinned memory, so that the host goes on while it is copied.
    """
    tensor = torch.from_numpy(array)
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True).to(dtype or tensor.dtype)
