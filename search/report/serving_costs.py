"""Costs to hold and to run the winners: counted, and where latency was asked for, measured."""

import logging

from pruning import Architecture
from search.config.units import COUNTED
from search.report.finished_search import FinishedSearch
from search.results.results import LatencyResult, ServingCosts
from search.space.costs import CostModel
from search.space.latency import TIMES
from search.space.latency_benchmark import check

LOGGER = logging.getLogger(__name__)


def serving_costs(search: FinishedSearch) -> list[ServingCosts]:
    """Of each winner; times predicted and measured again.

    A time of a table that the user brought is not measured: it may be of another machine.
    """
    model = search.record.space.costs
    own_table = search.inputs.config.budget.latency_table is None
    winners = search.students.winners
    return [_costs(model, winner.architecture, own_table=own_table) for winner in winners]


def other_costs(search: FinishedSearch) -> dict[str, ServingCosts]:
    """Of the teacher and of each baseline, by name; times as predicted."""
    shapes = {"teacher": search.inputs.space.teacher}
    shapes |= {name: one.architecture for name, one in search.students.baselines.items()}
    model = search.record.space.costs
    return {name: _costs(model, shape, own_table=False) for name, shape in shapes.items()}


def _costs(model: CostModel, shape: Architecture, *, own_table: bool) -> ServingCosts:
    amounts = {name: float(amount) for name, amount in model.costs(shape, COUNTED).items()}
    return ServingCosts(**amounts, latency=_latency(model, shape, own_table=own_table))


def _latency(model: CostModel, shape: Architecture, *, own_table: bool) -> dict[str, LatencyResult]:
    """By name of the time; empty where no latency was asked for."""
    if model.latency is None:
        return {}
    predicted, setting = model.times(shape), model.latency.setting
    measured = {}
    if own_table and setting is not None:
        LOGGER.info(f"latency: measuring {shape}")
        measured = check(model.config, shape, setting=setting)
    return {
        name: LatencyResult(float(predicted[name]), measured.get(name))
        for name in TIMES
        if name in predicted
    }
