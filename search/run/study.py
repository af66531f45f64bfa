"""A study from end to end: open, prepare, try, distil in full, report. Each step can be killed.

from search import SearchConfig, run_search
run_search(SearchConfig(teacher="my-model", corpus="my-text.jsonl"))
"""

import logging
import time
from collections.abc import Sequence
from functools import partial

from common.log import timed_lines
from search.config.study import SearchConfig
from search.overview import Result, next_steps
from search.plan.study_plan import StudyPlan
from search.report.console import log_outcome
from search.report.family import write_family, write_family_page
from search.report.outcome import Outcome
from search.results.cards import write_copy_card
from search.run.context import ParentStudent, PreparedStudy, StudyContext
from search.run.member import MemberRun
from search.run.opening import opened
from search.run.session import finished_outcomes, prepared, take_up
from search.study.queue import TrialQueue
from workspace.models import write_copies
from workspace.publishing import check_target, publish

LOGGER = logging.getLogger(__name__)
FULL_RUNS = "full runs"
"""The role that only one driver of a study has: it does full runs and report."""


@timed_lines()
def run_search(config: SearchConfig, *, started: float | None = None) -> Outcome | None:
    """Run or resume the study that `config` describes and return what came of it; of a family,
    what came of its smallest member. None where another driver of the study does the full runs.

    With `config.plan` it prints what the study takes instead, and returns None. Time is counted
    from `started` on, on the monotonic clock; from now, where it is not given.

    Raises SearchError, PruningError or DistillError for what the user can mend before anything
    started; SearchStopped where trials keep failing; Interrupted at Ctrl-C or SIGTERM.
    """
    if config.plan:
        StudyPlan.of(config).plan().shown()
        return None
    if config.push_to_hub is not None:
        check_target(config.push_to_hub, option="--push_to_hub")
    with opened(config, time.monotonic() if started is None else started) as context:
        queues = take_up(context)
        outcomes, cut = finished_outcomes(context, queues), list[str]()
        if outcomes is None:
            with prepared(context, queues) as study:
                outcomes, cut = _run_members(study, queues)
        return None if outcomes is None else _concluded(context, outcomes, cut)


def _run_members(
    study: PreparedStudy, queues: Sequence[TrialQueue]
) -> tuple[list[Outcome] | None, list[str]]:
    """One after the other, the largest first, since smaller ones may be cut from it.

    Where several drivers share the study, all help with the trials of all members; the first
    that is through with those of one does all full runs. None for the others. Beside the outcomes
    what there was no time for.
    """
    context = study.context
    parents: list[ParentStudent] = []
    outcomes: list[Outcome] = []
    cut: list[str] = []
    helping = False
    for member, queue in zip(context.inputs.members, queues, strict=True):
        run = MemberRun(study, member, queue, tuple(parents))
        trials = run.run_trials()
        if not helping and not outcomes and not context.coordination.claim(FULL_RUNS):
            holder = context.coordination.held_by(FULL_RUNS)
            LOGGER.info(
                f"full runs: {holder} does them, and writes the winners to its workspace; nothing "
                "is left to do here; should it die, the same command takes its place"
            )
            helping = True
        if helping:
            continue
        finals = run.run_finals(trials)
        outcome = run.report(trials, finals)
        outcomes.append(outcome)
        cut += [*trials.left_out, *finals.cut.left_out]
        if member.name is not None and len(outcomes) < len(queues):
            student = study.preparation.sorted_student(run.outputs.best, member.name).directory
            parents.append(ParentStudent(member.name, outcome.winner, student))
    if len(outcomes) < len(queues):
        return None, cut
    study.audience.concluded([(outcome.workspace, outcome.results) for outcome in outcomes])
    return outcomes, cut


def _concluded(context: StudyContext, outcomes: list[Outcome], cut: Sequence[str]) -> Outcome:
    """Say what came of each member, pass its winners on, and say what to do next; `cut` was left
    out for want of time."""
    for outcome in outcomes:
        log_outcome(outcome)
        for folder in outcome.winner_folders:
            write_copies(
                folder,
                context.config.export,
                partial(write_copy_card, student=folder, name=str(folder)),
                part=context.inputs.teacher.part,
            )
    if len(outcomes) > 1:
        write_family(context.workspace.root, outcomes)
        write_family_page(context.study, context.workspace, outcomes)
    if context.config.push_to_hub is not None:
        _publish(outcomes, context.config.push_to_hub)
    results = [
        Result(one.workspace.best, one.workspace.report, per_layer=one.winner.per_layer)
        for one in outcomes
    ]
    trials = max(context.config.trials, outcomes[-1].results.asked.finished_trials)
    for line in next_steps(results, trials=trials, cut=cut):
        LOGGER.info(line)
    return outcomes[-1]


def _publish(outcomes: list[Outcome], repo: str) -> None:
    """Upload the winner, or that of each member of a family."""
    for outcome in outcomes:
        member = outcome.results.member
        publish(outcome.workspace.best, repo if member is None else f"{repo}-{member}")
