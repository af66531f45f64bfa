"""Padded copies: a per-layer student as the stock checkpoint that encloses all its layers.

Any software that knows the model type takes it, and it computes what the student does. It saves
nothing: it has the parameters and the KV cache of its widest layers in all of them.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from transformers import PretrainedConfig

from common.errors import PruningError
from pruning.exports.padding import (
    OF_LAYERS,
    PaddedLayer,
    check_norms,
    stock_config,
    write_padded_tensors,
)
from pruning.families.architecture import Architecture
from pruning.families.block import EXPERTS
from pruning.families.checkpoint import Checkpoint
from pruning.families.config_file import raw_config, write_config
from pruning.families.shapes import architecture_of, block_of
from pruning.families.table import family_of
from pruning.slicing.configuration import student_config


def write_padded(student: Checkpoint, directory: Path) -> None:
    """Write a per-layer `student` as a stock checkpoint into `directory`.

    Raises:
        PruningError: Zeros would change the function of some layer.
    """
    own, config = architecture_of(student.config), stock_config(student.config)
    shape, layers = padded_shape(config, own), padded_layers(config, own)
    write_padded_tensors(student, layers, directory)
    raw = raw_config(student.directory)
    stock = {name: value for name, value in raw.items() if name not in OF_LAYERS}
    copy = student_config(config, shape, range(shape.layers))
    write_config(directory, stock | {"model_type": config.model_type}, copy)


def padded_layers(config: PretrainedConfig, architecture: Architecture) -> list[PaddedLayer]:
    """The layers of the copy of a student with this architecture.

    Args:
        config: Of the student or of its teacher, a stock one.
        architecture: Of the student.

    Raises:
        PruningError: There is no such copy.
    """
    shape = padded_shape(config, architecture)
    sparse = any(family_of(config).has(EXPERTS, config, i) for i in range(architecture.layers))
    if sparse and not shape.experts:
        raise PruningError(
            f"{architecture} cannot be padded: it has no experts left, and layers that are "
            f"mixtures in {config.model_type} have some"
        )
    layers = [
        PaddedLayer(i, architecture.block(i), block_of(config, i, architecture=shape))
        for i in range(architecture.layers)
    ]
    for layer in layers:
        check_norms(config, layer)
    return layers


def padded_shape(config: PretrainedConfig, architecture: Architecture) -> Architecture:
    """The smallest uniform architecture that encloses all layers and that the type can have.

    Raises PruningError where there is none.
    """
    fine = (s for s in _enclosing(architecture) if _constrained(config, s))
    shape = next(fine, None)
    if shape is None:
        raise PruningError(
            f"{architecture} cannot be padded: {config.model_type} has no uniform shape that "
            "encloses all its layers"
        )
    return shape


def _enclosing(architecture: Architecture) -> Iterator[Architecture]:
    """More and more query heads per KV group, and then more groups; none where all layers are
    without attention."""
    whole = architecture.enclosing
    if not whole.kv_heads:
        return
    group_heads = whole.heads // whole.kv_heads
    for groups in range(whole.kv_heads, 2 * whole.kv_heads + 1):
        for count in range(group_heads, 2 * group_heads + 1):
            yield replace(whole, heads=groups * count, kv_heads=groups)


def _constrained(config: PretrainedConfig, architecture: Architecture) -> bool:
    return all(bool(rule.holds(config, architecture)) for rule in family_of(config).constraints)
