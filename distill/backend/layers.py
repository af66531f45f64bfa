"""Decoder layers of a causal LM, and the hidden states that pass between them.

By hooks on the stock modules, for any model type: a layer takes its hidden states [batch, sequence,
hidden] as its first argument or as `hidden_states`, and gives them back alone or first in a tuple.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from common.errors import DistillError

EMBEDDINGS = -1
"""In place of a layer's number: what enters the first layer."""


def base_of(model: nn.Module) -> nn.Module:
    """The causal LM without its head, which runs the layers alone."""
    base: nn.Module = getattr(model, "base_model", model)
    return base


def input_device(model: nn.Module) -> torch.device:
    """The device that token ids are given on, also of a model that is spread over devices."""
    return next(p for p in model.parameters() if p.device.type != "meta").device


def decoder_layers(model: nn.Module) -> nn.ModuleList:
    """The layers of a Hugging Face causal LM, in order.

    Raises DistillError where no list, or more than one, has as many modules as the configuration
    has layers.
    """
    config: Any = model.config
    depth = config.get_text_config().num_hidden_layers
    lists: dict[str, nn.ModuleList] = {}
    for name, module in base_of(model).named_modules():
        inside = any(name.startswith(f"{outer}.") for outer in lists)
        if isinstance(module, nn.ModuleList) and len(module) == depth and not inside:
            lists[name] = module
    if len(lists) != 1:
        what = f"lists {', '.join(lists)}" if lists else "no list"
        raise DistillError(
            f"a {type(model).__name__} has {what} of {depth} modules; it must have one, its layers"
        )
    return next(iter(lists.values()))


@contextmanager
def recording(model: nn.Module, wanted: Collection[int]) -> Iterator[dict[int, Tensor]]:
    """Collect the hidden states [batch, sequence, hidden] after the layers `wanted`.

    `EMBEDDINGS` is what enters the first layer. The dictionary holds those of the latest forward
    pass, with their gradients where it has any; layers that gradient checkpointing runs again in
    the backward pass are not counted. Raises DistillError for a layer that the model has not.
    """
    if not wanted:
        yield {}
        return
    layers = decoder_layers(model)
    for index in wanted:
        if not EMBEDDINGS <= index < len(layers):
            raise DistillError(
                f"layer {index} is wanted; it must be between 0 and {len(layers) - 1}, "
                f"or {EMBEDDINGS} for the embeddings"
            )
    recorder = _Recorder()
    base = base_of(model)
    handles = [
        base.register_forward_pre_hook(recorder.begin),
        base.register_forward_hook(recorder.end, always_call=True),
    ]
    for index in set(wanted):
        if index == EMBEDDINGS:
            hook = recorder.entering(index)
            handles.append(layers[0].register_forward_pre_hook(hook, with_kwargs=True))
        else:
            handles.append(layers[index].register_forward_hook(recorder.leaving(index)))
    try:
        yield recorder.states
    finally:
        for handle in handles:
            handle.remove()


class _Recorder:
    """Recorder of hidden states while the model's own forward pass is under way."""

    def __init__(self) -> None:
        self.states: dict[int, Tensor] = {}
        self.under_way = False

    def begin(self, *_: Any) -> None:
        self.states.clear()
        self.under_way = True

    def end(self, *_: Any) -> None:
        self.under_way = False

    def entering(self, index: int) -> Any:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if self.under_way:
                self.states[index] = args[0] if args else kwargs["hidden_states"]

        return hook

    def leaving(self, index: int) -> Any:
        def hook(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            if self.under_way:
                self.states[index] = output[0] if isinstance(output, tuple) else output

        return hook


@contextmanager
def feeding(model: nn.Module, inputs: Mapping[int, Tensor]) -> Iterator[None]:
    """Have each layer in `inputs` read those hidden states [batch, sequence, hidden].

    What the layer before gave is thrown away; the given states take its device and type. Under
    gradient checkpointing the backward pass may run the layers again, so it belongs inside too.
    """
    layers = decoder_layers(model)
    handles = [
        layers[index].register_forward_pre_hook(_replacing(states), with_kwargs=True)
        for index, states in inputs.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _replacing(states: Tensor) -> Any:
    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        if args:
            return (states.to(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": states.to(kwargs["hidden_states"])}

    return hook
