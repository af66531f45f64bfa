"""Configuration of a study: every option, its default, its unit and its bounds."""

from search.config.budget import BudgetConfig
from search.config.names import HALVING, HYPERBAND, NEVER, RANDOM_INITIALISATION, STOPPERS
from search.config.per_layer import PerLayerConfig
from search.config.sampler import NAMES, SamplerSettings
from search.config.sections import FunnelConfig, HalvingConfig, PlannedMachine, ResourceConfig
from search.config.shown import LOCALHOST, PORT, DashboardConfig, check_host
from search.config.space import SpaceConfig
from search.config.study import SearchConfig
from search.config.tasks import check_task_names, names_of_tasks

__all__ = [
    "HALVING",
    "HYPERBAND",
    "LOCALHOST",
    "NAMES",
    "NEVER",
    "PORT",
    "RANDOM_INITIALISATION",
    "STOPPERS",
    "BudgetConfig",
    "DashboardConfig",
    "FunnelConfig",
    "HalvingConfig",
    "PerLayerConfig",
    "PlannedMachine",
    "ResourceConfig",
    "SamplerSettings",
    "SearchConfig",
    "SpaceConfig",
    "check_host",
    "check_task_names",
    "names_of_tasks",
]
