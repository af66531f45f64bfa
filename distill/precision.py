"""Which floating-point type a run computes in; weights and moments stay fp32."""

from contextlib import AbstractContextManager, nullcontext

import torch

from distill.errors import DistillError

PRECISIONS = ("auto", "bf16", "fp32")


def resolve_precision(name: str, device: torch.device) -> str:
    """ "bf16" or "fp32": "auto" is bf16 where the hardware multiplies it natively."""
    if name not in PRECISIONS:
        raise DistillError(f"precision is {name!r}; it must be one of {', '.join(PRECISIONS)}")
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
    return torch.autocast(device.type, torch.bfloat16)
