"""Write the page of all options from the commands themselves, while the documentation is built."""

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import mkdocs_gen_files

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from experiments.command import parser_of
from experiments.dashboard.config import DashboardCommand
from experiments.distill.config import DistillConfig
from experiments.evaluation.config import EvaluateConfig
from experiments.export.config import ExportConfig
from experiments.prune.config import PruneConfig
from experiments.push.config import PushConfig
from search.config import SearchConfig

PAGE = "reference/options.md"
CONFIGURATIONS: dict[str, type] = {
    "search": SearchConfig,
    "prune": PruneConfig,
    "distill": DistillConfig,
    "export": ExportConfig,
    "push": PushConfig,
    "dashboard": DashboardCommand,
    "evaluate": EvaluateConfig,
}
"""Program of `espalier` -> what its options are the fields of."""


def sections(program: str, kind: type) -> Iterator[str]:
    """The options of a program as tables, one for each group."""
    module = import_module(f"experiments.run_{program}")
    yield f"## espalier {program}\n\n{(module.__doc__ or '').splitlines()[0]}\n"
    parser = parser_of(kind, None, sentences=True)
    for group in parser._action_groups:
        rows = [row for action in group._group_actions if (row := row_of(action))]
        if rows:
            yield "| option | default | meaning |\n|---|---|---|\n" + "\n".join(rows) + "\n"


def row_of(action: Any) -> str:
    """One row of a table; empty for what is no option of its own."""
    names = [name for name in action.option_strings if name.startswith("--")]
    if not names or action.help in (None, "==SUPPRESS=="):
        return ""
    given = action.default
    default = "" if given is None or given == "==SUPPRESS==" else f"`{given}`"
    meaning = str(action.help).replace("%%", "%").replace("|", "\\|")
    return f"| `{names[0]}` | {cell(default)} | {cell(meaning)} |"


def cell(text: str) -> str:
    return " ".join(text.split())


with mkdocs_gen_files.open(PAGE, "w") as page:
    page.write("# Options\n\nWhat `--help` says of every option, made from the code.\n\n")
    for program, kind in CONFIGURATIONS.items():
        page.write("\n".join(sections(program, kind)) + "\n")
