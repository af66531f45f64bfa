"""What a student must compute: the teacher, with hooks that keep what is left out from being heard.

Knows nothing of the tensors of the student: only which modules say what it leaves out.
"""

import copy
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pruning.inference.layouts.cut import TinyCut
from pruning.inference.layouts.sites import Sites
from pruning.inference.tiny.precision import answers


@torch.no_grad()
def silenced_answers(teacher: Any, sites: Sites, cut: TinyCut, *, ids: Tensor) -> Tensor:
    """Logits of the teacher with all that the student leaves out silenced."""
    model = copy.deepcopy(teacher)
    dropped_experts: dict[int, Tensor] = {}
    for index in range(cut.whole.layers):
        layer = model.get_submodule(f"{sites.layer_prefix}.{index}")
        if index not in cut.layers:
            layer.register_forward_hook(_pass_on, with_kwargs=True)
            continue
        _silence_units(layer, sites, cut, index=index)
        dropped_experts |= _silence_experts(layer, sites, cut, index=index)
    if cut.student.hidden < cut.whole.hidden:
        spanning = {
            f"{sites.layer_prefix}.{i}.{name}" for i in cut.layers for name in sites.spanning_norms
        }
        kept = cut.ordering.hidden[: cut.student.hidden]
        _narrow(model, kept, cut.whole.hidden, but=spanning)
    with _WithoutExperts(dropped_experts):
        return answers(model, ids)


def _silence_units(layer: nn.Module, sites: Sites, cut: TinyCut, *, index: int) -> None:
    """Have a layer hear only the heads and neurons that the student keeps."""
    outputs = {
        "heads": sites.attention_output,
        "ffn": sites.ffn_output,
        "shared_ffn": sites.shared_output,
    }
    for axis, name in outputs.items():
        whole, output = getattr(cut.whole, axis), _module(layer, name)
        if output is not None and getattr(cut.student, axis) < whole:
            _silence(output, cut.kept(axis, index, None), whole)
    for name, axis in sites.spanning_norms.items():
        whole, norm = getattr(cut.whole, axis), _module(layer, name)
        if norm is not None and getattr(cut.student, axis) < whole:
            units, width = cut.kept(axis, index, None), norm.weight.numel() // whole
            rows = (units[:, None] * width + torch.arange(width)).flatten()
            _restrict(norm, rows, norm.weight.numel())


def _silence_experts(
    layer: nn.Module, sites: Sites, cut: TinyCut, *, index: int
) -> dict[int, Tensor]:
    """Have a layer's experts say nothing of the neurons that the student drops; returns the experts
    that it drops, by the identity of the router's weight."""
    whole, student, weights = cut.whole, cut.student, _tensor(layer, sites.expert_output)
    if weights is not None:
        for expert in range(whole.experts):
            out = cut.ordering.expert_ffn[index, expert][student.expert_ffn :]
            weights[expert].index_fill_(sites.expert_columns - 1, out, 0.0)
    router = _tensor(layer, sites.router)
    if router is None or student.experts == whole.experts:
        return {}
    out = cut.ordering.experts[index][student.experts :]
    for values in (*layer.parameters(), *layer.buffers()):
        if values.shape in ((whole.experts,), (1, whole.experts)):  # what is added to the scores
            values[..., out] = -torch.inf
    return {id(router): out}


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
        x, *others = (*args, *kwargs.values())  # norms have no options
        if x.shape[-1] != hidden:
            result: Tensor = own(x, *others)
            return result
        return torch.zeros_like(x).index_copy(-1, kept, inner(x[..., kept], *others))

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
