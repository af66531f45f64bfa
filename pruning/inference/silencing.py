"""What a student must compute: the teacher, with hooks that keep what is left out from being heard.

Knows nothing of the tensors of the student: only which modules say what it leaves out.
"""

import copy
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pruning.inference.cut import TinyCut
from pruning.inference.precision import answers


@dataclass(frozen=True)
class Sites:
    """Modules where the parts of a layer are heard; "" for what a type does not have. Names are
    those of a loaded model, in a layer."""

    layer_prefix: str = ""
    """Module that holds the layers."""
    attention_input: str = ""
    """The first projection of attention that reads the hidden channels."""
    attention_output: str = ""
    """The projection that reads the query heads."""
    ffn_input: str = ""
    """The first projection of the FFN, or the module that has them all."""
    ffn_output: str = ""
    """The projection that reads the neurons of a dense FFN."""
    router: str = ""
    """Tensor of the router, a row for each expert."""
    expert_output: str = ""
    """Tensor of all experts that reads their neurons."""
    expert_columns: int = 0
    """Its dimension for the neurons."""
    shared_output: str = ""
    """The projection that reads the neurons of the experts that all tokens are sent to."""
    spanning_norms: Mapping[str, str] = field(default_factory=dict)
    """Module that norms all channels of all heads at once -> the heads that these are of."""


@torch.no_grad()
def silenced_answers(teacher: Any, sites: Sites, cut: TinyCut, *, ids: Tensor) -> Tensor:
    """Logits of the teacher with all that the student leaves out silenced."""
    model = copy.deepcopy(teacher)
    whole, student = cut.whole, cut.student
    dropped_experts: dict[int, Tensor] = {}
    for index in range(whole.layers):
        layer = model.get_submodule(f"{sites.layer_prefix}.{index}")
        if index not in cut.layers:
            layer.register_forward_hook(_pass_on, with_kwargs=True)
            continue
        if student.heads < whole.heads:
            kept = cut.kept("heads", index, None)
            if output := _module(layer, sites.attention_output):
                _silence(output, kept, whole.heads)
        for name, axis in sites.spanning_norms.items():
            norm = _module(layer, name)
            if norm and getattr(student, axis) < getattr(whole, axis):
                units = cut.kept(axis, index, None)
                width = norm.weight.numel() // getattr(whole, axis)
                rows = (units[:, None] * width + torch.arange(width)).flatten()
                _restrict(norm, rows, norm.weight.numel())
        if student.ffn < whole.ffn and _module(layer, sites.ffn_output):
            _silence(_module(layer, sites.ffn_output), cut.kept("ffn", index, None), whole.ffn)
        if student.shared_ffn < whole.shared_ffn and _module(layer, sites.shared_output):
            shared = cut.kept("shared_ffn", index, None)
            _silence(_module(layer, sites.shared_output), shared, whole.shared_ffn)
        if student.expert_ffn < whole.expert_ffn and (weights := _tensor(layer, sites.expert_output)) is not None:
            for expert in range(whole.experts):
                out = cut.ordering.expert_ffn[index, expert][student.expert_ffn :]
                weights[expert].index_fill_(sites.expert_columns - 1, out, 0.0)
        if student.experts < whole.experts and (router := _tensor(layer, sites.router)) is not None:
            out = cut.ordering.experts[index][student.experts :]
            dropped_experts[id(router)] = out
            for name, values in [*layer.named_parameters(), *layer.named_buffers()]:
                if values.shape in ((whole.experts,), (1, whole.experts)):
                    values[..., out] = -torch.inf
    if student.hidden < whole.hidden:
        spanning = {
            f"{sites.layer_prefix}.{i}.{name}" for i in cut.layers for name in sites.spanning_norms
        }
        _narrow(model, cut.ordering.hidden[: student.hidden], whole.hidden, but=spanning)
    with _WithoutExperts(dropped_experts):
        return answers(model, ids)


def _pass_on(_: Any, args: Any, kwargs: Any, output: Any) -> Any:
    hidden = args[0] if args else kwargs["hidden_states"]
    return (hidden, *output[1:]) if isinstance(output, tuple) else hidden


def _module(layer: nn.Module, name: str) -> Any:
    try:
        return layer.get_submodule(name) if name else None
    except AttributeError:  # a layer of another kind
        return None


def _tensor(layer: nn.Module, name: str) -> Any:
    module, _, leaf = name.rpartition(".")
    found = layer if not module else _module(layer, module)
    return getattr(found, leaf, None) if name else None


def _silence(module: Any, kept: Tensor, units: int) -> None:
    """Have `module` read zeros from all but the kept of its `units` inputs."""

    def hook(_: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        heard = torch.zeros(units, dtype=inputs[0].dtype)
        heard[kept] = 1.0
        width = inputs[0].shape[-1] // units
        return (inputs[0] * heard.repeat_interleave(width), *inputs[1:])

    module.register_forward_pre_hook(hook)


def _narrow(model: Any, kept: Tensor, hidden: int, *, but: Collection[str]) -> None:
    """Have every norm see the kept hidden channels only, and embeddings say zero for the rest;
    norms over something else are as they are."""
    dropped = torch.ones(hidden).bool()
    dropped[kept] = False
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Embedding):
            module.register_forward_hook(
                lambda m, i, output: (
                    output.masked_fill(dropped, 0.0) if output.shape[-1] == hidden else output
                )
            )
        elif "norm" in type(module).__name__.lower() and name not in but:
            _restrict(module, kept, hidden)


def _restrict(norm: Any, kept: Tensor, hidden: int) -> None:
    """Have `norm` see the `kept` of its channels only, and say zero for the rest."""
    own, inner = norm.forward, copy.deepcopy(norm)
    for values in [*inner.parameters(), *inner.buffers()]:
        if values.shape == (hidden,):
            values.data = values.data[kept]
    if getattr(inner, "normalized_shape", None):
        inner.normalized_shape = (len(kept),)

    def forward(*args: Any, **kwargs: Any) -> Tensor:
        x, *args = (*args, *kwargs.values())  # norms have no options
        if x.shape[-1] != hidden:
            result: Tensor = own(x, *args)
            return result
        return torch.zeros_like(x).index_copy(-1, kept, inner(x[..., kept], *args))

    norm.forward = forward


class _WithoutExperts(TorchFunctionMode):
    """Has routers score the experts that are left out below all others."""

    def __init__(self, dropped: dict[int, Tensor]):
        super().__init__()
        self.dropped = dropped

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is nn.functional.linear and id(args[1]) in self.dropped:
            return result.index_fill(-1, self.dropped[id(args[1])], -torch.inf)
        return result
