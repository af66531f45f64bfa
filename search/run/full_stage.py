"""Full runs of one member of a study, each following from those before it."""

import logging
from dataclasses import replace

from optuna.trial import TrialState

from pruning import Architecture
from search.config.names import CANDIDATE, UNCORRECTED
from search.database.trial_facts import architecture_of
from search.finals.comparison import short_kl
from search.finals.runner import FullRunner, run_in_full
from search.finals.selection import FinalSelection
from search.run.context import ParentStudent, PreparedStudy
from search.study.record import Record
from search.workers.full_runs import (
    MEMBER_SEPARATOR,
    FullPlan,
    FullResult,
    FullRun,
    delete_taken_over,
    load_result,
    uncorrected,
)

LOGGER = logging.getLogger(__name__)


class FullStage:
    """Distils the best in full, with what they are held against."""

    def __init__(
        self,
        study: PreparedStudy,
        record: Record,
        *,
        larger: list[ParentStudent],
        expected: int = 0,
        ahead: FullRunner | None = None,
    ):
        """`larger` are the winners of the members before, of a family; so many runs are expected at
        most; `ahead` are full runs that were begun while trials ran."""
        self.study, self.record, self.larger = study, record, larger
        self.runner = ahead or FullRunner(study.full_plan(expected), study.full_slots)
        self.config = study.context.config

    def distil(self, selection: FinalSelection) -> tuple[FinalSelection, list[FullRun], FullPlan]:
        """Returns the selection and the plan, both with the source of each student, and between
        them the winners' runs, the best first."""
        plan = self.runner.plan
        self._take_over(selection, plan)
        shapes = ", ".join(str(shape) for shape in selection.candidates)
        LOGGER.info(f"full distillation, {plan.tokens:,} tokens each: {shapes}")
        if selection.tied:
            LOGGER.info(
                f"of these, {len(selection.tied)} because the short runs cannot tell them from the "
                "last of the winners"
            )
        found = self._finished(selection.first_round(), plan)
        found |= self._distilled_baselines(selection, plan)
        ranking = selection.ranked(found)
        selection, ranking, plan = self._staged(selection, ranking, plan=plan)
        found = self._finished([ranking[0], *selection.second_round(ranking)], plan)
        ranking = selection.with_scratch(ranking, found)
        self._distil_uncorrected(ranking[0].architecture, plan)
        return selection, ranking, plan

    def _finished(self, runs: list[FullRun], plan: FullPlan) -> dict[FullRun, FullResult]:
        """The results of the runs, each by `plan`."""
        if plan is self.runner.plan:
            return self.runner.finish(runs)
        return run_in_full(runs, plan, self.study.full_slots)

    def _take_over(self, selection: FinalSelection, plan: FullPlan) -> None:
        """Keep of what the trials wrote only what full runs would be, and say so."""
        kept = [*selection.candidates, *selection.baselines().values()]
        tried = [architecture_of(trial) for trial in self.record.trials(TrialState.COMPLETE)]
        delete_taken_over([shape for shape in tried if shape not in kept], plan)
        if not selection.stage.repeats_trials:  # they were kept for want of time
            delete_taken_over(tried, self.study.trial_plan())
        results = [load_result(FullRun(CANDIDATE, shape), plan) for shape in kept]
        if count := sum(1 for result in results if result is not None and result.from_trial):
            LOGGER.info(
                f"full runs: {count} would repeat a trial step by step, and are taken over from it"
            )

    def _distilled_baselines(
        self, selection: FinalSelection, plan: FullPlan
    ) -> dict[FullRun, FullResult]:
        """Full runs of baselines: those that are there, and those that a short run asks for."""
        scores = {
            shape: float(kl.mean())
            for role, shape in [
                *((CANDIDATE, shape) for shape in selection.candidates),
                *selection.baselines().items(),
            ]
            if (kl := short_kl(selection, role, shape=shape, plan=plan)) is not None
        }
        better = selection.promoted(scores)
        for run in better:
            LOGGER.info(f"{run} is better than every candidate after the short run: in full too")
        there = [selection.run(role, shape) for role, shape in selection.baselines().items()]
        found = {run: result for run in there if (result := load_result(run, plan)) is not None}
        return found | self._finished(better, plan)

    def _staged(
        self, selection: FinalSelection, ranking: list[FullRun], *, plan: FullPlan
    ) -> tuple[FinalSelection, list[FullRun], FullPlan]:
        """Cut the best also from the next larger member, and keep what is better.

        Minitron (arXiv 2407.14679) finds a small model better cut from a distilled larger one; the
        teacher stays the original.
        """
        direct = ranking[0]
        winner = direct.architecture
        fitting = [one for one in self.larger if _is_inside(winner, one.architecture)]
        if not fitting:
            if self.larger:
                LOGGER.info(f"staged: {winner} is not inside a larger member; cut from the teacher")
            return selection, ranking, plan
        source = fitting[-1]
        student = source.sorted_student.name.removeprefix("sorted-")[:8]
        named = f"{source.name}{MEMBER_SEPARATOR}{student}"
        plan = replace(plan, sources={named: source.sorted_student})
        staged = replace(direct, source=named)
        found = self._finished([direct, staged], plan)
        if staged not in found:
            return selection, ranking, plan
        kls = [found[run].selection.means()["kl"] for run in (direct, staged)]
        better = kls[1] < kls[0]
        LOGGER.info(
            f"staged: selection KL {kls[1]:.4f} cut from {source.name}, {kls[0]:.4f} cut from the "
            f"teacher; {'the first' if better else 'the second'} is kept"
        )
        if not better:
            return selection, ranking, plan
        return replace(selection, sources={winner: named}), [staged, *ranking[1:]], plan

    def _distil_uncorrected(self, winner: Architecture, plan: FullPlan) -> None:
        """What the winner would be without teacher correction, where there was one."""
        if not self.config.correction.tokens:
            return
        blocks = ", without trained blocks" if winner.per_layer else ""
        LOGGER.info(f"correction: the winner's shape once more, from the teacher as it was{blocks}")
        apart = uncorrected(plan, self.study.uncorrected_assets())
        self._finished([FullRun(UNCORRECTED, winner)], apart)


def _is_inside(small: Architecture, large: Architecture) -> bool:
    """Whether `small` can be cut out of `large`."""
    axes = ("layers", "hidden", "heads", "kv_heads", "ffn", "experts", "expert_ffn")
    fits = all(getattr(small, axis) <= getattr(large, axis) for axis in axes)
    return fits and small.heads // small.kv_heads <= large.heads // large.kv_heads
