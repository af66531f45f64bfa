"""Students on the test split, each on a slot of its own where there are several.

The test split is read here and nowhere else. Students are measured as they were written and loaded
again, in fp32.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.progress import Progress, duration, tell
from distill import Corpus, Evaluation
from distill.recipes import Assets
from search.workers.access import WorkspaceAccess
from search.workers.full_runs import FullPlan
from search.workers.slots import SlotPool
from search.workers.spreading import worth_spreading
from search.workers.staging import directories_here
from search.workers.tasks import TaskPool
from workspace.corpus_and_targets import evaluate_on_test_split

LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class StudentTests:
    """Evaluations on the test split, wherever it is fastest."""

    plan: FullPlan
    """How the students were distilled, which says what they are measured against."""
    slots: SlotPool
    """Where students are measured, unless this process has as much to compute with; ended then."""

    def of(self, models: Sequence[Path]) -> dict[Path, Evaluation]:
        """By the folder of each model. Raises SearchStopped where a slot cannot measure one."""
        different = list(dict.fromkeys(models))
        plan = self.plan
        tell(LOGGER, work="test split", done=0.0, total=float(len(different)), unit="students")
        if len(different) < 2 or not worth_spreading(self.slots.room.resources):
            self.slots.release_all()
            return {model: tested(model, plan.assets) for model in different}
        pool = TaskPool("test", "students could not be measured", self.slots, plan.errors)
        progress, found = Progress(len(different)), dict[Path, Evaluation]()
        for model, evaluation in pool.called(
            tested, different, arguments=lambda model: (model, plan.assets, plan.access)
        ):
            found[model] = evaluation
            tell(LOGGER, done=float(len(found)))
            if len(found) < len(different):
                LOGGER.info(
                    f"test: {len(found)} of {len(different)} students measured; about "
                    f"{duration(progress.left(len(found)))} left of it"
                )
        LOGGER.info(f"test: {len(found)} students measured")
        self.slots.release_all()
        return found


def tested(model: Path, assets: Assets, access: WorkspaceAccess | None = None) -> Evaluation:
    """The student in the folder `model`, in whatever process this is."""
    read = model, assets.corpus, assets.test_targets
    student, corpus, targets = directories_here(read, access)
    return evaluate_on_test_split(student, Corpus(corpus), targets=targets, device=assets.device)
