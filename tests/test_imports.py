"""What a module imports, itself and through others, wherever a process begins with it."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.driver import ROOT

PACKAGES = ("common", "pruning", "distill", "workspace", "search", "experiments")


def file_of(module: str) -> Path | None:
    """None of a module of another project, and of what is no module."""
    path = ROOT / module.replace(".", "/")
    places = (path.with_suffix(".py"), path / "__init__.py")
    return next((place for place in places if place.exists()), None)


def imports_of(path: Path) -> Iterator[str]:
    """Modules that are imported as soon as the file is, with all packages around them."""
    for node in ast.parse(path.read_text("utf-8")).body:
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            lazy = lazy_exports_of(f"{node.module}")
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            names += [lazy[alias.name] for alias in node.names if alias.name in lazy]
        for parts in (name.split(".") for name in names):
            yield from (".".join(parts[:end]) for end in range(1, len(parts) + 1))


@cache
def lazy_exports_of(module: str) -> dict[str, str]:
    """What a room imports when somebody asks for it: name -> module."""
    path = file_of(module)
    checked = [] if path is None else ast.parse(path.read_text("utf-8")).body
    lines = [
        line
        for node in checked
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        for line in node.body
        if isinstance(line, ast.ImportFrom)
    ]
    return {alias.name: f"{line.module}" for line in lines for alias in line.names}


def reached_from(module: str) -> set[str]:
    """All that is imported with it; of other projects the names alone."""
    reached, left = set[str](), [module]
    while left:
        path = file_of(left.pop())
        new = set(imports_of(path)) - reached if path else set()
        reached |= new
        left += [name for name in new if name.startswith(PACKAGES)]
    return reached


LIBRARIES = ("torch", "transformers", "ray", "optuna", "pandas", "datasets")
"""Whose imports take seconds."""
ANSWERED = f"""
import sys
from experiments.console import main

for arguments in (
    ["--help"],
    ["search", "--help"],
    ["search", "--trails", "3"],
    ["search", "--trials", "many"],
    ["search", "--teacher", "x", "--corpus", "y", "--budget.parameters", "x"],
    ["search", "--teacher", "x", "--corpus", "y", "--trials", "-3"],
    ["search", "--teacher", "/no/such", "--corpus", "y", "--budget.parameters", "0.5"],
    ["search", "--teacher", "x", "--corpus", "no/such/text.txt", "--budget.parameters", "0.5"],
    ["prune", "--teacher", "x", "--corpus", "/no/such", "--ffn", "64", "--output", "z"],
    ["distill", "--teacher", "/no/such", "--student", "x", "--corpus", "y", "--output", "z"],
    ["distill", "--teacher", "x", "--student", "/no:7", "--corpus", "y", "--output", "z"],
    ["evaluate", "--models", "x", "--corpus", "/no/such", "--output", "z"],
    ["evaluate", "--models", "x", "~nobody/such", "--corpus", "y", "--output", "z"],
    ["export", "--student", "/no/such", "--output", "y"],
    ["export", "--student", "/" + 300 * "long", "--output", "y"],
    ["prune", "--help"],
    ["prune", "--outptu", "x"],
    ["distill", "--help"],
    ["distill", "--workers.count", "some"],
    ["export", "--help"],
    ["export", "--form", "unknown", "--student", "x", "--output", "y"],
    ["evaluate", "--help"],
    ["evaluate", "--modles", "x"],
    ["report", "--help"],
    ["dashboard", "--port", "many"],
    ["push", "--help"],
):
    try:
        status = main(arguments)
    except SystemExit as end:
        status = end.code
    asked = "--help" in arguments
    assert (status or 0) == (0 if asked else 2), (arguments, status)
    late = [name for name in {LIBRARIES} if name in sys.modules]
    assert not late, (arguments, late)
"""


def test_help_typos_and_bad_values_wait_for_no_library() -> None:
    command = [sys.executable, "-c", ANSWERED]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "did you mean --trials?" in done.stderr and "--trials is -3" in done.stderr


@pytest.mark.parametrize(
    ("module", "imported"),
    [
        ("experiments.run_prune", "experiments.command"),
        ("experiments.prune.session", "workspace.sources"),
    ],
)
def test_a_cut_needs_neither_ray_nor_optuna(module: str, imported: str) -> None:
    reached = reached_from(module)
    assert imported in reached
    assert not reached & {"ray", "optuna"}


def test_the_workspace_knows_nothing_of_the_search() -> None:
    modules = [path for path in (ROOT / "workspace").rglob("*.py") if path.name != "__init__.py"]
    assert modules
    for path in modules:
        reached = reached_from(".".join(path.relative_to(ROOT).with_suffix("").parts))
        assert not reached & {"search", "experiments", "ray", "optuna"}, path
