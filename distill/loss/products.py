"""Matrix products of 16-bit models in fp32, for processors without instructions for 16 bits.

There they are several times slower than those of fp32. Their operands are widened for the product
alone, so that a model keeps the memory, and but for rounding the values, of its 16-bit weights.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from distill.backend.precision import multiplies

_ATEN = torch.ops.aten
PRODUCTS = frozenset(
    {
        _ATEN.mm.default,
        _ATEN.addmm.default,
        _ATEN.bmm.default,
        _ATEN.baddbmm.default,
        _ATEN._scaled_dot_product_flash_attention_for_cpu.default,
    }
)
NARROW = (torch.bfloat16, torch.float16)


class _WideProducts(TorchDispatchMode):
    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func not in PRODUCTS or args[0].dtype not in NARROW:
            return func(*args, **(kwargs or {}))
        dtype = args[0].dtype
        result = func(*tree_map(_wide, args), **tree_map(_wide, kwargs or {}))
        first, *rest = result if isinstance(result, tuple) else (result,)
        return (first.to(dtype), *rest) if rest else first.to(dtype)


def _wide(value: Any) -> Any:
    narrow = isinstance(value, torch.Tensor) and value.dtype in NARROW
    return value.float() if narrow else value


def slow_products(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether a processor is slow in a type, so that products are widened."""
    return device.type == "cpu" and not multiplies(dtype, device)


def with_fast_products(model: Any) -> Any:
    """`model`, whose forward passes multiply in fp32 where a processor is slow in its type."""
    parameter = next(model.parameters())
    if not slow_products(parameter.dtype, parameter.device):
        return model
    for module in {model, model.base_model}:
        module.forward = _widened(module.forward)
    return model


def _widened(forward: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(forward)
    def wide(*args: Any, **kwargs: Any) -> Any:
        with _WideProducts():  # type: ignore[no-untyped-call]
            return forward(*args, **kwargs)

    return wide
