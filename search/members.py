"""The students that a study looks for: one, or one for each budget of a family."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from transformers import PretrainedConfig

from search.budget import Budget, CostModel
from search.choices import Narrowing
from search.config import SearchConfig
from search.latency import TIMES, LatencyTable, choose_shapes
from search.objectives import Objectives
from search.space import Space, every_architecture
from search.timing import measure, setting_here
from search.workspace import Workspace, fingerprint


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
        """What is printed of it before anything starts."""
        name = "" if self.name is None else f" of member {self.name}"
        return (
            f"budget{name}: {self.budget}; {len(self.space.feasible):,} of "
            f"{self.space.legal_count:,} legal architectures are inside"
        )


def members_of(
    config: SearchConfig,
    teacher: PretrainedConfig,
    block: int,
    device: str,
    say: Callable[[str], None],
) -> tuple[Member, ...]:
    """The members of the study that `config` describes, the largest first.

    Measures latencies into the workspace where budget or objectives name one. Raises SearchError
    for budgets that contradict themselves or that nothing meets.
    """
    budgets = [config.budget]
    if config.family is not None:
        budgets = [replace(config.budget, parameters=share) for share in config.family]
    costs = CostModel.of(teacher, config.budget, block)
    if times := times_wanted(config):
        table = _latencies(config, teacher, costs, times, device, say)
        costs = replace(costs, latency=table)
    several = Objectives.of(config.objectives).several
    members = []
    for budget in budgets:
        limits = Budget.of(budget, costs, banded=not several)
        space = Space.build(teacher, config.space, limits, costs, narrowing_of(config, device))
        name = None if config.family is None else repr(budget.parameters)
        members.append(Member(name, limits, space))
    return tuple(members)


def narrowing_of(config: SearchConfig, device: str) -> Narrowing:
    """What narrows the space of a study on this device."""
    return Narrowing(config.importance.layers, tuple(config.serve_with), device)


def times_wanted(config: SearchConfig) -> list[str]:
    """The latencies that budget or objectives name."""
    wanted = {*config.budget.given, *Objectives.of(config.objectives).costs}
    return [name for name in TIMES if name in wanted]


def _latencies(
    config: SearchConfig,
    teacher: PretrainedConfig,
    costs: CostModel,
    names: list[str],
    device: str,
    say: Callable[[str], None],
) -> LatencyTable:
    """The user's table, or one measured on this machine, once per workspace."""
    budget = config.budget
    if budget.latency_table is not None:
        table = LatencyTable.read(budget.latency_table)
        table.require_fits(teacher, costs.batch, costs.context, budget.dtype, names)
        return table
    threads = config.resources.cpus
    setting = setting_here(device, threads, costs.batch, costs.context, budget.dtype)
    every = every_architecture(teacher, config.space, narrowing_of(config, device))
    shapes = choose_shapes(every)
    measured = [shape.to_dict() for shape in shapes]
    name = fingerprint(setting.fingerprint_parts(), measured, teacher.to_dict())
    workspace = Workspace(config.workspace.expanduser().absolute())
    path = workspace.root / f"latency-{name}.csv"
    if not path.exists():
        workspace.make()
        aside = path.with_suffix(".tmp")
        measure(teacher, shapes, setting, say).save(aside)
        aside.replace(path)
    table = LatencyTable.read(path)
    for time in names:
        say(
            f"latency: {time} on {setting}, from {len(shapes)} measured shapes; each predicted "
            f"from the others is off by {table.errors[time]}"
        )
    return table
