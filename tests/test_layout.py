"""The house keeps its shape: how much lies in a folder, and on how many floors of imports."""

import importlib
from importlib.metadata import packages_distributions
from pathlib import Path

import grimp
import pytest

from tests.driver import ROOT

PACKAGES = ("common", "pruning", "distill", "workspace", "search", "experiments")
BENCHMARKS = "experiments.benchmarks"
MOST_FILES, MOST_FLOORS, MOST_ROOM_FLOORS = 12, 7, 6
SCRIPTS = (
    "run_search.py",
    "run_prune.py",
    "run_distill.py",
    "run_evaluate.py",
    "run_export.py",
    "run_push.py",
    "run_report.py",
    "run_dashboard.py",
)
MOST_LINES = 45


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph(*PACKAGES, cache_dir=None)


def folders() -> list[Path]:
    every = [ROOT / package for package in PACKAGES]
    inside = [path for package in every for path in package.rglob("*") if path.is_dir()]
    return [path for path in every + inside if any(path.glob("*.py"))]


@pytest.mark.parametrize("folder", folders(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_folder_holds_few_files(folder: Path) -> None:
    modules = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
    assert len(modules) <= MOST_FILES


def floors(parent: str, graph: grimp.ImportGraph) -> int:
    """Most modules or rooms below `parent` that stand one on the other."""
    children = {child for child in graph.find_children(parent) if child != BENCHMARKS}
    found: dict[str, int] = {}

    def floor(name: str, above: tuple[str, ...]) -> int:
        assert name not in above, f"a circle: {' -> '.join([*above, name])}"
        if name not in found:
            below = {
                other
                for other in children - {name}
                if graph.direct_import_exists(importer=name, imported=other, as_packages=True)
            }
            found[name] = 1 + max([floor(other, (*above, name)) for other in below], default=0)
        return found[name]

    return max([floor(child, ()) for child in children], default=0)


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_has_few_floors(package: str, graph: grimp.ImportGraph) -> None:
    assert floors(package, graph) <= MOST_FLOORS


def test_a_room_has_few_floors(graph: grimp.ImportGraph) -> None:
    rooms = {
        module
        for module in graph.modules
        if "." in module and not module.startswith(BENCHMARKS) and graph.find_children(module)
    }
    assert {"search.study", "distill.targets", "pruning.families"} <= rooms
    assert {
        room: floors(room, graph) for room in rooms if floors(room, graph) > MOST_ROOM_FLOORS
    } == {}


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_are_thin(script: str) -> None:
    assert len((ROOT / "experiments" / script).read_text("utf-8").splitlines()) < MOST_LINES


def test_the_picture_of_the_architecture_is_that_of_the_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    draw = importlib.import_module("draw_architecture")
    drawn = draw.PICTURE.read_text("utf-8")
    assert drawn == draw.picture(), "run python docs/draw_architecture.py"


def test_no_room_of_the_scripts_hides_a_library() -> None:
    """A script has its own folder on its path, where `import evaluate` would find a room."""
    rooms = {path.name for path in folders() if path.parent == ROOT / "experiments"}
    assert not rooms & (packages_distributions().keys() - set(PACKAGES))
