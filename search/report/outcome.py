"""Outcome of a search: the files of a finished study, written, and read again at a restart."""

from dataclasses import dataclass, replace
from pathlib import Path

from common.files import write_file_atomically
from distill import Corpus
from pruning import Architecture, Checkpoint, engines_of
from search.config.names import EVIDENCE_FULL, EVIDENCE_NONE, EVIDENCE_SHORT
from search.config.study import SearchConfig
from search.database.attributes import FINGERPRINT, PLANNED_SPEED
from search.database.trial_facts import FINISHED_STATES, architecture_of, progress_of
from search.finals.candidates import chances
from search.finals.comparison import Comparison
from search.finals.estimates import MeasuredRun, estimates
from search.finals.measure import correction_result, teacher_scores
from search.needs.comparison import Estimates
from search.report.cost_report import CostReport
from search.report.finished_search import FinishedSearch
from search.report.per_layer import per_layer_result, per_layer_verdicts
from search.report.scored_trials import candidate_scores, trade_offs
from search.report.serving_costs import serving_costs
from search.report.task_results import run_tasks
from search.report.verdicts import (
    correction_verdicts,
    scratch_verdicts,
    searched_part,
    searched_verdicts,
    verdicts,
)
from search.report.winner_files import Provenance, write_winner_facts
from search.results.card_parts import Origin, shown_name
from search.results.cards import write_card
from search.results.html import render_page
from search.results.ledger import Ledger
from search.results.plots import LearningCurve, LearningCurves
from search.results.results import Asked, Results, TeacherResult, TrainingResult
from search.results.results_file import read_results, write_results
from search.statistics.rank_correlation import rank_correlations
from search.statistics.rank_correlation import rows as correlation_rows
from search.statistics.rank_correlation import warnings as correlation_warnings
from search.study.queue import TrialQueue
from search.study.trials_table import trials_table, write_trials
from workspace.layout import Workspace


@dataclass(frozen=True)
class Outcome:
    """Results of the search for one student, and their place."""

    workspace: Workspace
    """Where its files are."""
    results: Results
    """The content of results.json."""

    @property
    def winner(self) -> Architecture:
        """The best student's shape."""
        return self.results.winners[0].architecture

    @property
    def winner_folders(self) -> list[Path]:
        """Folders of all winners, the best first."""
        return self.workspace.winner_folders(len(self.results.winners))


def finished_outcome(
    workspace: Workspace, config: SearchConfig, *, queue: TrialQueue
) -> Outcome | None:
    """The outcome on disk, if it is that of this study and nothing more is asked for.

    Raises:
        SearchError: Where a newer version of Espalier wrote it.
    """
    results = read_results(workspace.results)
    if results is None:
        return None
    enough = queue.finished() >= config.trials or results.exhausted
    same = covers(results.asked, _asked(config, queue))
    if enough and same and (workspace.best / "config.json").exists():
        return Outcome(workspace, results)
    return None


def covers(known: Asked, asked: Asked) -> bool:
    """Whether an outcome holds what is asked for, or more of it."""
    if known.seeds is None or asked.seeds is None:
        return False
    evidence = (EVIDENCE_NONE, EVIDENCE_SHORT, EVIDENCE_FULL)
    more = known.winners >= asked.winners and known.seeds >= asked.seeds
    stronger = evidence.index(known.evidence) >= evidence.index(asked.evidence)
    counted = replace(asked, winners=known.winners, seeds=known.seeds, evidence=known.evidence)
    return more and stronger and known == counted


def _asked(config: SearchConfig, queue: TrialQueue) -> Asked:
    """The study that the configuration asks for, with the trials that it has now."""
    return Asked(
        fingerprint=queue.study.user_attrs[FINGERPRINT],
        study=queue.study.study_name,
        finished_trials=queue.finished(),
        winners=config.winners,
        evidence=config.evidence,
        seeds=config.full_seeds,
        full_tokens=config.full_tokens,
        scratch_tokens=config.scratch_tokens,
        ties=config.ties,
        finalist_seeds=config.finalist_seeds,
        tasks=", ".join(config.task_names) or "None",
        task_questions=config.task_questions,
    )


def write_outcome(search: FinishedSearch, outputs: Workspace) -> Outcome:
    """Write every file of the outcome; results.json last, since it marks the study finished."""
    results = _results(search, outputs)
    write_winner_facts(results.winners, outputs, provenance=Provenance.of(search))
    _write_cards(results, search, outputs=outputs)
    write_trials(search.record, outputs.trials_table)
    page = render_page(results, trials_table(search.record), curves=_curves(search))
    write_file_atomically(outputs.report, page)
    write_results(results, outputs.results)
    return Outcome(outputs, results)


