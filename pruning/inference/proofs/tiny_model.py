"""Tiny models that a layout is proven on, and what is asked of them beside their answers."""

import copy
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from common.errors import PruningError
from pruning.families.architecture import Architecture
from pruning.families.words import Axes
from pruning.inference.layouts.layout import Layout
from pruning.inference.layouts.sites import Sites
from pruning.inference.tiny.building import random_model, stored_tensors
from pruning.inference.tiny.growth import Growth
from pruning.inference.tiny.precision import Float64, answers, difference


@dataclass
class TinyModel:
    """A random model of a type, in float64."""

    growth: Growth
    """How its tensors grow with its sizes."""
    model: Any
    """The model."""
    sites: Sites = field(default_factory=Sites)
    """Where its parts are heard, once that is known."""
    ids: Tensor = field(init=False)
    """Token ids [batch, sequence] that it is asked."""

    def __post_init__(self) -> None:
        vocab = self.growth.tiny.sizes["vocab"]
        generator = torch.Generator().manual_seed(2)
        self.ids = torch.randint(3, vocab, (2, 13), generator=generator)

    @cached_property
    def stored(self) -> dict[str, Tensor]:
        """Its tensors as a checkpoint has them."""
        return {name: tensor.clone() for name, tensor in stored_tensors(self.model).items()}

    @cached_property
    def expected(self) -> Tensor:
        """What it answers."""
        return answers(self.model, self.ids)

    @cached_property
    def whole(self) -> Architecture:
        """Its sizes."""
        sizes: dict[str, Any] = {"ffn": 0, **self.growth.sizes}
        return Architecture(**sizes)

    @property
    def causal(self) -> bool:
        """Whether what it says of a token is the same whatever comes after."""
        other = self.ids.clone()
        other[:, -1] = (other[:, -1] + 1) % self.growth.tiny.sizes["vocab"]
        before = slice(0, -1)
        changed = answers(self.model, other)[:, before]
        return difference(changed, self.expected[:, before]) < 1e-6

    @property
    def layers(self) -> list[Any]:
        """Its layers."""
        prefix = self.sites.layer_prefix
        return [self.model.get_submodule(f"{prefix}.{i}") for i in range(self.whole.layers)]

    @cached_property
    def ends(self) -> tuple[str, str]:
        """Names on disk of the output head and of the embedding."""
        both = self.model.get_output_embeddings(), self.model.get_input_embeddings()
        if None in both:
            raise PruningError("its model does not say which its embedding and output head are")
        names: dict[int, list[str]] = {}
        for name, tensor in self.model.state_dict(keep_vars=True).items():
            names.setdefault(id(tensor), []).append(name)
        heads, embeddings = (names.get(id(module.weight), []) for module in both)
        embedding = next((name for name in embeddings if name in self.growth.outer), None)
        if embedding is None:
            raise PruningError("its embedding has another name on disk than in memory")
        own = [name for name in heads if name in self.growth.outer and name != embedding]
        return next(iter(own + [name for name in heads if name != embedding])), embedding

    def last_norm(self, layout: Layout) -> str:
        """Weight of the norm after the layers."""
        norms = [
            name
            for name in self.stored
            if name in self.growth.outer
            and layout.axes[name] == ("hidden",)
            and name.endswith(".weight")
        ]
        if not norms:
            raise PruningError("no norm follows its layers")
        return norms[-1]

    def head_axes(self, layout: Layout) -> Axes:
        """Axes of the output head, which may be the embedding."""
        head, embedding = self.ends
        return layout.axes.get(head, layout.axes[embedding])

    @cached_property
    def norm_offset(self) -> float:
        """What norms over the hidden channels add to their weight: asked of the first."""
        hidden = self.whole.hidden
        x = torch.randn(1, hidden, generator=torch.Generator().manual_seed(1)).double()
        for module in self.model.modules():
            weight = getattr(module, "weight", None)
            if "norm" not in type(module).__name__.lower() or weight is None:
                continue
            if weight.shape != (hidden,):
                continue
            norm, said = copy.deepcopy(module), []
            with torch.no_grad(), Float64():
                if getattr(norm, "bias", None) is not None:
                    norm.bias.zero_()
                for value in (0.0, 1.0):
                    norm.weight.fill_(value)
                    said.append(norm(x))
            return float((said[0] / (said[1] - said[0])).mean().round(decimals=6))
        return 0.0

    def works(self, **changed: int) -> bool:
        """Whether a model with these sizes changed can be built and answers."""
        try:
            answers(random_model(self.growth.tiny.config(**changed)), self.ids)
        except Exception:  # that is the question
            return False
        return True
