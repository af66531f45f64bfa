"""Finished search for one student: everything that its report reads."""

from dataclasses import dataclass

from search.finals.measure import MeasuredStudents
from search.finals.selection import FinalSelection
from search.inputs.inputs import Inputs
from search.inputs.members import Member
from search.library import Library
from search.per_layer.combinations import Round
from search.study.record import Record
from search.trials.zero_shot import ZeroShot
from search.workers.full_runs import FullPlan


@dataclass(frozen=True)
class FinishedSearch:
    """Everything that was done for one student that is looked for."""

    inputs: Inputs
    """Configuration, teacher, text and members, as the user gave them."""
    member: Member
    """Of the family, or the only student."""
    record: Record
    """The trials."""
    selection: FinalSelection
    """The students that were distilled in full, and their baselines."""
    plan: FullPlan
    """How they were."""
    zero_shot: ZeroShot | None
    """Scores before training; None where none were asked for."""
    students: MeasuredStudents
    """Winners and baselines on the test split."""
    rounds: tuple[Round, ...] = ()
    """Of combinations of blocks; () where the layers of all students are alike."""
    library: Library | None = None
    """The blocks that they are made of."""
    left_out: tuple[str, ...] = ()
    """What of the last stage there was no time for, in words."""
