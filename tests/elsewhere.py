"""A device that no machine has: tensors on it have no values, and nothing may be mixed with it.

torch's fake tensors stand in for a GPU's. A tensor that is left on the CPU and meets one of them is
an error, as on a GPU, and so is whatever makes the host wait for a value, unless a test allows it.
(torch without CUDA cannot differentiate fake tensors of CUDA, but those of the meta device.)
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily

ELSEWHERE = torch.device("meta")


@contextmanager
def elsewhere(*models: Any) -> Iterator[list[str]]:
    """Inside, `models` are on the device; gives what made the host wait, by method.

    What is asked of a tensor is answered with ones.
    """
    waited: list[str] = []
    with FakeTensorMode(allow_non_fake_inputs=True) as mode, _answers(waited):
        for model in models:
            _move(model, mode)
        yield waited


def _move(model: Any, mode: FakeTensorMode) -> None:
    for module in model.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None:
                moved = torch.empty(parameter.shape, dtype=parameter.dtype, device=ELSEWHERE)
                grad = parameter.requires_grad
                module._parameters[name] = torch.nn.Parameter(moved, requires_grad=grad)
        for name, buffer in list(module._buffers.items()):
            if buffer is not None:
                module._buffers[name] = torch.empty(
                    buffer.shape, dtype=buffer.dtype, device=ELSEWHERE
                )


@contextmanager
def _answers(waited: list[str]) -> Iterator[None]:
    """Methods that read a tensor's values, replaced."""

    names = ("cpu", "item", "tolist", "numpy", "__bool__", "__float__", "__int__")
    with unset_fake_temporarily():
        kept = {name: getattr(torch.Tensor, name) for name in names}
        kept_in_class = {name for name in names if name in vars(torch.Tensor)}

    def ones(name: str) -> Any:
        own = kept[name]

        def read(tensor: torch.Tensor, *_: Any, **__: Any) -> Any:
            if tensor.device == ELSEWHERE:
                waited.append(name)
            with unset_fake_temporarily():
                return own(torch.ones(tensor.shape, dtype=tensor.dtype))

        return read

    try:
        for name in names:
            setattr(torch.Tensor, name, ones(name))
        yield
    finally:
        for name in names:
            if name in kept_in_class:
                setattr(torch.Tensor, name, kept[name])
            else:
                delattr(torch.Tensor, name)
