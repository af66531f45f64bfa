"""Choices of sizes per axis: those given, or those derived from the teacher."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import lcm

from transformers import PretrainedConfig

from common.errors import SearchError, require
from pruning import Architecture, Served, architecture_of, layers_alike
from pruning.families import (
    ALL_SHARES,
    WIDTHS,
    LayerShares,
    experts_per_token,
    family_of,
    head_dim_of,
    kinds_of,
)
from pruning.importance import DEFAULT_LAYER_SCORE
from search.config.space import SpaceConfig

SEARCHED = ("layers", *WIDTHS, "experts_per_token", "contiguous")
"""The axes that a proposal may choose, where there is a choice."""
RANKED, SPAN, KINDS = "ranked", "span", "kinds"
KERNEL_MULTIPLES = (64, 32, 16)
"""Of which sizes are by default where kernels are fast with them: the largest that divides the
teacher's size and leaves `FEWEST` choices."""
FEWEST = 8
LEAST = {"hidden": 3, "ffn": 4, "expert_ffn": 4, "shared_ffn": 4}
"""The smallest default size is the teacher's over this."""


@dataclass(frozen=True)
class Narrowing:
    """Conditions on a space besides its choices and its budget."""

    layer_score: str = DEFAULT_LAYER_SCORE
    """What decides which layers go."""
    serve_with: tuple[str, ...] = ()
    """Engines that must take the students."""
    device: str = "cpu"
    """What they are trained on."""
    shares: LayerShares = ALL_SHARES
    """How many layers of each kind they keep, where the teacher's layers differ in kind."""


def choices_of(
    config: PretrainedConfig, given: SpaceConfig, *, narrowing: Narrowing
) -> dict[str, list[int]]:
    """Sizes per searched axis. Raises SearchError for those that cannot be."""
    teacher = architecture_of(config)
    narrowing.shares.check(kinds_of(config))
    served = Served(config, narrowing.serve_with)
    asked = {axis: n for axis, n in given.multiples.items() if getattr(teacher, axis)}
    defaults = _defaults(config, teacher, asked=asked, served=served, narrowing=narrowing)
    most = {axis: getattr(teacher, axis) for axis in SEARCHED[:-1]}
    most["experts_per_token"] = experts_per_token(config)
    choices = {
        axis: _choices(axis, getattr(given, axis), default=defaults[axis], most=most[axis])
        for axis in SEARCHED[:-1]
    }
    choices |= _going_together(config, given, choices=choices)
    _require_multiples(given, choices, asked=asked, teacher=teacher)
    alike = layers_alike(config)
    choices["contiguous"] = _layer_choice(given, narrowing.layer_score) if alike else [0]
    if not alike:
        _check_kinds(given, choices, config=config, narrowing=narrowing)
    if teacher.heads == teacher.kv_heads:
        if given.kv_heads is not None:
            raise SearchError(
                "--space.kv_heads is given, but every head of the teacher has its own keys and "
                "values, so that they go with it; leave it out"
            )
        return choices
    for heads in choices["heads"]:
        if all(heads % groups for groups in choices["kv_heads"]):
            least = min(choices["kv_heads"])
            raise SearchError(
                f"--space.heads has {heads}; it must be a multiple of the {least} KV heads"
            )
    return choices


def _going_together(
    config: PretrainedConfig, given: SpaceConfig, *, choices: Mapping[str, list[int]]
) -> dict[str, list[int]]:
    """Sizes of what goes with the hidden size, or of that, where only the other one was given or
    none."""
    follows = family_of(config).hidden_follows
    if follows is None:
        return {}
    of, each = follows(config)
    axis, sizes = of, [size / each for size in choices["hidden"]]
    if getattr(given, of) is not None:
        axis, sizes = "hidden", [size * each for size in choices[of]]
    if getattr(given, axis) is not None:
        return {}
    most = getattr(architecture_of(config), axis)
    return {axis: [int(size) for size in sizes if size.denominator == 1 and size <= most]}


def _require_multiples(
    given: SpaceConfig,
    choices: Mapping[str, list[int]],
    *,
    asked: Mapping[str, int],
    teacher: Architecture,
) -> None:
    """Raises SearchError for a size that was given and is no multiple, and where none is left."""
    for axis, multiple in asked.items():
        for size in choices[axis]:
            require(
                getattr(given, axis) is None or size % multiple == 0,
                f"--space.{axis} has {size}, which is no multiple of the {multiple} of "
                "--space.multiple_of",
            )
        require(
            bool(choices[axis]),
            f"--space.multiple_of has {multiple} for {axis}, of which the teacher has "
            f"{getattr(teacher, axis)}: there is no size to choose; give a smaller one",
        )


def _check_kinds(
    given: SpaceConfig,
    choices: Mapping[str, list[int]],
    *,
    config: PretrainedConfig,
    narrowing: Narrowing,
) -> None:
    """Raises SearchError for what a teacher with layers of several kinds does not allow."""
    for option, names in (
        ("--space.layer_choice", given.layer_choice or [KINDS]),
        ("--importance.layers", [KINDS] if narrowing.layer_score != SPAN else [SPAN]),
    ):
        require(
            names == [KINDS],
            f"{option} has {', '.join(names)}, but the teacher has layers of several kinds, and a "
            f"student keeps of each its share ({KINDS}); leave it out",
        )
    fewest = narrowing.shares.fewest(kinds_of(config))
    require(
        choices["layers"][0] >= fewest,
        f"--space.layers has {choices['layers'][0]}, but {fewest} layers stay at least "
        "(--importance.least_layers, and one with attention)",
    )


