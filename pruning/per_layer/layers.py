"""Decoder layers of given sizes, of which attention or FFN may be left out."""

from collections.abc import Mapping
from copy import copy
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING, PretrainedConfig
from transformers.initialization import no_init_weights

from pruning.families.block import ATTENTION, FFN, Block
from pruning.families.spec import Family
from pruning.families.table import FAMILIES, family_of, head_dim_of

WINDOWED = "sliding_attention"
"""Entry of `layer_types` of a layer with a sliding window."""


class NoAttention(nn.Module):
    """Attention that is left out: adds nothing, and tells a KV cache how many tokens it has seen.

    transformers asks the cache of one layer, mostly the first, for the length of the text. A layer
    without heads would say 0, so this one keeps a byte per token for keys and one for values.
    """

    def __init__(self, index: int):
        """`index` is the layer's in its model."""
        super().__init__()
        self.layer_idx = index

    def forward(
        self,
        hidden_states: Tensor,
        *_: Any,
        past_key_values: Any = None,
        layer_past: Any = None,
        **__: Any,
    ) -> tuple[Tensor, None]:
        """Zeros like `hidden_states` [batch, sequence, hidden], and no attention weights."""
        cached = layer_past if past_key_values is None else past_key_values
        if cached is not None:
            batch, tokens = hidden_states.shape[:2]
            seen = hidden_states.new_zeros((batch, 1, tokens, 1), dtype=torch.int8)
            cached.update(seen, seen, self.layer_idx)
        return torch.zeros_like(hidden_states), None


class NoFFN(nn.Module):
    """FFN or mixture of experts that is left out: adds nothing."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Zeros like `hidden_states` [batch, sequence, hidden]."""
        return torch.zeros_like(hidden_states)


class NoScoredFFN(NoFFN):
    """The same where a layer expects the router's scores besides."""

    def forward(self, hidden_states: Tensor) -> Any:
        """Zeros like `hidden_states` [batch, sequence, hidden], and no scores."""
        return super().forward(hidden_states), None


class LayerConfig:
    """The configuration of a model as one of its layers reads it: with sizes of its own.

    All else is asked of the model's, since some of that changes later, such as the implementation
    of attention.
    """

    def __init__(self, model: PretrainedConfig, sizes: Mapping[str, Any]):
        """`sizes` are by the names of the configuration's fields."""
        self._model, self._sizes = model, sizes

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # asked for by who copies it, before it has attributes
            raise AttributeError(name)
        name = self._model.attribute_map.get(name, name)
        return self._sizes[name] if name in self._sizes else getattr(self._model, name)


def build_layer(config: PretrainedConfig, block: Block, index: int) -> nn.Module:
    """The stock decoder layer of a model with `config`, but with the sizes of `block`.

    Its parameters are those that torch begins with, of the default type and on the default device.

    Args:
        config: Of the model; its own sizes of heads, FFN and experts do not matter.
        block: Sizes of the layer.
        index: Place of the layer in the model, which decides what differs by place.
    """
    family = family_of(config)
    sizes = _sizes(config, block, index)
    sized = copy(config)
    for name, value in sizes.items():
        setattr(sized, name, value)
    sized.dtype = torch.get_default_dtype()  # asked for by parameters of an activation
    layer: nn.Module = _layer_class(config.model_type)(sized, index)
    for sub_block in (ATTENTION, FFN):
        if not block.has(sub_block):
            _leave_out(layer, family, block=block, sub_block=sub_block, index=index)
    for module in layer.modules():
        if getattr(module, "config", None) is sized:
            module.config = LayerConfig(config, sizes)  # type: ignore[assignment]
    return layer


@cache
def _layer_class(model_type: str) -> Any:
    """The class of decoder layers of the stock model of this type."""
    config_class: Any = CONFIG_MAPPING[model_type]
    model_class: Any = MODEL_FOR_CAUSAL_LM_MAPPING[config_class]
    # Some default configurations have no number of KV heads, or of channels of a head.
    values = {"head_dim": 8} if FAMILIES[model_type].has_head_dim else {}
    config = config_class(num_hidden_layers=1, num_key_value_heads=1, **values)
    with no_init_weights(), torch.device("meta"):
        layers = model_class(config).get_submodule(family_of(config).layers_module)
    return type(layers[0])


def _sizes(config: PretrainedConfig, block: Block, index: int) -> dict[str, Any]:
    """Fields of the configuration that a layer with `block` is built from.

    Those of a sub-block that is left out stay as they are.
    """
    family = family_of(config)
    axes = ("heads", "kv_heads", "ffn", "experts", "expert_ffn")
    sizes: dict[str, Any] = {
        family.fields[axis]: getattr(block, axis)
        for axis in axes
        if axis in family.fields and getattr(block, axis)
    }
    if family.has_head_dim:
        sizes["head_dim"] = head_dim_of(config)
    if block.window:
        kinds = list(config.layer_types)
        kinds[index] = WINDOWED
        sizes["layer_types"] = kinds
    return sizes


def _leave_out(
    layer: nn.Module, family: Family, *, block: Block, sub_block: str, index: int
) -> None:
    """Have a sub-block of `layer` that its `block` has not give zeros, without parameters or norms
    of its own."""
    outputs = {ATTENTION: family.attention_output, FFN: family.ffn_output}
    module = outputs[sub_block].rpartition(".")[0]
    for name, child in list(layer.named_children()):
        if name == module:
            empty = NoScoredFFN() if family.ffn_gives_scores else NoFFN()
            setattr(layer, name, NoAttention(index) if sub_block == ATTENTION else empty)
        elif not family.stays(name, block) and any(True for _ in child.parameters()):
            setattr(layer, name, nn.Identity())
