"""Legality: which architectures can be cut out of a model."""

from dataclasses import replace
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray
from transformers import PretrainedConfig

from common.errors import PruningError
from pruning.families.architecture import (
    AXES,
    SSM_AXES,
    Architecture,
    ArchitectureGrid,
    Sizes,
)
from pruning.families.block import ATTENTION, EXPERTS, Block
from pruning.families.kinds import ALL_SHARES
from pruning.families.shapes import architecture_of, kinds_of, layers_alike
from pruning.families.table import FAMILIES, expert_groups, experts_per_token, family_of


def check_cuttable(config: PretrainedConfig) -> None:
    """Raises PruningError for a model that no student can be cut out of: one of a type without a
    row in the table, a quantised one, one without attention, and a student whose layers differ."""
    whole = architecture_of(config)
    if not any(ATTENTION in kind for kind in kinds_of(config)):
        raise PruningError(
            f"none of the {whole.layers} layers of the {config.model_type} has attention by the "
            "pattern of its config.json; one at least must have it, since nothing generates with "
            "a cache otherwise"
        )
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
    axes = [axis for axis in AXES if getattr(teacher, axis)]
    rules: list[tuple[str, Any]] = [
        (
            f"{axis} must be between 1 and the teacher's {getattr(teacher, axis)}",
            (getattr(a, axis) >= 1) & (getattr(a, axis) <= getattr(teacher, axis)),
        )
        for axis in axes
    ]
    for axis in AXES:
        if axis not in axes and (axis != "experts_per_token" or not teacher.experts):
            rules.append((f"{axis} must be 0, as in the teacher", getattr(a, axis) == 0))
    kv_heads = np.maximum(a.kv_heads, 1)
    rules.append(("heads must be a multiple of kv_heads", a.heads % kv_heads == 0))
    rules.append(
        (
            f"heads must be at most {group} times kv_heads, as in the teacher",
            a.heads <= group * kv_heads,
        )
    )
    rules += _rules_of_experts(config, a)
    if teacher.ssm_heads:
        rules += _rules_of_recurrence(teacher, a)
    if not layers_alike(config):
        fewest = ALL_SHARES.fewest(kinds_of(config))
        rules.append((f"layers must be at least {fewest}, those of all kinds", a.layers >= fewest))
    for constraint in family_of(config).constraints:
        rules.append((f"{config.model_type} needs {constraint.rule}", constraint.holds(config, a)))
    return rules


def _rules_of_experts(config: PretrainedConfig, a: Sizes[Any]) -> list[tuple[str, Any]]:
    most = experts_per_token(config)
    rules = [
        (
            f"experts_per_token must be at most the teacher's {most}",
            (a.experts_per_token >= 0) & (a.experts_per_token <= most),
        )
    ]
    if most:
        top = np.where(np.equal(a.experts_per_token, 0), most, a.experts_per_token)
        # Where the FFN of every layer is dense the router is not there.
        fit = (a.experts >= top) | np.equal(a.experts, 0)
        rules.append((f"experts must be at least {np.max(top)}, those of a token", fit))
    groups = expert_groups(config)
    if family_of(config).router_groups and most:
        each, chosen = a.experts // groups, config.topk_group
        none = np.equal(a.experts, 0)
        rules += [
            (
                f"experts must be a multiple of {groups}, the groups that they are routed in",
                none | (a.experts % groups == 0),
            ),
            (
                f"experts must be at least {2 * groups}, since the router looks at the two best of "
                f"every group of them (it has {groups})",
                none | (each >= 2),
            ),
            (
                f"the {chosen} groups that a token is sent to must have as many experts as it uses",
                none | (each * chosen >= top),
            ),
        ]
    return rules


def _rules_of_recurrence(teacher: Architecture, a: Sizes[Any]) -> list[tuple[str, Any]]:
    group = teacher.ssm_heads // teacher.ssm_groups
    groups = np.maximum(a.ssm_groups, 1)
    return [
        ("ssm_heads must be a multiple of ssm_groups", a.ssm_heads % groups == 0),
        (
            f"ssm_heads must be at most {group} times ssm_groups, as in the teacher",
            a.ssm_heads <= group * groups,
        ),
    ]


def _rules_of_blocks(config: PretrainedConfig, a: Architecture) -> list[tuple[str, Any]]:
    """The same where layers differ: each must be one that a student could have in every layer."""
    teacher = architecture_of(config)
    windows = family_of(config).windows and _has_window(config)
    beside = ("experts_per_token", "shared_ffn", "expert_latent", *SSM_AXES)
    different = family_of(config).layer_heads is not None
    rules: list[tuple[str, Any]] = [
        (f"it must describe {a.layers} layers", len(a.blocks) == a.layers),
        (
            f"layers of a {config.model_type} model that differ in size are not supported",
            all(getattr(teacher, axis) == 0 for axis in beside) and not different,
        ),
        (
            f"{config.model_type} has no row in the table of families, and only types with one can "
            "have layers that differ",
            config.model_type in FAMILIES,
        ),
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
    sparse = family_of(config).has(EXPERTS, config, layer)
    if block.ffn if sparse else block.experts:
        kinds = ("a dense FFN", "a mixture of experts")
        raise PruningError(
            f"layer {layer} of the teacher has {kinds[sparse]}; the layer of a student that is cut "
            f"out of it cannot have {kinds[not sparse]}"
        )