def _layer_choice(given: SpaceConfig, layer_score: str) -> list[int]:
    """Values of `Architecture.contiguous`."""
    by_score = SPAN if layer_score == SPAN else RANKED
    names = given.layer_choice or [by_score]
    for name in names:
        if name not in (RANKED, SPAN):
            raise SearchError(f"--space.layer_choice has {name!r}; it must be {RANKED} or {SPAN}")
    if layer_score == SPAN and RANKED in names:
        raise SearchError(
            f"--space.layer_choice has {RANKED}, but --importance.layers is {SPAN}, which ranks no "
            "single layers; choose another --importance.layers"
        )
    return sorted({int(name == SPAN) for name in names})


def _choices(axis: str, given: list[int] | None, *, default: list[int], most: int) -> list[int]:
    if given is None:
        return default
    values: Sequence[int] = given
    if len(given) == 3 and 0 < given[2] <= given[1] and given[0] <= given[1]:
        values = range(given[0], given[1] + 1, given[2])
    if not values:
        raise SearchError(f"--space.{axis} is empty; give sizes, or [min, max, step]")
    for value in values:
        if not most:
            raise SearchError(f"--space.{axis} is given, but the teacher has none; leave it out")
        if not 1 <= value <= most:
            raise SearchError(f"--space.{axis} has {value}; it must be between 1 and {most}")
    return sorted(set(values))


def _defaults(
    config: PretrainedConfig,
    teacher: Architecture,
    *,
    asked: Mapping[str, int],
    served: Served,
    narrowing: Narrowing,
) -> dict[str, list[int]]:
    """Choices per axis where the user gives none; [0] for an axis that the teacher lacks."""
    heads_step = 1 if teacher.heads == teacher.kv_heads else teacher.kv_heads
    least = max(1, teacher.layers // 3, narrowing.shares.fewest(kinds_of(config)))
    top = experts_per_token(config)
    defaults = {
        "layers": list(range(least, teacher.layers + 1)),
        "heads": list(range(heads_step, teacher.heads + 1, heads_step)),
        "kv_heads": [teacher.kv_heads],
        "experts": sorted({max(top, teacher.experts * i // 8) for i in range(1, 9)})
        if teacher.experts
        else [0],
        "ssm_heads": _ssm_heads(teacher),
    }
    for axis in ("experts_per_token", "expert_latent", "ssm_head_dim", "ssm_groups", "ssm_state"):
        defaults[axis] = [getattr(teacher, axis)]
    for axis in ("hidden", "ffn", "expert_ffn", "shared_ffn"):
        multiple = lcm(asked.get(axis, 1), served.multiples.get(axis, 1))
        defaults[axis] = _default_sizes(
            axis, getattr(teacher, axis), multiple=multiple, device=narrowing.device
        )
    ties = {tie.axis: (tie.of, tie.factor(config)) for tie in served.ties}
    if not family_of(config).has_head_dim:  # then the hidden size follows the heads
        ties["hidden"] = "heads", head_dim_of(config)
    for axis in ("hidden", "ffn"):
        if axis in ties:
            of, factor = ties[axis]
            sizes = [size * factor for size in defaults[of]]
            defaults[axis] = [size for size in sizes if size <= getattr(teacher, axis)]
    return {
        axis: [size for size in sizes if size % asked.get(axis, 1) == 0]
        for axis, sizes in defaults.items()
    }


def _ssm_heads(teacher: Architecture) -> list[int]:
    """Multiples of the groups from half of the teacher's heads on; [0] where it has none."""
    if not teacher.ssm_heads:
        return [0]
    step = teacher.ssm_groups
    return list(
        range(max(step, -(-teacher.ssm_heads // 2 // step) * step), teacher.ssm_heads + 1, step)
    )


def _default_sizes(axis: str, size: int, *, multiple: int, device: str) -> list[int]:
    """From a part of the teacher's size, in about 24 or 32 steps, of `multiple` and, on a GPU, of
    what kernels are fast with."""
    if not size:
        return [0]
    parts = 24 if axis == "hidden" else 32
    low = size // LEAST[axis]
    step = _step(size, parts, multiple=multiple)
    if device != "cpu":
        fast = [
            larger
            for larger in (lcm(step, kernel) for kernel in KERNEL_MULTIPLES)
            if size % larger == 0 and len(_sizes(low, size, step=larger)) >= FEWEST
        ]
        step = fast[0] if fast else step
    return _sizes(low, size, step=step)


def _sizes(low: int, size: int, *, step: int) -> list[int]:
    return list(range(max(step, -(-low // step) * step), size + 1, step))


def _step(size: int, parts: int, *, multiple: int) -> int:
    """The largest power of two times `multiple` that divides `size` and is at most `size / parts`;
    `multiple` at least, whatever the size."""
    step = multiple
    while step * 2 * parts <= size and (size % (step * 2) == 0 or size % multiple):
        step *= 2
    return step
