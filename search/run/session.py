"""Session: one start of a study, between its opening and its members."""

import contextlib
import functools
import itertools
import logging
import math
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from optuna.trial import TrialState

from common.errors import require
from common.files import sweep
from common.progress import counted
from distill.evaluation import ContextLimit, Questions, write_next_line_questions
from search.cluster.cluster import ray_cluster
from search.cluster.resources import Resources
from search.cluster.room import Room
from search.config.objectives import Objectives, task_of
from search.dashboards.audience import audience_of
from search.dashboards.pages import ray_page
from search.database.attributes import PREPARATION_SECONDS, TEACHER
from search.database.trial_facts import origin_of
from search.inputs.members import budget_note
from search.overview import BLOCKS, PREPARATION
from search.report.outcome import Outcome, finished_outcome
from search.results.cards import shown_name
from search.run.context import PreparedStudy, StudyContext
from search.run.outset import study_clock
from search.run.per_layer_stage import with_library
from search.study.queue import TrialQueue
from search.study.stopping import load_pruner
from search.workers.candidate import TaskQuestions
from search.workers.file_server import serve_workspace
from search.workers.slot import Slot
from search.workers.slots import SHARED_SECONDS, SlotPool
from search.workers.spreading import SlotCompute, worth_spreading
from workspace.models import notes_of, precision_note
from workspace.pieces import Compute, compute_here

LOGGER = logging.getLogger(__name__)


def take_up(context: StudyContext) -> list[TrialQueue]:
    """The trials of each member, the largest first; those that dead drivers left wait again."""
    for line in _opening_lines(context):
        LOGGER.info(line)
    if context.config.halving.own_pruner:
        context.study.pruner = load_pruner(context.config.halving.stopper)
    _note_teacher(context)
    queues = [context.queue(member) for member in context.inputs.members]
    reclaimed = sum([queue.reclaim() for queue in queues])
    if reclaimed:
        LOGGER.info(f"took back {reclaimed} interrupted trials; they go on from their checkpoints")
    return queues


def finished_outcomes(context: StudyContext, queues: Sequence[TrialQueue]) -> list[Outcome] | None:
    """The outcomes of all members where nothing more is to be done, else None."""
    outcomes = []
    for member, queue in zip(context.inputs.members, queues, strict=True):
        outcome = finished_outcome(context.outputs(member), context.config, queue=queue)
        if outcome is None:
            return None
        outcomes.append(outcome)
    LOGGER.info("the study is finished; nothing is trained again")
    return outcomes


@contextlib.contextmanager
def prepared(context: StudyContext, queues: Sequence[TrialQueue]) -> Iterator[PreparedStudy]:
    """Bring up Ray, which is there inside, and compute what runs read."""
    config, workspace = context.config, context.workspace
    sweep(workspace.root)
    delete_finished_checkpoints(context.checkpoints, queues)
    clock = study_clock(context, queues)
    context.preparation().check()
    clock.begin(PREPARATION)
    with contextlib.ExitStack() as stack:
        kinds = [context.resources, context.full_resources]
        all_resources = max(kinds, key=lambda each: each.all_cpus)
        audience = stack.enter_context(
            audience_of(
                context.coordination,
                config,
                workspace,
                key=context.key,
                teacher=context.inputs.teacher.parameters,
            )
        )
        page, address = ray_page(config), config.address
        stack.enter_context(ray_cluster(config.study, all_resources, page=page, address=address))
        access = None
        if config.address is not None:
            teacher = context.inputs.model.source.directory.absolute()
            access = stack.enter_context(serve_workspace(workspace.root, (teacher,)))
        kept_seconds = math.inf if config.address is None else SHARED_SECONDS
        slots, full_slots, single = _pools(context, kept_seconds)
        compute: Compute = functools.partial(compute_here, words=clock.words)
        if worth_spreading(single.room.resources):
            compute = SlotCompute(single, access, workspace.ray_errors, clock.words)
        preparation = context.preparation(compute)
        began = time.monotonic()
        assets = preparation.run()
        beside = compute.seconds_beside if isinstance(compute, SlotCompute) else 0.0
        _note_preparation(context, time.monotonic() - began + beside)
        study = PreparedStudy(
            context=context,
            preparation=preparation,
            assets=assets,
            room=slots.room,
            slots=slots,
            full_slots=full_slots,
            single_slots=single,
            questions=_questions(context),
            access=access,
            audience=audience,
            clock=clock,
        )
        plan = context.inputs.per_layer
        if plan is not None:
            clock.begin(BLOCKS)
            study = with_library(study, plan)
        yield study


