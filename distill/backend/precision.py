"""Precision: the floating-point type that a run computes in; weights and moments stay fp32."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from common.errors import DistillError
from distill.backend.names import PRECISIONS


def resolve_precision(name: str, device: torch.device) -> str:
    """The precision by name: bf16, tf32 or fp32; auto is bf16 where the hardware multiplies it.

    Raises DistillError for an unknown name, and for tf32 on a device without it.
    """
    if name not in PRECISIONS:
        raise DistillError(f"precision is {name!r}; it must be one of {', '.join(PRECISIONS)}")
    if name == "tf32" and device.type != "cuda":
        raise DistillError(
            f"precision is 'tf32', which the device {device.type} does not have; use bf16 or fp32"
        )
    if name != "auto":
        return name
    return "bf16" if multiplies(torch.bfloat16, device) else "fp32"


def multiplies(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether the hardware has instructions for matrices of a type."""
    wide = dtype in (torch.float32, torch.float64)
    if wide or (device.type == "cuda" and dtype == torch.float16):
        return True
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and _cpu_multiplies(dtype)


def _cpu_multiplies(dtype: torch.dtype) -> bool:
    kind = "bf16" if dtype == torch.bfloat16 else "fp16"
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(name) for name in (f"amx_{kind}", f"avx512_{kind}", kind))


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """The context that a forward pass runs in, in a precision that `resolve_precision` gave."""
    if precision == "fp32":
        return nullcontext()
    if precision == "tf32":
        return _tf32()
    if precision != "bf16":
        raise ValueError(f"precision is {precision!r}, which no one resolved")
    return torch.autocast(device.type, torch.bfloat16)


def around_steps(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """The context of whole steps: tf32 is for the backward pass too, autocast is not."""
    return autocast(device, precision) if precision == "tf32" else nullcontext()


@contextmanager
def _tf32() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