def _results(search: FinishedSearch, outputs: Workspace) -> Results:
    """Everything that results.json says; what is not known yet is measured."""
    inputs, record, plan = search.inputs, search.record, search.plan
    config, students, assets = inputs.config, search.students, plan.assets
    comparison = Comparison.of(search.selection, students, plan=plan)
    searched = searched_part(record, config.trials)
    correlations = rank_correlations(candidate_scores(search), record.policy.stopping.rungs.tokens)
    warnings = correlation_warnings(correlations)
    cost = CostReport.of(search)
    correction = correction_result(students.best, plan)
    costs = serving_costs(search)
    tasks = run_tasks(inputs, Corpus(assets.corpus), outputs=outputs)
    layered = per_layer_result(search)
    return Results(
        asked=_asked(config, record.queue),
        exhausted=record.exhausted,
        member=search.member.name,
        teacher=TeacherResult(
            name=shown_name(config.teacher),
            architecture=inputs.space.teacher,
            parameters=inputs.teacher.parameters,
            test=teacher_scores(assets),
        ),
        budget=str(search.member.budget),
        winners=[winner.result() for winner in students.winners],
        baselines={name: student.result() for name, student in students.baselines.items()},
        evidence=config.evidence,
        differences=comparison.full,
        short=comparison.short_runs(),
        searched=searched,
        sorted_teacher=assets.sorted_teacher.name,
        correction=correction,
        ledger=cost.ledger.costs(),
        winner_ledgers=[ledger.costs() for ledger in cost.winners],
        training_share=cost.training_share,
        scratch=cost.scratch,
        chances=chances(record),
        fidelity=correlations,
        fidelity_rows=correlation_rows(correlations),
        fidelity_warnings=warnings,
        front=trade_offs(record),
        costs=costs,
        engines=engines_of(Checkpoint(outputs.best).config),
        tasks=tasks,
        training=_training(search),
        verdicts=[
            *verdicts(comparison),
            *per_layer_verdicts(layered, costs, students),
            *searched_verdicts(searched),
            *correction_verdicts(correction),
            *scratch_verdicts(cost.scratch),
            *warnings,
        ],
        per_layer=layered,
        estimates=_estimates(search, cost.ledger),
    )


def _estimates(search: FinishedSearch, ledger: Ledger) -> Estimates:
    """What was planned of its runs beside what was measured."""
    inputs, record, config = search.inputs, search.record, search.inputs.config
    outline, on_gpu = inputs.outline(search.plan.assets.training), inputs.device.type == "cuda"
    workers, full_workers = config.resources.workers, config.workers_of_full_runs
    trial, full = outline.memory_of(workers), outline.memory_of(full_workers)
    runs = [
        MeasuredRun(
            trial.peak(shape, record.space.parameter_count(shape), on_gpu=on_gpu), done.peak_bytes
        )
        for one in record.trials(*FINISHED_STATES)
        if (done := progress_of(one)) and (shape := architecture_of(one))
    ]
    runs += [
        MeasuredRun(
            full.peak(student.architecture, student.parameters, on_gpu=on_gpu), run.peak_bytes
        )
        for student in search.students.distinct
        for run in student.runs
    ]
    speed = record.study.user_attrs.get(PLANNED_SPEED)
    return estimates(
        runs,
        ledger,
        trial_speed=None if speed is None else speed * workers,
        full_speed=None if speed is None else speed * full_workers,
    )


def _training(search: FinishedSearch) -> TrainingResult:
    training = search.plan.assets.training
    block, precision = search.inputs.block, search.inputs.precision
    return TrainingResult(training.batch, block, precision, training.loss)


def _write_cards(results: Results, search: FinishedSearch, *, outputs: Workspace) -> None:
    """Write a model card beside the weights of every winner."""
    config, teacher = search.inputs.config, search.inputs.teacher
    origin = Origin.of({config.teacher: teacher.directory}, config.corpus)
    for rank, directory in enumerate(outputs.winner_folders(len(results.winners))):
        write_card(directory, results, origin=origin, rank=rank)


def _curves(search: FinishedSearch) -> LearningCurves:
    """Of all trials that came as far as an evaluation, and of all full runs."""
    trials = [
        LearningCurve(
            f"trial {trial.number} {architecture_of(trial)}",
            done.curve,
            stopped=trial.state.name != "COMPLETE",
        )
        for trial in search.record.trials(*FINISHED_STATES)
        if (done := progress_of(trial))
    ]
    runs = {str(run.run): run for student in search.students.distinct for run in student.runs}
    return LearningCurves(trials, [LearningCurve(name, run.curve) for name, run in runs.items()])