def _pools(context: StudyContext, kept_seconds: float) -> tuple[SlotPool, SlotPool, SlotPool]:
    """Slots of trials and of full runs, and those of one process for all other tasks: the same,
    where each run is one process."""

    numbers = itertools.count(1)

    def pool(resources: Resources) -> SlotPool:
        return SlotPool(Room(resources), Slot, kept_seconds=kept_seconds, numbers=numbers)

    given, full = context.resources, context.full_resources
    single = replace(given, workers=1, concurrent=given.concurrent * given.workers)
    pools = {given.workers: pool(given)}
    pools |= {full.workers: pool(full)} if full.workers != given.workers else {}
    pools |= {1: pool(single)} if 1 not in pools else {}
    for one in pools.values():
        one.beside = [other for other in pools.values() if other is not one]
    return pools[given.workers], pools[full.workers], pools[1]


def delete_finished_checkpoints(directory: Path, queues: Sequence[TrialQueue]) -> None:
    """Delete the checkpoints of trials that will not go on."""
    states = (TrialState.RUNNING, TrialState.WAITING)
    unfinished = {origin_of(trial) for queue in queues for trial in queue.trials(*states)}
    for path in directory.glob("trial-*"):
        if int(path.name.removeprefix("trial-")) not in unfinished:
            shutil.rmtree(path, ignore_errors=True)


def _note_teacher(context: StudyContext) -> None:
    """Keep what a page of the study says of its teacher, where that is not known yet."""
    inputs = context.inputs
    facts = {
        "name": shown_name(context.config.teacher),
        "sizes": inputs.space.teacher.to_dict(),
        "parameters": inputs.teacher.parameters,
    }
    if context.study.user_attrs.get(TEACHER) != facts:
        context.study.set_user_attr(TEACHER, facts)


def _note_preparation(context: StudyContext, seconds: float) -> None:
    """Keep what all starts of the study spent on preparation, all slots together, for its
    ledger."""
    before = context.study.user_attrs.get(PREPARATION_SECONDS, 0.0)
    context.study.set_user_attr(PREPARATION_SECONDS, before + seconds)


def _questions(context: StudyContext) -> TaskQuestions | None:
    """Questions for tasks that are objectives, from documents of the selection split."""
    config, inputs = context.config, context.inputs
    names = Objectives.of(config.objectives).tasks
    if not names:
        return None
    path, bos = context.workspace.root / "selection-questions.jsonl", config.corpus_from.bos
    questions = Questions(
        inputs.tasks.absolute, inputs.block, data=path, bos=bos, limit=config.task_questions
    )
    if questions.tasks.uses_data:
        written = write_next_line_questions(
            context.corpus.texts("selection"),
            path,
            count=config.task_questions,
            seed=config.seed,
            limit=ContextLimit(inputs.teacher.tokenizer, inputs.block, bos),
        )
        require(
            written > 0,
            "the documents of the selection split are too short to build task questions from; "
            "raise --splits.selection_tokens, or leave tasks out of --objectives",
        )
    return TaskQuestions(tuple((name, *task_of(name)) for name in names), questions)


def _opening_lines(context: StudyContext) -> list[str]:
    """What is printed of teacher, space, budget and training before anything starts."""
    inputs, resources = context.inputs, context.resources
    return [
        f"teacher: {inputs.space.teacher}, {inputs.teacher.parameters:,} parameters",
        precision_note(inputs.teacher_dtype, inputs.device),
        *notes_of(inputs.teacher),
        *inputs.space.describe(),
        *(inputs.per_layer.describe() if inputs.per_layer else ()),
        *budget_note(context.config),
        *(member.line() for member in inputs.members),
        f"training: {counted(context.training.batch, 'sequence')} of {inputs.block} tokens a step, "
        f"{inputs.precision}; {resources.concurrent} at once on {inputs.device}, "
        f"{counted(resources.cpus, 'thread')} each",
        *inputs.warnings(context.training),
    ]
