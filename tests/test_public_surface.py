"""What programs and command lines of users name: imports, and options with their defaults."""

import importlib
import re
import sys
from dataclasses import MISSING, fields
from types import UnionType
from typing import Any

import pytest

from experiments.command import option_types, parser_of
from experiments.dashboard.config import DashboardCommand
from experiments.demo.train_teacher import arguments
from experiments.distill.config import DistillConfig
from experiments.evaluation.config import EvaluateConfig
from experiments.export.config import ExportConfig
from experiments.prune.config import PruneConfig
from experiments.push.config import PushConfig
from experiments.report.config import ReportConfig
from search.config.study import SearchConfig
from tests.surface import require_recorded

COMMANDS: dict[str, Any] = {
    "run_search": SearchConfig,
    "run_prune": PruneConfig,
    "run_distill": DistillConfig,
    "run_export": ExportConfig,
    "run_report": ReportConfig,
    "run_push": PushConfig,
    "run_dashboard": DashboardCommand,
    "run_evaluate": EvaluateConfig,
}


def options_of(kind: Any) -> list[str]:
    """Each option with its type and its default, where it need not be given."""
    defaults = vars(parser_of(kind, None, sentences=False).get_defaults().as_flat())
    required = {
        field.name
        for field in fields(kind)
        if field.default is MISSING and field.default_factory is MISSING
    }
    lines = []
    for option, hint in option_types(kind).items():
        name = option.removeprefix("--")
        default = "" if name in required else f" = {defaults[name]}"
        lines.append(f"{option}: {shown(hint)}{default}")
    return lines


def shown(hint: Any) -> str:
    """A type without the modules that its parts are in."""
    plain = isinstance(hint, type) and not isinstance(hint, UnionType) and "[" not in str(hint)
    return hint.__name__ if plain else re.sub(r"\w+\.(?=\w)", "", str(hint))


@pytest.mark.parametrize("package", ["pruning", "distill", "search"])
def test_a_package_offers_the_names_that_it_did(package: str) -> None:
    module = importlib.import_module(package)
    for name in module.__all__:
        getattr(module, name)
    require_recorded(package, module.__all__)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_has_the_options_and_defaults_that_it_had(command: str) -> None:
    require_recorded(command, options_of(COMMANDS[command]))


def test_the_demos_teacher_is_trained_with_the_options_that_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "argv", ["train_teacher.py"])
    require_recorded("train_teacher", [f"--{name}" for name in vars(arguments())])
