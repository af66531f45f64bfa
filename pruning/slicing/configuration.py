"""Configurations of students: the teacher's, with other sizes and fewer layers."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from transformers import PretrainedConfig

from pruning.families.architecture import Architecture
from pruning.families.table import family_of, head_dim_of
from pruning.per_layer.classes import per_layer_config
from pruning.per_layer.layers import WINDOWED

DROPOUTS = (
    "attention_dropout",
    "hidden_dropout",
    "residual_dropout",
    "embedding_dropout",
    "resid_pdrop",
    "embd_pdrop",
    "attn_pdrop",
    "router_jitter_noise",
)
"""A student learns from soft targets, and exactly so: its configuration has none of these."""


def student_config(
    config: PretrainedConfig,
    architecture: Architecture,
    kept_layers: Sequence[int],
    *,
    changed: Mapping[str, Any] | None = None,
) -> PretrainedConfig:
    """The teacher's configuration with the student's sizes; head_dim is always written.

    Args:
        config: Of the teacher.
        architecture: Of the student.
        kept_layers: The teacher's layers that it keeps.
        changed: Values that differ from the teacher's for another reason.
    """
    family = family_of(config)
    values = config.to_dict()
    for name in family.per_layer_fields:
        if isinstance(values.get(name), list):
            values[name] = [values[name][layer] for layer in kept_layers]
    sizes = architecture.to_dict()
    values |= {name: sizes[axis] for axis, name in family.fields.items() if sizes.get(axis)}
    values |= family.fields_of(architecture)
    if architecture.experts_per_token:
        name = family.per_token
        values[config.attribute_map.get(name, name)] = architecture.experts_per_token
    values |= family.cut_pattern(config, list(kept_layers))
    values |= family.values_of_layers(config, architecture, list(kept_layers))
    if family.has_head_dim:
        values["head_dim"] = head_dim_of(config)
    values |= {name: 0.0 for name in DROPOUTS if name in values}
    values.pop("auto_map", None)  # code beside the teacher that stock models do not need
    values |= dict(changed or {})
    if not architecture.per_layer:
        return type(config).from_dict(values)
    return _of_blocks(config, values, architecture)


def _of_blocks(
    config: PretrainedConfig, values: dict[str, Any], architecture: Architecture
) -> PretrainedConfig:
    """The configuration with these `values` and the layers of `architecture`.

    A stock one where they differ in windows alone, which the types of layers say.
    """
    blocks = architecture.blocks
    if any(block.window for block in blocks):
        values["layer_types"] = [
            WINDOWED if block.window else kind
            for block, kind in zip(blocks, values["layer_types"], strict=True)
        ]
    without = [replace(block, window=0) for block in blocks]
    if not Architecture.of_blocks(architecture.hidden, without).per_layer:
        return type(config).from_dict(values)
    # The heads that enclose those of all layers may be none that the hidden size can have.
    heads = family_of(config).fields["heads"]
    return per_layer_config(values | {heads: max(block.heads for block in blocks)}, blocks)
