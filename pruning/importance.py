"""How much each part of a model matters, from one forward pass over calibration text.

Follows Minitron (arXiv 2407.14679): activations only, hooks on the model as it is, fp32
accumulation, "L2 over samples of the mean over the sequence" as aggregate; layers by block
influence (ShortGPT, arXiv 2403.03853). Memory does not grow with the number of samples.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pruning.errors import PruningError
from pruning.families import Family, family_of, head_dim_of


@dataclass(frozen=True)
class Importance:
    """Scores in fp32, higher is more important."""

    hidden: Tensor
    """[hidden], summed over the model's norms."""
    heads: Tensor
    """[layers, heads], query heads."""
    ffn: Tensor
    """[layers, ffn]."""
    layers: Tensor
    """[layers], block influence."""

    def save(self, path: Path) -> None:
        save_file({f.name: getattr(self, f.name).contiguous() for f in fields(self)}, path)

    @classmethod
    def load(cls, path: Path) -> "Importance":
        return cls(**load_file(path))


class _MeanAbsolute:
    """Sum over samples of the square of the mean over the sequence of |x|, per channel."""

    def __init__(self) -> None:
        self.total: Tensor | None = None

    def add(self, activations: Tensor) -> None:
        """`activations` is [batch, sequence, channels]."""
        mean = activations.abs().mean(1, dtype=torch.float32)
        squares = (mean * mean).sum(0)
        self.total = squares if self.total is None else self.total.add_(squares)

    def score(self) -> Tensor:
        assert self.total is not None, "no batch was seen"
        return self.total.sqrt().cpu()


class _Influence:
    """Sum over tokens of 1 - the cosine between each layer's input and output."""

    def __init__(self, layers: int) -> None:
        self.totals: list[Tensor | float] = [0.0] * layers
        self.tokens = [0] * layers
        self.last: tuple[Tensor, Tensor] | None = None
        """The latest layer's output and its norms: the next layer's input."""

    def add(self, layer: int, before: Tensor, after: Tensor) -> None:
        """Both are [batch, sequence, hidden]."""
        known = self.last is not None and self.last[0] is before
        norms_before = self.last[1] if self.last is not None and known else _norms(before)
        norms_after = _norms(after)
        self.last = after, norms_after
        dots = (before.float() * after.float()).sum(-1)
        cosine = dots / (norms_before * norms_after).clamp_min(torch.finfo(torch.float32).tiny)
        self.totals[layer] += (1 - cosine).sum()
        self.tokens[layer] += cosine.numel()

    def score(self) -> Tensor:
        """The mean, per layer."""
        pairs = zip(self.totals, self.tokens, strict=True)
        return torch.tensor([float(total) / tokens for total, tokens in pairs])


def _norms(vectors: Tensor) -> Tensor:
    return torch.linalg.vector_norm(vectors, dim=-1, dtype=torch.float32)


class _Observer:
    """The hooks on one model and what they have gathered."""

    def __init__(self, model: nn.Module, family: Family):
        config: Any = model.config
        self.head_dim = head_dim_of(config)
        layers = [
            model.get_submodule(f"{family.layer_prefix}.{i}")
            for i in range(config.num_hidden_layers)
        ]
        self.norms = [[_MeanAbsolute() for _ in family.input_norms] for _ in layers]
        self.heads = [_MeanAbsolute() for _ in layers]
        self.neurons = [_MeanAbsolute() for _ in layers]
        self.influence = _Influence(len(layers))
        self.handles = []
        for index, layer in enumerate(layers):
            for name, store in zip(family.input_norms, self.norms[index], strict=True):
                hook = self._after(store)
                self.handles.append(layer.get_submodule(name).register_forward_hook(hook))
            output = layer.get_submodule(family.attention_output)
            self.handles.append(output.register_forward_pre_hook(self._heads(self.heads[index])))
            output = layer.get_submodule(family.ffn_output)
            self.handles.append(output.register_forward_pre_hook(self._before(self.neurons[index])))
            self.handles.append(layer.register_forward_hook(self._block(index), with_kwargs=True))

    @staticmethod
    def _after(store: _MeanAbsolute) -> Callable[..., None]:
        return lambda module, inputs, output: store.add(output)

    @staticmethod
    def _before(store: _MeanAbsolute) -> Callable[..., None]:
        return lambda module, inputs: store.add(inputs[0])

    def _heads(self, store: _MeanAbsolute) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            per_head = inputs[0].unflatten(-1, (-1, self.head_dim))
            store.add(_norms(per_head))

        return hook

    def _block(self, index: int) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, kwargs: Any, output: Any) -> None:
            before = inputs[0] if inputs else kwargs["hidden_states"]
            after = output[0] if isinstance(output, tuple) else output
            self.influence.add(index, before, after)

        return hook

    def close(self) -> None:
        for handle in self.handles:
            handle.remove()


@torch.no_grad()
def measure_importance(model: nn.Module, batches: Iterable[Tensor]) -> Importance:
    """Score every axis of a Hugging Face causal LM on `batches` of token ids [batch, sequence].

    Raises PruningError for an unsupported model type, for no batches, and for scores that are not
    finite (the model's weights or its precision are broken then).
    """
    family = family_of(model.config)  # type: ignore[arg-type]
    modes = {module: module.training for module in model.modules()}
    backbone: Any = model.base_model
    device = next(model.parameters()).device
    observer = _Observer(model, family)
    model.eval()
    try:
        for batch in batches:
            backbone(input_ids=batch.to(device), use_cache=False)
    finally:
        observer.close()
        for module, mode in modes.items():
            module.training = mode
    if not observer.influence.tokens[0]:
        raise PruningError("no calibration sequences: importance needs at least one batch")
    hidden = [store.score() for stores in observer.norms for store in stores]
    importance = Importance(
        hidden=torch.stack(hidden).sum(0),
        heads=torch.stack([store.score() for store in observer.heads]),
        ffn=torch.stack([store.score() for store in observer.neurons]),
        layers=observer.influence.score(),
    )
    for axis in fields(importance):
        if not torch.isfinite(getattr(importance, axis.name)).all():
            raise PruningError(
                f"the {axis.name} scores are not finite: the model's activations overflow; "
                "check its weights, or load it in fp32"
            )
    return importance
