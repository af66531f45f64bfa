"""The student's shape: the sizes that are given, or those that reach a budget."""

from dataclasses import replace

from experiments.prune.config import SHAPES, PruneConfig
from pruning import (
    AXES,
    Architecture,
    PruningError,
    Served,
    architecture_of,
    check_architecture,
    parameter_count,
)
from pruning.families import in_order, kinds_of
from search.config import BudgetConfig, SpaceConfig
from search.space import CUT_AXES, Budget, CostModel, Narrowing, Space
from workspace.models import ModelSource


def wanted_architecture(config: PruneConfig, teacher: ModelSource, *, device: str) -> Architecture:
    """The student's sizes, such as a device of this type takes well.

    Raises PruningError or SearchError for what cannot be.
    """
    whole = architecture_of(teacher.config)
    kinds = kinds_of(teacher.config)
    config.cut.shares.check(kinds)
    if config.cut.layer_score == "span" and config.keep_layers is None and len(set(kinds)) > 1:
        raise PruningError(
            "--cut.layer_score is span, but the layers of the teacher differ in kind, and a "
            "shallower student keeps of each its share; choose another"
        )
    if config.budget.parameters is not None:
        return _in_budget(config, teacher, device=device)
    if config.architecture is not None:
        architecture = Architecture.parse(config.architecture)
        _check_kept(config, whole, layers=architecture.layers)
        check_architecture(teacher.config, architecture)
        return architecture
    sizes = {axis: getattr(config, axis) for axis in AXES if getattr(config, axis) is not None}
    if config.keep_layers is not None:
        sizes.setdefault("layers", len(config.keep_layers))
        _check_kept(config, whole, layers=sizes["layers"])
    if whole.heads == whole.kv_heads:
        sizes.setdefault("kv_heads", sizes.get("heads", whole.kv_heads))
    architecture = replace(whole, **sizes)
    check_architecture(teacher.config, architecture)
    return architecture


def _check_kept(config: PruneConfig, whole: Architecture, *, layers: int) -> None:
    """Raises PruningError where the layers that are named are not `layers` of the teacher's."""
    kept = config.keep_layers
    if kept is None:
        return
    if layers != len(kept):
        raise PruningError(f"--layers is {layers}, but --keep_layers names {len(kept)}")
    if not in_order(kept, whole.layers):
        raise PruningError(
            f"--keep_layers is {kept}; name each layer once, in order, between 0 and "
            f"{whole.layers - 1}"
        )


def _in_budget(config: PruneConfig, teacher: ModelSource, *, device: str) -> Architecture:
    assert config.budget.parameters is not None
    whole = architecture_of(teacher.config)
    limits = BudgetConfig(config.budget.parameters, config.budget.tolerance)
    costs = replace(CostModel.of(teacher.config, limits), shares=config.cut.shares)
    budget = Budget.of(limits, costs)
    largest = budget.most("parameters")
    assert largest is not None
    narrowing = Narrowing(
        config.cut.layer_score,
        tuple(config.serve_with),
        device,
        config.cut.shares,
    )
    if config.shape == "depth":
        served = Served(teacher.config, narrowing.serve_with)
        of_all_depths = [replace(whole, layers=count) for count in range(whole.layers, 0, -1)]
        depths = [shape for shape in of_all_depths if served.holds(config.cut.shape(shape))]
        if not depths:
            served.check(config.cut.shape(whole))
        for shape in depths:
            if parameter_count(teacher.config, shape) <= largest:
                return shape
        raise PruningError(
            f"even one layer of full width has {parameter_count(teacher.config, depths[-1]):,} "
            f"parameters, above the budget of {largest:,.0f}; use --shape uniform"
        )
    name = SHAPES[config.shape]
    layers = None if "layers" in CUT_AXES[name] else [whole.layers]
    space = SpaceConfig(layers=layers, multiple_of=config.space.multiple_of)
    architecture = Space.build(
        teacher.config, space, budget=budget, costs=costs, narrowing=narrowing
    ).anchors()[name]
    if architecture is None:
        raise PruningError(
            f"no student of --shape {config.shape} has {budget}; use --shape uniform, or another "
            "budget"
        )
    return architecture
