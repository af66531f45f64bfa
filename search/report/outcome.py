"""Outcome of a search: the files of a finished study, written, and read again at a restart."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from distill import Corpus
from pruning import Architecture, Checkpoint, engines_of
from search.config.names import EVIDENCE_FULL, EVIDENCE_NONE, EVIDENCE_SHORT
from search.config.study import SearchConfig
from search.database.attributes import FINGERPRINT, PLANNED_SPEED
from search.database.trial_facts import FINISHED_STATES, architecture_of, progress_of
from search.finals.candidates import chances
from search.finals.comparison import Comparison
from search.finals.estimates import MeasuredRun, estimates
from search.finals.measure import correction_result, teacher_losses
from search.needs.comparison import Estimates
from search.report.cost_report import CostReport
from search.report.facts.language import Language
from search.report.facts.run_facts import objective_results, run_facts
from search.report.facts.samples import written_samples
from search.report.facts.students import StudentEntries, folders_of, teacher_scores
from search.report.facts.untrained import kl_before_training
from search.report.finished_search import FinishedSearch
from search.report.page import write_page
from search.report.per_layer import per_layer_result, per_layer_verdicts
from search.report.scored_trials import candidate_scores, trade_offs
from search.report.serving_costs import other_costs, serving_costs
from search.report.task_results import run_tasks
from search.report.verdicts import (
    Found,
    correction_verdicts,
    cut_verdicts,
    fidelity_verdicts,
    scratch_verdicts,
    searched_part,
    searched_verdicts,
    verdicts,
)
from search.report.winner_files import Provenance, place_baselines, write_student_facts
from search.results.cards import Origin, shown_name, write_card
from search.results.ledger import Ledger
from search.results.results import (
    Asked,
    Results,
    StudentResult,
    TeacherResult,
    TrainingResult,
)
from search.results.results_file import read_results, write_results
from search.statistics.rank_correlation import rank_correlations
from search.statistics.rank_correlation import rows as correlation_rows
from search.statistics.rank_correlation import warnings as correlation_warnings
from search.study.queue import TrialQueue
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
    students = [*results.winners, *results.baselines.values()]
    folders = {outputs.root / one.folder: one for one in students if one.folder}
    write_student_facts(folders, provenance=Provenance.of(search))
    _write_cards(results, search, folders=folders)
    write_page(search, results, outputs)
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
    corpus = Corpus(assets.corpus)
    language = Language.of(corpus, inputs.teacher.tokenizer)
    found = _found(search, comparison, language)
    entries = _entries(search, found, language=language, outputs=outputs)
    tasks = run_tasks(inputs, corpus, outputs=outputs)
    layered = per_layer_result(search)
    return Results(
        asked=_asked(config, record.queue),
        exhausted=record.exhausted,
        member=search.member.name,
        teacher=found.teacher,
        budget=str(search.member.budget),
        winners=entries.winners(students),
        baselines=entries.baselines(students),
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
        costs=found.costs,
        other_costs=found.other_costs,
        engines=engines_of(Checkpoint(outputs.best).config),
        tasks=tasks,
        training=_training(search),
        verdicts=verdicts(
            found,
            [
                *per_layer_verdicts(layered, found.costs, students),
                *cut_verdicts(search.left_out),
                *searched_verdicts(searched),
                *correction_verdicts(correction),
                *scratch_verdicts(cost.scratch),
                *fidelity_verdicts(warnings),
            ],
        ),
        per_layer=layered,
        estimates=_estimates(search, cost.ledger),
        objectives=objective_results(record.objectives),
        test_text=language.text,
        completions=written_samples(inputs, corpus, students, outputs=outputs),
        run=run_facts(inputs.device),
    )


def _found(search: FinishedSearch, comparison: Comparison, language: Language) -> Found:
    """What verdicts are made of."""
    inputs = search.inputs
    teacher = TeacherResult(
        name=shown_name(inputs.config.teacher),
        architecture=inputs.space.teacher,
        parameters=inputs.teacher.parameters,
        test=teacher_scores(teacher_losses(search.plan.assets), language),
    )
    return Found(
        comparison,
        teacher,
        serving_costs(search),
        other_costs(search),
        search.record.objectives.names,
        search.record.exhausted,
    )


def _entries(
    search: FinishedSearch, found: Found, *, language: Language, outputs: Workspace
) -> StudentEntries:
    """What entries of students have besides; baselines that are better are written for it."""
    students = search.students
    baselines = place_baselines(found.worth_keeping, students, search=search, outputs=outputs)
    winners = outputs.winner_folders(len(students.winners))
    folders = folders_of(students, winners, baselines=baselines, root=outputs.root)
    return StudentEntries(language, kl_before_training(search), folders)


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


def _write_cards(
    results: Results, search: FinishedSearch, *, folders: Mapping[Path, StudentResult]
) -> None:
    """Write a model card beside the weights of every student that is written."""
    config, teacher = search.inputs.config, search.inputs.teacher
    origin = Origin.of({config.teacher: teacher.directory}, config.corpus)
    for directory, student in folders.items():
        write_card(directory, results, origin=origin, student=student)
