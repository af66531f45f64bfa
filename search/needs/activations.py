"""Activations of a layer, counted from its widths."""

from typing import Any

import numpy as np
from transformers import PretrainedConfig

from pruning import Architecture
from pruning.families import experts_per_token, family_of, layer_heads

KEPT_NORM, KEPT_HEADS, KEPT_FFN, KEPT_SCORES = 3, 5, 4, 3
"""Tensors that a layer keeps for its backward pass, by their width: of each norm (what comes in, is
normalised, and weighted), of all query heads (queries, keys and values spread over them, answer),
of the FFN (gate, activation, other half, product), and of attention scores where they are whole."""
WHOLE_SCORES = ("attn_logit_softcapping", "attn_pdrop", "attention_dropout")


def kept_by_layer(config: PretrainedConfig, architecture: Architecture, block: int) -> Any:
    """Values per token that a layer of a student of the teacher with this `config` keeps for its
    backward pass, of sequences of `block` tokens; elementwise where sizes are arrays."""
    given = architecture.experts_per_token
    per_token = np.where(np.equal(given, 0), experts_per_token(config), given)
    routed = np.minimum(architecture.experts, per_token)
    # Capped scores, those that are dropped at random and those beside a sink no fast kernel
    # makes.
    whole = any(getattr(config, name, None) for name in WHOLE_SCORES)
    whole |= any(".sinks" in name for name in family_of(config).layer_tensors)
    return (
        KEPT_NORM * _norms(config, architecture)
        + KEPT_HEADS * architecture.heads * _head_dim(config)
        + KEPT_FFN * architecture.ffn
        + routed * (KEPT_FFN * architecture.expert_ffn + 2 * architecture.hidden)
        + (KEPT_SCORES * architecture.heads * block if whole else 0)
    )


def _head_dim(config: PretrainedConfig) -> float:
    """Channels per head, the mean over layers."""
    depth = range(config.num_hidden_layers)
    return float(np.mean([layer_heads(config, layer).head_dim for layer in depth]))


def _norms(config: PretrainedConfig, architecture: Architecture) -> Any:
    """Width of all norms of a layer together; one of a head counts for every query head."""
    total: Any = 0
    for name, axes in family_of(config).layer_axes(config, 0).items():
        if len(axes) == 1 and name.endswith("weight"):
            of_heads = axes[0] != "hidden"
            total = total + (
                architecture.heads * _head_dim(config) if of_heads else architecture.hidden
            )
    return total
