"""Exactness that no processor's kernels decide: float64 from end to end, and what fp32 owes.

Model code rounds parts of a float64 model to fp32 on its way (norms, rotary angles, softmax,
routers). Two computations that are equal then differ by fp32 rounding, in an order of summation
that is the processor's. Under `Float64` nothing is rounded, so that equal things are equal to 1e-9.
"""

import contextlib
from typing import Any

import torch
from torch import Tensor

from pruning import architecture_of
from pruning.families.table import head_dim_of
from pruning.inference.tiny import precision

EXACT = 1e-9
"""Largest difference in float64, relative to the largest value: 4e6 epsilons, and a millionth of
what the least wrong row costs."""


class Float64(precision.Float64):
    """The same for gradients too, and for products by group."""

    def __enter__(self) -> "Float64":
        self._float = Tensor.float
        Tensor.float = Tensor.double  # type: ignore[method-assign]  # hooks of gradients too
        super().__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        super().__exit__(*raised)
        Tensor.float = self._float  # type: ignore[method-assign]

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is torch._grouped_mm:
            func = _grouped_products
        return super().__torch_function__(func, types, args, kwargs)


def _grouped_products(rows: Tensor, matrices: Tensor, *, offs: Tensor, **_: Any) -> Tensor:
    """Each group of `rows` times its own matrix; torch has this only up to fp32."""
    groups = rows.tensor_split(offs.tolist()[:-1])
    return torch.cat([group @ matrix for group, matrix in zip(groups, matrices, strict=True)])


def exactly(model: Any) -> contextlib.AbstractContextManager[Any]:
    """`Float64` for a model in float64, also of the parts that its code keeps in fp32; others
    compute as they would."""
    if model.dtype != torch.float64:
        return contextlib.nullcontext()
    model.double()
    return Float64()


def fp32_tolerance(config: Any) -> float:
    """Largest difference of two fp32 computations of one model, relative to the largest logit.

    A sum of n products that is rounded n times is off by up to n epsilons of its terms' size, in
    whatever order it is summed. Along the deepest path of a model, the sums of a layer follow one
    another (queries or values, what attention says, the two matrices of the FFN, the two norms),
    and after the layers the norm and the head. Each side of a comparison is off by that much.
    """
    sizes = architecture_of(config)
    ffn = max(sizes.ffn, sizes.expert_ffn * max(sizes.experts, 1))
    layer = 4 * sizes.hidden + sizes.heads * head_dim_of(config) + ffn
    return 2 * torch.finfo(torch.float32).eps * (sizes.layers * layer + 2 * sizes.hidden)
