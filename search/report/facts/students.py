"""Entries of students in results.json: scores as language, what they were untrained, and where
they are."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.intervals import mean_interval
from search.finals.measure import Measured, MeasuredStudents
from search.report.facts.language import Language, perplexity_interval
from search.results.results import StudentResult, TeacherScores


@dataclass(frozen=True)
class StudentEntries:
    """What entries have beside the scores of a student."""

    language: Language
    """The test split."""
    untrained: Mapping[int, float]
    """Selection KL before training, by the id of the student."""
    folders: Mapping[int, str]
    """In the workspace, of those whose checkpoints are written, likewise."""

    def winners(self, students: MeasuredStudents) -> list[StudentResult]:
        """Best first."""
        return [self.entry(student) for student in students.winners]

    def baselines(self, students: MeasuredStudents) -> dict[str, StudentResult]:
        """By name."""
        return {name: self.entry(student) for name, student in students.baselines.items()}

    def entry(self, student: Measured) -> StudentResult:
        """Of one student."""
        result = student.result()
        losses = [evaluation.ce for evaluation in student.test]
        test = replace(
            result.test,
            perplexity=perplexity_interval(result.test.ce),
            bits_per_byte=self.language.bits_per_byte(losses),
        )
        return replace(
            result,
            test=test,
            zero_shot_kl=self.untrained.get(id(student)),
            folder=self.folders.get(id(student)),
        )


def folders_of(
    students: MeasuredStudents, winners: list[Path], *, baselines: Mapping[str, Path], root: Path
) -> dict[int, str]:
    """Folders below `root`, by the id of the student; one that is a winner too has that one's."""
    placed = {id(students.baselines[name]): folder for name, folder in baselines.items()}
    placed |= {id(one): folder for one, folder in zip(students.winners, winners, strict=True)}
    return {key: folder.relative_to(root).as_posix() for key, folder in placed.items()}


def teacher_scores(losses: NDArray[np.float64], language: Language) -> TeacherScores:
    """Of the teacher's cross-entropies, nats per token [sequences]."""
    ce = mean_interval([losses])
    return TeacherScores(ce, perplexity_interval(ce), language.bits_per_byte([losses]))
