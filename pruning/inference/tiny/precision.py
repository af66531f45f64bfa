"""Float64 from end to end: equal computations differ by what is wrong, and by nothing else.

Models round parts of a float64 computation to fp32 on the way (norms, rotary angles, softmax,
routers), and what is rounded in another order differs.
"""

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


class Float64(TorchFunctionMode):
    """Has every cast to fp32, and every new tensor, be of float64 in its place."""

    def __enter__(self) -> "Float64":
        self._before = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *raised: Any) -> None:
        super().__exit__(*raised)  # type: ignore[no-untyped-call]
        torch.set_default_dtype(self._before)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        raised = {name: _raised(value) for name, value in (kwargs or {}).items()}
        if func is Tensor.float:
            func = Tensor.double
        return func(*map(_raised, args), **raised)


def _raised(value: Any) -> Any:
    return torch.float64 if value is torch.float32 else value


@torch.no_grad()
def answers(model: Any, ids: Tensor) -> Tensor:
    """Logits [batch, sequence, vocab] of a model in float64."""
    with Float64():
        result: Tensor = model(input_ids=ids, use_cache=False).logits
    return result


def difference(first: Tensor, second: Tensor) -> float:
    """Largest difference, relative to the largest of `second`; infinite where one is not finite."""
    if first.shape != second.shape:
        return float("inf")
    found = float((first - second).abs().max() / second.abs().max())
    return found if found == found else float("inf")
