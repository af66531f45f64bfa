"""Memory of a teacher that is read: for importance, and for targets."""

import torch
from transformers import PretrainedConfig

from distill.targets import blocks_at_once
from pruning import architecture_of
from search.needs.activations import kept_by_layer
from search.needs.memory import MemoryParts

LOGIT_COPIES = 6
"""Copies of fp32 logits that are there at once: of the model as it is and without a layer, their
logarithms, and the divergence between them."""


def teacher_pass(
    config: PretrainedConfig,
    parameters: int,
    *,
    dtype: torch.dtype,
    block: int,
    sequences: int,
) -> MemoryParts:
    """Tensors of a teacher that reads `sequences` of `block` tokens at once.

    Importance by gradients, which keeps the activations of all layers, is not counted.
    """
    values = sequences * block * kept_by_layer(config, architecture_of(config), block)
    logits = blocks_at_once(block, config.vocab_size) * block * config.vocab_size
    return MemoryParts(
        weights=parameters * dtype.itemsize,
        activations=float(values) * dtype.itemsize,
        logits=logits * torch.float32.itemsize * LOGIT_COPIES,
    )
