"""What a module imports, itself and through others, wherever a process begins with it."""

import ast
from collections.abc import Iterator
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
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for parts in (name.split(".") for name in names):
            yield from (".".join(parts[:end]) for end in range(1, len(parts) + 1))


def reached_from(module: str) -> set[str]:
    """All that is imported with it; of other projects the names alone."""
    reached, left = set[str](), [module]
    while left:
        path = file_of(left.pop())
        new = set(imports_of(path)) - reached if path else set()
        reached |= new
        left += [name for name in new if name.startswith(PACKAGES)]
    return reached


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
