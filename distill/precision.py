"""Which floating-point type a run computes in; weights and moments stay fp32."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from distill.errors import DistillError

PRECISIONS = ("auto", "bf16", "tf32", "fp32")


def resolve_precision(name: str, device: torch.device) -> str:
    """ "bf16", "tf32" or "fp32": "auto" is bf16 where the hardware multiplies it natively."""
    if name not in PRECISIONS:
        raise DistillError(f"precision is {name!r}; it must be one of {', '.join(PRECISIONS)}")
    if name == "tf32" and device.type != "cuda":
        raise DistillError(
            f"precision is 'tf32', which the device {device.type} does not have; use bf16 or fp32"
        )
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if device.type == "cpu":
        return "bf16" if _cpu_multiplies_bf16() else "fp32"
    return "fp32"


def _cpu_multiplies_bf16() -> bool:
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(name) for name in ("amx_bf16", "avx512_bf16", "bf16"))


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """The context that a forward pass runs in."""
    if precision == "fp32":
        return nullcontext()
    if precision == "tf32":
        return _tf32()
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
