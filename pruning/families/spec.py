"""Family: a row of the table, which describes a Hugging Face model type.

A row names every tensor of the model, as it lies on disk, and the axis of each of its dimensions.
Sorting, slicing and counting are written once, over these names.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import torch
from torch import nn
from transformers import PretrainedConfig

from pruning.families.architecture import Architecture, Sizes
from pruning.families.block import ATTENTION, EXPERTS, FFN, SSM, Block
from pruning.families.words import (
    Axes,
    AxisRows,
    LayerHeads,
    OlderNames,
    Recurrence,
    Rescale,
    TensorSpec,
)


def mixture_or_dense(family: "Family", config: PretrainedConfig, layer: int) -> tuple[str, ...]:
    """The parts of a layer of a transformer: attention, and an FFN or experts."""
    return ATTENTION, EXPERTS if family.is_sparse(config, layer) else FFN


@dataclass(frozen=True)
class Constraint:
    """A rule of a model type that an architecture must meet besides the general ones."""

    rule: str
    """Completes "... needs"."""
    holds: Callable[[PretrainedConfig, Sizes[Any]], Any]
    """(teacher's configuration, sizes) -> whether; elementwise for a grid."""


def gated_expert(
    module: Any, expert: int, tokens: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Neurons and output of an expert with a gate: most mixtures'."""
    gate, up = nn.functional.linear(tokens, module.gate_up_proj[expert]).chunk(2, dim=-1)
    neurons = module.act_fn(gate) * up
    return neurons, nn.functional.linear(neurons, module.down_proj[expert])


def transposed_expert(
    module: Any, expert: int, tokens: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Neurons and output of an expert with a gate whose weights lie [inputs, outputs]."""
    gate, up = (tokens @ module.gate_up_proj[expert]).chunk(2, dim=-1)
    neurons = up * module.act_fn(gate)
    return neurons, neurons @ module.down_proj[expert]


def clamped_expert(
    module: Any, expert: int, tokens: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Neurons and output of an expert of gpt-oss: biases, and a gate between limits."""
    gate_up = tokens @ module.gate_up_proj[expert] + module.gate_up_proj_bias[expert]
    neurons = module._apply_gate(gate_up)
    return neurons, neurons @ module.down_proj[expert] + module.down_proj_bias[expert]


def plain_expert(
    module: Any, expert: int, tokens: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Neurons and output of an expert without a gate."""
    neurons = module.act_fn(nn.functional.linear(tokens, module.up_proj[expert]))
    return neurons, nn.functional.linear(neurons, module.down_proj[expert])


@dataclass(frozen=True)
class Family:
    """One row: how a model type is laid out. Names in `layer_*` are relative to a layer."""

    model_type: str
    """As config.json has it."""
    model_tensors: Mapping[str, Axes]
    """Tensors outside the layers, without the output head; the embedding first."""
    output_head: tuple[str, Axes]
    """The head; absent from the file, and counted once, where embeddings are tied."""
    layer_prefix: str
    """Module that holds the layers, by number."""
    layer_tensors: Mapping[str, Axes]
    """Tensors that every layer has."""
    dense_tensors: Mapping[str, Axes]
    """The FFN of a layer that has one and is no mixture of experts."""
    fields: Mapping[str, str]
    """Axis of `Architecture` -> field of the configuration that holds its size."""
    attention_input: str
    """Module of a layer whose input is what attention reads of the hidden channels."""
    attention_output: str
    """The projection whose input is the concatenation of the query heads."""
    ffn_input: str
    """Module of a layer whose input is what the FFN reads of the hidden channels."""
    ffn_output: str
    """The projection whose input is the neurons of a dense FFN."""
    ffn_gives_scores: bool = False
    """Whether the module of the FFN gives the router's scores beside its output."""
    shared_output: str = ""
    """The projection whose input is the neurons of the experts that all tokens are sent to."""
    run_expert: Callable[[Any, int, torch.Tensor], tuple[torch.Tensor, torch.Tensor]] = gated_expert
    """(module of the experts, expert, tokens [tokens, channels]) -> its neurons [tokens, neurons]
    and its output [tokens, channels]."""
    spanning_norms: Mapping[str, str] = field(default_factory=dict)
    """Weight of a norm inside a layer whose mean square spans what may be cut -> the size that
    counts the groups it is taken over; "" for all at once."""
    attention_norms: tuple[str, ...] = ("input_layernorm",)
    """Norms of a layer that serve its attention alone, and go with it where it is left out; the
    others serve the FFN."""
    norm_scales: tuple[str, ...] = ()
    """What multiplies, in a module of a layer, the hidden channels after a norm that has no weight
    of its own: such a module's input is the norm's."""
    shared_norms: tuple[str, ...] = ()
    """Norms of a layer that serve attention and FFN alike: they are of the FFN, and stay where that
    is left out."""
    optional_tensors: Mapping[str, tuple[str, Axes]] = field(default_factory=dict)
    """Tensor of a layer -> (configuration flag that brings it, axes)."""
    attention_tensors: Mapping[str, Axes] = field(default_factory=dict)
    """The attention of a layer that has one, where not all have."""
    ssm_tensors: Mapping[str, Axes] = field(default_factory=dict)
    """Those of a layer with a recurrent state."""
    flags: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Tensor -> values of the configuration without which it is not there, whatever its part; one
    written "not q_lora_rank" is a value with which it is not there."""
    buffers: tuple[str, ...] = ()
    """Tensors of a layer that are stored and are no parameters."""
    parts_of: Callable[["Family", PretrainedConfig, int], tuple[str, ...]] = mixture_or_dense
    """Parts that a layer has: any of attention, ssm, ffn and experts."""
    traits: Callable[[PretrainedConfig, int], tuple[str, ...]] = lambda config, layer: ()
    """What tells a layer from others with the same parts, in words: such layers are of a kind of
    their own. One is `kinds.STAYS`."""
    own_tensors: Callable[[PretrainedConfig, int], Mapping[str, Axes]] = lambda config, layer: {}
    """Tensors of a layer that not all with its parts have, or have in other sizes."""
    layer_heads: Callable[[PretrainedConfig, int], LayerHeads] | None = None
    """The heads of a layer, where layers differ in them."""
    axis_rows: Callable[[PretrainedConfig], Mapping[str, AxisRows]] = lambda config: {}
    """Axes of this type alone, or that have other rows than in most."""
    recurrence: Recurrence | None = None
    """Where layers with a recurrent state are observed."""
    shared_channels: bool = False
    """Whether the heads of a recurrent layer have their channels in one order."""
    module_prefix: str = ""
    """Module that holds the layers of a loaded model, where `layer_prefix` is on disk only."""
    expert_tensors: Mapping[str, Axes] = field(default_factory=dict)
    """Tensors of a mixture-of-experts layer; "{expert}" in a name stands for each expert."""
    fused_experts: Mapping[str, Axes] = field(default_factory=dict)
    """The same as a loaded model has them, all experts in one tensor."""
    experts_module: str = ""
    """Module of a layer that runs the experts on the tokens routed to them."""
    expert_output: str = ""
    """Tensor of an expert whose columns are its neurons, with "{expert}"."""
    router_groups: str = ""
    """Field of the configuration with the groups that experts are routed in; "" without. A student
    keeps equally many experts of each."""
    per_token: str = "num_experts_per_tok"
    """Field of the configuration with the experts that a token is sent to."""
    sizes_of: Callable[[PretrainedConfig], Mapping[str, int]] = lambda config: {}
    """Sizes by axis that no field of the configuration has by itself."""
    fields_of: Callable[[Architecture], Mapping[str, Any]] = lambda architecture: {}
    """Values of the configuration that say those sizes of a student."""
    latent_attention: bool = False
    """Whether keys and values are made of a latent that all heads share, and that alone is cached
    (DeepSeek-V2, arXiv 2405.04434)."""
    is_sparse: Callable[[PretrainedConfig, int], bool] = lambda config, layer: False
    """Whether a layer of the model is a mixture of experts."""
    cut_pattern: Callable[[PretrainedConfig, list[int]], dict[str, Any]] = lambda config, kept: {}
    """Configuration values that keep the pattern of the kept layers true."""
    values_of_layers: Callable[[PretrainedConfig, Architecture, list[int]], dict[str, Any]] = (
        lambda config, student, kept: {}
    )
    """Configuration values of the kept layers of a student, where each has its own."""
    per_layer_fields: tuple[str, ...] = ("layer_types",)
    """Configuration lists with one entry per layer, cut together with the layers."""
    periods: Mapping[str, tuple[str, Any]] = field(default_factory=dict)
    """Configuration value n -> (per-layer list, entry that every nth layer has, and no other)."""
    older_names: OlderNames = OlderNames()
    """Keys of the configuration that older software looks for."""
    has_head_dim: bool = True
    """Whether the configuration takes `head_dim`; else it follows from hidden size and heads."""
    hidden_follows: Callable[[PretrainedConfig], tuple[str, Fraction]] | None = None
    """(size that the hidden size goes with, hidden channels for each of its units)."""
    constraints: tuple[Constraint, ...] = ()
    """Rules that an architecture of this type must meet."""
    unsorted: tuple[str, ...] = ()
    """Sizes whose units stay in the model's order, since it would not be the same model."""
    norm_offset: float = 0.0
    """What a norm adds to its stored weight before it multiplies; see `offset_of`."""
    rescale: Callable[[PretrainedConfig, Architecture], dict[str, Rescale]] = lambda config, a: {}
    """Compensation for constants of the arithmetic that depend on the hidden size."""
    windows: bool = False
    """Whether any layer may have the sliding window by `layer_types` alone, all else unchanged."""
    derived: tuple[str, ...] = ("rotary_emb.inv_freq",)
    """Ends of the names of tensors that old files carry although the model computes them."""

    def parts(self, config: PretrainedConfig, layer: int) -> tuple[str, ...]:
        """Parts that a layer of a model has: any of attention, ssm, ffn and experts."""
        return self.parts_of(self, config, layer)

    def kind(self, config: PretrainedConfig, layer: int) -> tuple[str, ...]:
        """Parts and traits of a layer of a model."""
        return (*self.parts(config, layer), *self.traits(config, layer))

    def has(self, part: str, config: PretrainedConfig, layer: int) -> bool:
        """Whether a layer of a model has this part."""
        return part in self.parts(config, layer)

    def layer_axes(self, config: PretrainedConfig, layer: int) -> dict[str, Axes]:
        """Tensors of one layer of a model with this configuration; "{expert}" not expanded."""
        of_part = {
            ATTENTION: self.attention_tensors,
            SSM: self.ssm_tensors,
            FFN: self.dense_tensors,
            EXPERTS: self.expert_tensors,
        }
        axes = dict(self.layer_tensors)
        for part in self.parts(config, layer):
            axes |= of_part[part]
        axes |= self.own_tensors(config, layer)
        for name, (flag, optional) in self.optional_tensors.items():
            if getattr(config, flag, False):
                axes[name] = optional
        axes = {name: dims for name, dims in axes.items() if self._brought(config, name)}
        blocks: Sequence[Block] = getattr(config, "blocks", ())
        return _of_block(self, axes, blocks[layer]) if blocks else axes

    def _brought(self, config: PretrainedConfig, name: str) -> bool:
        """Whether the configuration has the values that bring a tensor."""
        for flag in self.flags.get(name, ()):
            value = flag.removeprefix("not ")
            if bool(getattr(config, value, None)) == (value != flag):
                return False
        return True

    def loaded_axes(self, config: PretrainedConfig, layer: int) -> dict[str, Axes]:
        """Tensors of one layer as a loaded model has them: all experts in one."""
        fused = self.fused_experts if self.has(EXPERTS, config, layer) else {}
        axes = self.layer_axes(config, layer)
        kept = {n: dims for n, dims in axes.items() if not fused or n not in self.expert_tensors}
        return kept | dict(fused)

    def sub_block(self, name: str) -> str:
        """Whether the tensor or module of a layer called `name` is part of its "attention" or of
        its "ffn"; each has its norms."""
        attention = (self.attention_output.rpartition(".")[0], *self.attention_norms)
        inside = any(name == module or name.startswith(f"{module}.") for module in attention)
        return ATTENTION if inside else FFN

    def of_experts(self, name: str, axes: Axes) -> bool:
        """Whether a tensor of a layer called `name` is of an expert that tokens are routed to, or
        of all of them."""
        if "{expert}" in name or axes[:1] != ("experts",):
            return "{expert}" in name
        inner = name.startswith(f"{self.experts_module}.")
        return inner or any("expert_ffn" in dim for dim in axes[1:])

    def stays(self, name: str, block: Block) -> bool:
        """Whether a student with `block` of a layer has its tensor or module called `name`."""
        shared = any(name == norm or name.startswith(f"{norm}.") for norm in self.shared_norms)
        return shared or block.has(self.sub_block(name))

    def block_axes(self, config: PretrainedConfig, layer: int, *, block: Block) -> dict[str, Axes]:
        """Those tensors of `layer_axes` that are there where a student has `block` of a layer."""
        return _of_block(self, self.layer_axes(config, layer), block)

    def outer_axes(self, config: PretrainedConfig) -> dict[str, Axes]:
        """Tensors outside the layers of a model with this configuration, tied ones once."""
        axes = {n: dims for n, dims in self.model_tensors.items() if self._brought(config, n)}
        if not config.tie_word_embeddings:
            axes[self.output_head[0]] = self.output_head[1]
        return axes

    def tensors(self, config: PretrainedConfig) -> Iterator[TensorSpec]:
        """Every tensor of a model with this configuration."""
        for name, axes in self.outer_axes(config).items():
            yield TensorSpec(name, axes)
        for layer in range(config.num_hidden_layers):
            yield from self.tensors_of_layer(config, layer)

    def tensors_of_layer(self, config: PretrainedConfig, layer: int) -> Iterator[TensorSpec]:
        """Every tensor of one layer, of each expert too."""
        blocks: Sequence[Block] = getattr(config, "blocks", ())
        for name, axes in self.layer_axes(config, layer).items():
            full = self.layer_tensor(layer, name)
            if "{expert}" in name:
                whole = getattr(config, self.fields["experts"])
                for expert in range(blocks[layer].experts if blocks else whole):
                    yield TensorSpec(full.replace("{expert}", str(expert)), axes, layer, expert)
            else:
                yield TensorSpec(full, axes, layer)

    def layer_tensor(self, layer: int, name: str) -> str:
        """Full name of a tensor that is called `name` in a layer."""
        return f"{self.layer_prefix}.{layer}.{name}"

    def name_in_layer(self, tensor: TensorSpec) -> str:
        """What a tensor of a layer is called in it."""
        assert tensor.layer is not None, f"{tensor.name} is outside the layers"
        return tensor.name.removeprefix(self.layer_tensor(tensor.layer, ""))

    def norm_weights(self, config: PretrainedConfig) -> Iterator[TensorSpec]:
        """The weights of all norms whose mean square is over channels that may be cut."""
        for tensor in self.tensors(config):
            inside = self.name_in_layer(tensor) if tensor.layer is not None else ""
            spans = inside in self.spanning_norms or inside in self.norm_scales
            if spans or (tensor.axes == ("hidden",) and tensor.name.endswith(".weight")):
                yield tensor

    def offset_of(self, norm: TensorSpec) -> float:
        """What a norm adds to its stored weight; that of a recurrent layer adds nothing."""
        inside = self.name_in_layer(norm) if norm.layer is not None else ""
        own = self.recurrence is not None and inside == f"{self.recurrence.norm}.weight"
        return 0.0 if own else self.norm_offset

    @property
    def base_prefix(self) -> str:
        """What a file of the bare model, without its head, leaves off every name."""
        return self.layer_prefix.split(".")[0] + "."

    @property
    def layers_module(self) -> str:
        """Module of a loaded model that holds its layers, by number."""
        return self.module_prefix or self.layer_prefix

    def module_of(self, name: str) -> str:
        """The module of a loaded model whose tensor has this `name` on disk."""
        module = name.rpartition(".")[0]
        if not module.startswith(self.base_prefix):
            return module
        base = self.layers_module.split(".")[0]
        return f"{base}.{module.removeprefix(self.base_prefix)}"


def _of_block(family: Family, axes: Mapping[str, Axes], block: Block) -> dict[str, Axes]:
    """The tensors of a layer that a student with `block` of it has."""
    return {name: dims for name, dims in axes.items() if family.stays(name, block)}
