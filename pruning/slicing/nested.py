"""Nested layers: decoder layers of a loaded sorted model, each run at a smaller size.

A smaller layer is prefix slices of the parameters that are loaded, by the same rows as cutting, and
no copy: gradients reach the whole parameters. Everything around the layers (masks, rotary
embeddings, hooks, gradient checkpointing) stays that of the stock model.
"""

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.func import functional_call
from transformers import PretrainedConfig, PreTrainedModel
from transformers.masking_utils import create_sliding_window_causal_mask

from pruning.families.architecture import Architecture
from pruning.families.block import Block
from pruning.families.shapes import architecture_of
from pruning.families.table import family_of
from pruning.families.words import TensorSpec
from pruning.importance.ordering import Ordering
from pruning.per_layer.layers import build_layer
from pruning.slicing.selection import Selection, Slice, gather

ANY_EXPERT = 0
"""Of a sorted teacher every expert has its neurons in its own order: the prefix is the same."""


class NestedLayer:
    """A decoder layer of the sizes of `block`, whose parameters are slices of a larger one's."""

    def __init__(self, config: PretrainedConfig, index: int, *, block: Block):
        """Of layer `index` of a model with `config`."""
        self.config, self.block = config, block
        with torch.device("meta"):
            self._frame = build_layer(config, block, index).eval()
        family, whole = family_of(config), architecture_of(config)
        alone = Architecture.of_blocks(whole.hidden, [block])
        cut = Slice(config, Ordering.identity(whole), alone, [index])
        axes = family.loaded_axes(config, index)
        self._selections: dict[str, list[Selection]] = {
            name: cut.selection(TensorSpec(name, axes[name], index, ANY_EXPERT))
            for name in self._frame.state_dict()
        }

    def run(
        self, parameters: Mapping[str, Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """What it gives for these arguments of a decoder layer.

        `parameters` are those of a layer of full size, by their names in it; of a sub-block that is
        left out they need not be there.
        """
        own = {n: gather(parameters[n], chosen) for n, chosen in self._selections.items()}
        if self.block.window:
            states = args[0] if args else kwargs["hidden_states"]
            kwargs = {**kwargs, "attention_mask": self._windowed(states, kwargs)}
        return functional_call(self._frame, own, args, kwargs)

    def _windowed(self, states: Tensor, kwargs: Mapping[str, Any]) -> Any:
        """The mask of the model's window, which a layer with full attention is not given."""
        return create_sliding_window_causal_mask(
            config=self.config,
            inputs_embeds=states,
            attention_mask=None,
            past_key_values=kwargs.get("past_key_values"),
            position_ids=kwargs.get("position_ids"),
        )


class NestedLayers:
    """The decoder layers of a loaded sorted model; each is run whole, smaller, or not at all.

    Inside its context only: the model is as it was afterwards. Sequences are not padded where a
    layer takes a window.
    """

    def __init__(self, model: PreTrainedModel):
        """`model` has the sizes of the sorted teacher in every layer."""
        config: Any = model.config
        self.config: PretrainedConfig = config
        layers: Any = model.get_submodule(family_of(config).layers_module)
        self.layers: list[nn.Module] = list(layers)
        self._made: dict[tuple[int, Block], NestedLayer] = {}

    def resize(
        self, index: int, block: Block, *, parameters: Mapping[str, Tensor] | None = None
    ) -> None:
        """Have layer `index` compute what one of these sizes would.

        Its parameters are slices of the layer's own, or of the given `parameters` of full size, by
        their names in a layer.
        """
        if (index, block) not in self._made:
            self._made[index, block] = NestedLayer(self.config, index, block=block)
        nested, layer = self._made[index, block], self.layers[index]
        whole = {**layer.state_dict(keep_vars=True), **(parameters or {})}

        def forward(*args: Any, **kwargs: Any) -> Any:
            return nested.run(whole, args, kwargs)

        layer.__dict__["forward"] = forward

    def skip(self, index: int) -> None:
        """Have layer `index` give back its input."""
        self.layers[index].__dict__["forward"] = _pass

    def restore(self, index: int) -> None:
        """Have layer `index` run whole again."""
        self.layers[index].__dict__.pop("forward", None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for index in range(len(self.layers)):
            self.restore(index)


def _pass(hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
    return hidden_states
