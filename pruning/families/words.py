"""Words of the rows of the table: axes of tensors, tensors, norms, older names and recurrences."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import PretrainedConfig

Axes = tuple[str, ...]
"""Axis of each dimension of a tensor, of those in `pruning.families.shapes.axis_rows`.

Several are joined with "+" where a dimension is a concatenation: "heads+kv_heads+kv_heads" for
fused query, key and value rows."""


@dataclass(frozen=True)
class AxisRows:
    """The rows that an axis takes in a tensor: units of a size of `Architecture`, or all."""

    size: str = ""
    """The size that counts its units; "" for an axis that every student has in full."""
    rows: int = 1
    """Rows of each unit; of an axis in full all of them."""
    within: str = ""
    """The size that counts the rows of each unit where that is a size of its own: channels of the
    heads of a recurrent layer, and state of their groups."""
    joined: str = ""
    """Axes that lie beside each other inside each unit, where those of all units are not: a unit is
    a group, and of each axis in "ssm_states+ssm_inner" it has the rows that belong to the group."""


@dataclass(frozen=True)
class LayerHeads:
    """Attention heads of one layer, of a type whose layers differ in them."""

    head_dim: int
    """Channels of each head."""
    kv_together: int = 1
    """KV heads, as `Architecture` counts them, that are one KV head of this layer: they stay beside
    each other, and are kept or left out together."""
    kv_source: int | None = None
    """Layer whose keys and values it reads; None where it has its own."""


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of a model on disk."""

    name: str
    """As in the file."""
    axes: Axes
    """Axis of each of its dimensions."""
    layer: int | None = None
    """Index of its layer; None outside the layers."""
    expert: int | None = None
    """Index of its expert; None outside the experts of a mixture."""


@dataclass(frozen=True)
class Rescale:
    """w -> (w + offset) * factor - offset, for a norm that multiplies by offset + w."""

    factor: float | torch.Tensor
    """What the stored weight, with its offset, is multiplied by; [channels] where each has its own
    factor."""
    offset: float = 0.0
    """What the norm adds to its stored weight."""

    def apply(self, tensor: torch.Tensor) -> torch.Tensor:
        """The scaled `tensor`: computed in fp32 at least, and back in its own type."""
        precise = tensor.to(torch.promote_types(tensor.dtype, torch.float32))
        scaled = (precise + self.offset) * self.factor - self.offset
        return scaled.to(tensor.dtype)


@dataclass(frozen=True)
class OlderNames:
    """Names in transformers 4, and in software that reads its configurations, of all that
    transformers 5 moved or renamed."""

    rope: Mapping[str, str] = field(
        default_factory=lambda: {
            "rope_theta": "rope_theta",
            "partial_rotary_factor": "partial_rotary_factor",
        }
    )
    """Rotary parameter -> the key of its own that it was; {} for a type that came after these."""
    local_rope_theta: str = ""
    """Key for the base of layers with a sliding window, where it may differ from the others'."""
    rope_scaling: tuple[str, ...] = ()
    """The keys of `rope_scaling` where transformers 4 takes no others; () where it does."""
    copies: Mapping[str, str] = field(default_factory=dict)
    """Older key -> the key of today with the same value."""
    overriding: Mapping[str, str] = field(default_factory=dict)
    """Older key that goes before the key of today where a file has it -> that key."""
    of_layers: Callable[[PretrainedConfig], Mapping[str, Any]] = lambda config: {}
    """Keys for layers of one kind that today's classes hold for each layer, with their values:
    written where a teacher's file has them."""
    follow: tuple[str, ...] = ()
    """Keys that today's classes work out of others, and a teacher's file may have: written where it
    has them."""


@dataclass(frozen=True)
class Recurrence:
    """Where a layer with a recurrent state (Mamba-2, gated delta net) is observed."""

    input: str
    """The projection whose output holds what enters the state, what is read from it, and the
    channels of its heads."""
    output: str
    """The projection whose input is the concatenation of the channels of the heads."""
    conv_kernel: str
    """Field of the configuration with the tokens that the convolution before the state sees."""
    channels: int | None = None
    """Which of the parts that the rows of `input` are a join of are the channels of the heads, by
    which they are scored; None: by what enters `output`."""
    keys: int | None = None
    """Which of them say where a token is written into the state: B of Mamba-2."""
    queries: int | None = None
    """Which of them say what is read of it: C of Mamba-2."""
    norm: str = ""
    """Norm before `output` whose mean square spans channels; "" where there is none."""
    norm_gated: Callable[[PretrainedConfig], bool] = lambda config: True
    """Whether that norm is over the channels times the gate, and not before it."""
    state_flops: int = 6
    """Operations per token and value of the state: decay, update and reading."""
