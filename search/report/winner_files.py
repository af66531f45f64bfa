"""The winners as stock checkpoints: the first in `best`, the others in `winners`."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from common.files import write_directory_atomically, write_file_atomically
from common.version import installed_version
from distill import Corpus
from search.database.attributes import FINGERPRINT
from search.finals.measure import MeasuredStudents
from search.inputs.inputs import Inputs
from search.report.finished_search import FinishedSearch
from search.results.cards import shown_name
from search.results.results import StudentResult
from search.results.results_file import to_json
from search.workers.full_runs import FullPlan, FullResult, FullRun, load_result
from workspace.layout import Workspace
from workspace.models import place_student, write_cut_facts
from workspace.proof import require_copied
from workspace.sorted_teacher import SortedTeacher


@dataclass(frozen=True)
class Provenance:
    """Origin of a winner, as it is written beside its weights."""

    espalier: str
    """Version of the package."""
    study: str
    """Name of the study in its database."""
    teacher: str
    """Hub id, or the folder's own name."""
    teacher_fingerprint: str
    """Of its weights."""
    corpus_fingerprint: str
    """Of its text, as it was packed."""
    training: dict[str, Any]
    """Training settings as the study recorded them."""
    seed: int
    """Of the study."""

    @classmethod
    def of(cls, search: FinishedSearch) -> "Provenance":
        """That of all winners of a search."""
        config = search.inputs.config
        recorded = search.record.study.user_attrs[FINGERPRINT]
        return cls(
            espalier=installed_version(),
            study=config.study,
            teacher=shown_name(config.teacher),
            teacher_fingerprint=recorded["teacher"],
            corpus_fingerprint=recorded["corpus"],
            training=recorded["training"],
            seed=config.seed,
        )


def place_students(
    ranking: list[FullRun], plan: FullPlan, *, inputs: Inputs, outputs: Workspace
) -> float:
    """Write the winners as stock checkpoints.

    Returns:
        By how many nats at most they answer otherwise, loaded again, than when they were measured.

    Raises:
        SearchStopped: Where that is more than rounding; that one is not put in place.
    """
    shutil.rmtree(outputs.winners, ignore_errors=True)
    differences = []
    for run, directory in zip(ranking, outputs.winner_folders(len(ranking)), strict=True):
        result = load_result(run, plan)
        assert result is not None, "only finished students are ranked"
        differences.append(_place(result, directory, plan=plan, inputs=inputs))
    return max(differences)


def place_baselines(
    names: Sequence[str], students: MeasuredStudents, *, search: FinishedSearch, outputs: Workspace
) -> dict[str, Path]:
    """Write the baselines of these names as stock checkpoints, and take away those of before.

    Returns:
        The folder of each.

    Raises:
        SearchStopped: Where one answers otherwise, loaded again, than when it was measured.
    """
    shutil.rmtree(outputs.baselines, ignore_errors=True)
    folders = {name: outputs.baseline(name) for name in names}
    for name, directory in folders.items():
        first = students.baselines[name].runs[0]
        directory.parent.mkdir(exist_ok=True)
        _place(first, directory, plan=search.plan, inputs=search.inputs)
    return folders


def _place(result: FullResult, directory: Path, *, plan: FullPlan, inputs: Inputs) -> float:
    """Write a student that was distilled in full; returns by how much it answers otherwise."""
    block, differences = Corpus(plan.assets.corpus).blocks("selection")[0], []

    def fill(directory: Path) -> None:
        place_student(result.model, directory, parent=inputs.teacher)
        write_cut_facts(directory, _cut_facts(result.run, plan))
        differences.append(
            require_copied(directory, result.model, block=block, measured=result.answers)
        )

    write_directory_atomically(directory, fill)
    return differences[0]


def _cut_facts(run: FullRun, plan: FullPlan) -> dict[str, Any]:
    """What of the teacher a winner has; {} where it was cut from a student or from nothing."""
    if run.source or run.from_scratch:
        return {}
    source = SortedTeacher(plan.assets.sorted_teacher)
    return {
        "architecture": run.architecture.to_dict(),
        "kept_layers": source.kept_layers(run.architecture),
        "kept_channels": source.ordering.hidden[: run.architecture.hidden].tolist(),
    }


def write_student_facts(students: Mapping[Path, StudentResult], *, provenance: Provenance) -> None:
    """Write each student's architecture, scores and provenance beside its weights, by folder."""
    for directory, student in students.items():
        facts = json.loads(to_json(student)) | {"provenance": asdict(provenance)}
        write_file_atomically(directory / "espalier.json", json.dumps(facts, indent=2))
