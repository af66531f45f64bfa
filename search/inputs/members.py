"""Members of a study: the one student that is looked for, or one for each budget of a family."""

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from transformers import PretrainedConfig

from common.errors import require
from common.files import replacing
from common.fingerprint import fingerprint
from pruning import Block
from search.config.objectives import Objectives
from search.config.study import SearchConfig
from search.per_layer.planning import PerLayerPlan
from search.space.block_latency import BlockLatencyTable
from search.space.block_latency_benchmark import measure_blocks
from search.space.budget import DEFAULT_SHARE, Budget
from search.space.choices import Narrowing
from search.space.costs import CostModel
from search.space.latency import TIMES, LatencySetting, LatencyTable, choose_shapes
from search.space.latency_benchmark import measure, setting_here
from search.space.space import Space, every_architecture
from search.space.variants import LayerVariants
from workspace.layout import Workspace

LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Member:
    """One student that is looked for, inside its own budget."""

    name: str | None
    """Of a family: the share of the teacher's parameters, such as 0.5."""
    budget: Budget
    """What it may cost."""
    space: Space
    """Architectures inside the budget."""

    def line(self) -> str:
        """Line about its budget and space, printed before anything starts."""
        name = "" if self.name is None else f" of member {self.name}"
        return (
            f"budget{name}: {self.budget}; {len(self.space.feasible):,} of "
            f"{self.space.legal_count:,} legal architectures are inside"
        )


def budget_note(config: SearchConfig) -> list[str]:
    """That no limit was given, and what is taken then; nothing where there is one."""
    if config.budget.given or config.family is not None:
        return []
    return [
        f"note: no budget is given: at most {DEFAULT_SHARE:.0%} of the teacher's parameters "
        f"(--budget.parameters {DEFAULT_SHARE})"
    ]


def members_of(config: SearchConfig, costs: CostModel, *, device: str) -> tuple[Member, ...]:
    """The members of the study that `config` describes, the largest first.

    `costs` are those of the teacher's students, with tables of times where budget or objectives
    name one. Raises SearchError for budgets that contradict themselves or that nothing meets.
    """
    budgets = [config.budget]
    if config.family is not None:
        budgets = [replace(config.budget, parameters=share) for share in config.family]
    several = Objectives.of(config.objectives).several
    members = []
    for budget in budgets:
        limits = Budget.of(budget, costs, banded=not several)
        space = Space.build(
            costs.config,
            config.space,
            budget=limits,
            costs=costs,
            narrowing=narrowing_of(config, device),
        )
        name = None if config.family is None else repr(budget.parameters)
        members.append(Member(name, limits, space))
    return tuple(members)


def timed_members(
    config: SearchConfig,
    teacher: PretrainedConfig,
    *,
    variants: Sequence[LayerVariants],
    block: int,
    device: str,
) -> tuple[Member, ...]:
    """The members where budget or objectives name latencies, which are measured first; those of
    sub-blocks where there are `variants` of layers."""
    require(
        not variants or config.budget.latency_table is None,
        "--budget.latency_table has the latencies of students whose layers are alike, and "
        "--space.per_layer needs those of single sub-blocks; leave one of them out",
    )
    latency = latency_table(config, teacher, block=block, device=device)
    costs = replace(cost_model(config, teacher, block=block), latency=latency)
    if variants:
        blocks = [[one.with_ffn_of(other) for one, other in layer.pairs] for layer in variants]
        of_blocks = block_latency_table(
            config, teacher, variants=blocks, block=block, device=device
        )
        costs = replace(costs, block_latency=of_blocks)
    return members_of(config, costs, device=device)


def plan_of(
    config: SearchConfig, variants: Sequence[LayerVariants], member: Member
) -> PerLayerPlan | None:
    """The plan of students whose layers differ; None where there are no `variants`.

    Raises SearchError for a budget that none of them meets.
    """
    if not variants:
        return None
    plan = PerLayerPlan(tuple(variants), member.budget, member.space, config.per_layer.depths)
    plan.require_feasible()
    return plan


def narrowing_of(config: SearchConfig, device: str) -> Narrowing:
    """Conditions on the space of a study on this device."""
    return Narrowing(
        config.importance.layers,
        tuple(config.serve_with),
        device,
        config.importance.settings.shares,
    )


def cost_model(config: SearchConfig, teacher: PretrainedConfig, *, block: int) -> CostModel:
    """What students of a teacher cost that are trained on `block` tokens and served as the budget
    says; without latencies."""
    costs = CostModel.of(teacher, config.budget, block=block)
    return replace(costs, shares=config.importance.settings.shares)


def times_wanted(config: SearchConfig) -> list[str]:
    """The latencies that budget or objectives name."""
    wanted = {*config.budget.given, *Objectives.of(config.objectives).costs}
    return [name for name in TIMES if name in wanted]


def latency_table(
    config: SearchConfig, teacher: PretrainedConfig, *, block: int, device: str
) -> LatencyTable:
    """The user's table, or one that is measured on this machine into the workspace, once."""
    budget, names = config.budget, times_wanted(config)
    costs = cost_model(config, teacher, block=block)
    if budget.latency_table is not None:
        table = LatencyTable.read(budget.latency_table)
        table.require_fits(
            teacher, names, batch=costs.batch, context=costs.context, dtype=budget.dtype
        )
        return table
    setting = _setting_here(config, costs, device=device)
    every = every_architecture(teacher, config.space, narrowing=narrowing_of(config, device))
    shapes = choose_shapes(every)
    measured = [shape.to_dict() for shape in shapes]
    name = fingerprint(setting.fingerprint_parts(), measured, teacher.to_dict())
    workspace = Workspace(config.workspace.expanduser().absolute())
    path = workspace.latencies(name)
    if not path.exists():
        workspace.make()
        with replacing(path) as aside:
            measure(teacher, shapes, setting=setting).save(aside)
    table = LatencyTable.read(path)
    for time in names:
        LOGGER.info(
            f"latency: {time} on {setting}, from {len(shapes)} measured shapes; each predicted "
            f"from the others is off by {table.errors[time]}"
        )
    return table


def block_latency_table(
    config: SearchConfig,
    teacher: PretrainedConfig,
    *,
    variants: Sequence[Collection[Block]],
    block: int,
    device: str,
) -> BlockLatencyTable:
    """Times of the sub-blocks of the `variants` of each of the teacher's layers, measured on this
    machine into the workspace, once."""
    costs = cost_model(config, teacher, block=block)
    setting = _setting_here(config, costs, device=device)
    times = times_wanted(config)
    wanted = [[str(variant) for variant in sorted(set(layer))] for layer in variants]
    name = fingerprint(setting.fingerprint_parts(), times, wanted, teacher.to_dict())
    workspace = Workspace(config.workspace.expanduser().absolute())
    path = workspace.block_latencies(name)
    if not path.exists():
        workspace.make()
        measure_blocks(teacher, variants, setting=setting, times=times).save(path)
    table = BlockLatencyTable.read(path)
    for time in times:
        LOGGER.info(
            f"latency: {time} on {setting}, from {len(table.sub_blocks)} measured sub-blocks; "
            f"their sums are off by {table.errors[time]}, of {len(table.students)} random students "
            "measured as a whole"
        )
    return table


def _setting_here(config: SearchConfig, costs: CostModel, *, device: str) -> LatencySetting:
    return setting_here(
        device,
        config.resources.cpus,
        batch=costs.batch,
        context=costs.context,
        dtype=config.budget.dtype,
    )
