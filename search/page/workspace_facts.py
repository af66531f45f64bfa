"""What only the workspace of a study has: results, the layers that students kept, and files."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.errors import PruningError
from pruning import Architecture
from search.page.page import StudyPage
from search.page.recorded import recorded_results
from search.page.side_by_side import TEACHER
from search.page.study_facts import StudyFacts
from search.results.results import Results, named_students
from search.results.results_file import read_results
from workspace.layout import Workspace
from workspace.sorted_teacher import SortedTeacher

NO_RESULTS = (
    "The database has no results of full runs: the search has not come to them, or an earlier "
    "version of Espalier wrote them into the workspace alone (--workspace)."
)
NO_FILES = "The checkpoints are in the workspace of the search, which is not at hand here."
NO_LAYERS = "Which layers of the teacher the students kept is known in the workspace alone."


@dataclass(frozen=True)
class Place:
    """Where a study is kept."""

    database: str
    """Its URL, without a password."""
    outputs: Workspace
    """Where the page goes."""
    root: Path | None
    """The study's workspace; None where it is not at hand."""


def study_page(facts: StudyFacts, place: Place, results: Results | None = None) -> StudyPage:
    """The page of one student, with all that its workspace has.

    Args:
        facts: Of the database.
        place: Where the study is, and where the page goes.
        results: Of a search that ends now; by default those in the workspace.

    Raises:
        SearchError: Where a newer version of Espalier wrote the results.
    """
    kept: Mapping[Architecture, Sequence[int]] = {}
    if results is None and place.root is not None:
        results = _results_of(facts, place.root)
    if results is None:
        results, kept = recorded_results(facts)
    if results is not None and place.root is not None:
        shapes = [s.architecture for _, s in named_students(results) if s.cut_from == TEACHER]
        kept = kept_layers(place.root / results.sorted_teacher, shapes) or kept
    missing = _missing(facts, place, results=results, kept=kept)
    return StudyPage(facts, results, kept, _files(facts, place, results), missing)


def _missing(
    facts: StudyFacts,
    place: Place,
    *,
    results: Results | None,
    kept: Mapping[Architecture, Sequence[int]],
) -> list[str]:
    """Sentences on what is not known here, or not up to date."""
    if results is None:
        return [NO_RESULTS]
    since = facts.finished - results.asked.finished_trials
    found = []
    if since > 0:
        trials = "1 trial has" if since == 1 else f"{since} trials have"
        found.append(f"{trials} ended since the full runs, which know nothing of them.")
    if place.root is None:
        found.append(NO_FILES)
    if not kept:
        found.append(NO_LAYERS)
    return found


def _results_of(facts: StudyFacts, root: Path) -> Results | None:
    """Those of this study alone: a workspace may have had another."""
    found = read_results(_outputs(facts, root).results)
    return found if found is not None and found.asked.study == facts.name else None


def _outputs(facts: StudyFacts, root: Path) -> Workspace:
    whole = Workspace(root)
    return whole if facts.member is None else whole.member(facts.member)


def kept_layers(
    sorted_teacher: Path, shapes: Iterable[Architecture]
) -> dict[Architecture, Sequence[int]]:
    """Shape -> the layers of the teacher that it has; {} where the sorted teacher is not there."""
    try:
        source = SortedTeacher(sorted_teacher)
        return {shape: source.kept_layers(shape) for shape in shapes}
    except (OSError, PruningError):
        return {}


def _files(facts: StudyFacts, place: Place, results: Results | None) -> list[tuple[str, str]]:
    """Of a finished study its students and results, and of any its database and tables."""
    found = []
    if results is not None and place.root is not None:
        own = _outputs(facts, place.root)
        for path, name in _checkpoints(own, results).items():
            found.append((f"{name}, a checkpoint to load", path))
        found.append(("results", str(own.results)))
    return [
        *found,
        ("database of the study", place.database),
        ("table of the trials", str(place.outputs.trials_table)),
        ("figures as SVG, PNG and CSV", str(place.outputs.figures)),
    ]


def _checkpoints(outputs: Workspace, results: Results) -> dict[str, str]:
    """Folder of each student that is written -> its first name, winners first."""
    winners = outputs.winner_folders(len(results.winners))
    folders = {id(one): path for one, path in zip(results.winners, winners, strict=True)}
    found: dict[str, str] = {}
    for name, student in named_students(results):
        path = outputs.root / student.folder if student.folder else folders.get(id(student))
        if path is not None:
            found.setdefault(str(path), name)
    return found
