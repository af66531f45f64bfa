"""Passes of a teacher that is read for importance and targets: their memory and tokens."""

import torch
from transformers import PretrainedConfig

from distill.targets import blocks_at_once
from pruning import PruneSettings, architecture_of
from pruning.importance import LEFT_OUT_SCORES, LEFT_OUT_SEQUENCES
from search.needs.activations import kept_by_layer
from search.needs.memory import MemoryParts
from workspace.sorting import ENERGY_SEQUENCES

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


def importance_tokens(settings: PruneSettings, sequences: int, *, layers: int, block: int) -> int:
    """Read to score widths, to measure mean squares, and with each layer left out.

    Args:
        settings: The scores.
        sequences: Of calibration.
        layers: Of the teacher.
        block: Tokens of a sequence.
    """
    passes = sequences + min(sequences, ENERGY_SEQUENCES)
    if settings.layer_score in LEFT_OUT_SCORES:
        passes += min(sequences, LEFT_OUT_SEQUENCES) * layers
    return passes * block
