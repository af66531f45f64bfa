"""What only the workspace of a study has: the teacher's layers that students keep, and files."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from common.errors import PruningError
from pruning import Architecture
from search.results.results import Results
from workspace.layout import Workspace
from workspace.sorted_teacher import SortedTeacher


def kept_layers(
    sorted_teacher: Path, shapes: Iterable[Architecture]
) -> dict[Architecture, Sequence[int]]:
    """Shape -> the layers of the teacher that it has; {} where the sorted teacher is not there."""
    try:
        source = SortedTeacher(sorted_teacher)
        return {shape: source.kept_layers(shape) for shape in shapes}
    except (OSError, PruningError):
        return {}


def study_files(outputs: Workspace, results: Results | None, *, database: str) -> list[tuple[str, str]]:
    """The files of a finished study, and its database."""
    found = [("database", database), ("trials as a table", str(outputs.trials_table))]
    found += [("figures as SVG, PNG and CSV", str(outputs.figures))]
    if results is None:
        return found
    folders = outputs.winner_folders(len(results.winners))
    named = [
        ("the winner's checkpoint" if not rank else f"candidate {rank + 1}'s checkpoint", str(path))
        for rank, path in enumerate(folders)
    ]
    return [*named, ("results", str(outputs.results)), *found]
