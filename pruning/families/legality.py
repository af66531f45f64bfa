"""Legality: which architectures can be cut out of a model."""

from dataclasses import replace
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray
from transformers import PretrainedConfig

from common.errors import PruningError
from pruning.families.architecture import Architecture, ArchitectureGrid, Sizes
from pruning.families.block import Block
from pruning.families.shapes import architecture_of
from pruning.families.table import family_of


def check_cuttable(config: PretrainedConfig) -> None:
    """Raises PruningError for a model that no student can be cut out of: one of a type without a
    row in the table, a quantised one, and a student whose layers differ."""
    family_of(config)
    whole = architecture_of(config)
    if whole.per_layer:
        raise PruningError(
            f"the model is a per-layer student, {whole}; students are cut out of models whose "
            "layers are all alike, so give the model that it was cut out of"
        )


def _rules(config: PretrainedConfig, a: Sizes[Any]) -> list[tuple[str, Any]]:
    """(sentence, whether it holds) for everything that an architecture must meet."""
    check_cuttable(config)
    if isinstance(a, Architecture) and a.per_layer:
        return _rules_of_blocks(config, a)
    teacher = architecture_of(config)
    group = teacher.heads // teacher.kv_heads
    axes = ["layers", "hidden", "heads", "kv_heads"]
    axes += ["ffn"] * (teacher.ffn > 0) + ["experts", "expert_ffn"] * (teacher.experts > 0)
    rules: list[tuple[str, Any]] = [
        (
            f"{axis} must be between 1 and the teacher's {getattr(teacher, axis)}",
            (getattr(a, axis) >= 1) & (getattr(a, axis) <= getattr(teacher, axis)),
        )
        for axis in axes
    ]
    for axis in ("ffn", "experts", "expert_ffn"):
        if axis not in axes:
            rules.append((f"{axis} must be 0, as in the teacher", getattr(a, axis) == 0))
    kv_heads = np.maximum(a.kv_heads, 1)
    rules.append(("heads must be a multiple of kv_heads", a.heads % kv_heads == 0))
    rules.append(
        (
            f"heads must be at most {group} times kv_heads, as in the teacher",
            a.heads <= group * kv_heads,
        )
    )
    if teacher.experts:
        top = config.num_experts_per_tok
        rules.append((f"experts must be at least {top}, those of a token", a.experts >= top))
    for constraint in family_of(config).constraints:
        rules.append((f"{config.model_type} needs {constraint.rule}", constraint.holds(config, a)))
    return rules


def _rules_of_blocks(config: PretrainedConfig, a: Architecture) -> list[tuple[str, Any]]:
    """The same where layers differ: each must be one that a student could have in every layer."""
    teacher = architecture_of(config)
    windows = family_of(config).windows and _has_window(config)
    rules: list[tuple[str, Any]] = [
        (f"it must describe {a.layers} layers", len(a.blocks) == a.layers),
        ("one layer must have attention", any(block.has_attention for block in a.blocks)),
        ("one layer must have an FFN", any(block.has_ffn for block in a.blocks)),
        (
            f"{config.model_type} has no window that a layer could take",
            windows or not any(block.window for block in a.blocks),
        ),
    ]
    for block in sorted(set(a.blocks)):
        sized = replace(
            a.enclosing,
            heads=block.heads or teacher.heads,
            kv_heads=block.kv_heads or teacher.kv_heads,
            ffn=block.ffn or teacher.ffn,
            experts=block.experts or teacher.experts,
            expert_ffn=block.expert_ffn or teacher.expert_ffn,
        )
        rules += _rules(config, sized)
    return rules


def _has_window(config: PretrainedConfig) -> bool:
    """Whether a layer would be given a window; SmolLM3 keeps the size of one that is off."""
    used = getattr(config, "use_sliding_window", None) is not False
    return used and bool(getattr(config, "sliding_window", None))


@overload
def is_legal(config: PretrainedConfig, architecture: Architecture) -> bool: ...
@overload
def is_legal(config: PretrainedConfig, architecture: ArchitectureGrid) -> NDArray[np.bool_]: ...
def is_legal(config: PretrainedConfig, architecture: Sizes[Any]) -> Any:
    """Whether `architecture` can be cut out of the model; elementwise for a grid.

    KV heads are dropped with the query heads that they serve; every kept one serves as many.
    """
    legal: Any = True
    for _, holds in _rules(config, architecture):
        legal = legal & holds
    return legal


def check_architecture(config: PretrainedConfig, architecture: Architecture) -> None:
    """Raises PruningError, with the rule that is broken, where it cannot be cut out."""
    for rule, holds in _rules(config, architecture):
        if not holds:
            raise PruningError(
                f"{architecture} cannot be cut out of {architecture_of(config)}: {rule}"
            )


def check_kind(config: PretrainedConfig, layer: int, *, block: Block) -> None:
    """Raises PruningError where `block` has neurons of its own and the teacher's `layer` experts,
    or the other way round."""
    sparse = family_of(config).is_sparse(config, layer)
    if block.ffn if sparse else block.experts:
        kinds = ("a dense FFN", "a mixture of experts")
        raise PruningError(
            f"layer {layer} of the teacher has {kinds[sparse]}; the layer of a student that is cut "
            f"out of it cannot have {kinds[not sparse]}"
        )
