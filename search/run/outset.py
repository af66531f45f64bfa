"""Outset of a study: its teacher read for a moment, and what the whole will take, said."""

import logging
import math
from collections.abc import Sequence

import torch

from common.progress import duration
from search.database.attributes import PLANNED_SPEED
from search.overview import PREPARATION, StudyClock, TeacherReading, teacher_lines
from search.plan import (
    NOT_TIMED,
    RUN_SECONDS,
    Done,
    Speed,
    planned_stages,
    speed_of,
    stage_lines,
)
from search.run.context import StudyContext
from search.space.timing import threads
from search.study.queue import TrialQueue

LOGGER = logging.getLogger(__name__)


def study_clock(context: StudyContext, queues: Sequence[TrialQueue]) -> StudyClock:
    """Say what the study takes, stage by stage; gives the clock that counts from there on.

    A teacher that is in memory reads some text for it, which shows whether the two belong together.
    """
    outline = context.inputs.outline(context.training)
    speed = _speed(context, _checked(context))
    done = Done(
        prepared=context.workspace.prepared,
        trials={queue.member: queue.finished() for queue in queues},
        full=context.finished_full_runs(),
    )
    stages = planned_stages(
        outline, context.resources, context.full_resources, speed=speed, done=done
    )
    tokens = int(context.corpus.facts["train_tokens"])
    for line in stage_lines(stages, basis=speed.basis, outline=outline, train_tokens=tokens):
        LOGGER.info(line)
    budget, before = outline.config.time_seconds, stages[0].seconds
    if budget is not None and before is not None and before > budget:
        LOGGER.info(
            f"warning: the preparation alone takes about {duration(before)}, longer than "
            f"--time_budget {outline.config.time_budget}; it is done all the same, and kept"
        )
    deadline = context.deadline(context.inputs.members[-1])
    planned = {stage.name: stage.seconds for stage in stages}
    partly = [PREPARATION] if context.workspace.partly_prepared else []
    return StudyClock(planned, math.inf if deadline is None else deadline, partly_done=partly)


def _checked(context: StudyContext) -> TeacherReading | None:
    """How the teacher reads the text; None where it is not loaded, since a start before did it."""
    inputs = context.inputs
    if not inputs.model.loaded:
        return None
    with threads(context.resources.cpus):  # as a trial computes, also on a machine that is busy
        reading = TeacherReading.of(inputs.model(), context.corpus)
    teacher = inputs.teacher
    for line in teacher_lines(
        reading,
        vocabulary=teacher.config.vocab_size,
        tokenizer=teacher.tokenizer,
        corpus=context.corpus,
    ):
        LOGGER.info(line)
    return reading


def _speed(context: StudyContext, reading: TeacherReading | None) -> Speed:
    """As it was measured by an earlier start, or by the reading."""
    measured = context.study.user_attrs.get(PLANNED_SPEED)
    if measured is not None:
        each = 1 / measured
        return Speed(each, each, each, RUN_SECONDS, "by the speed that an earlier start measured")
    if reading is None:
        return NOT_TIMED
    whole = torch.get_num_threads()
    return speed_of(reading.flops_per_second, context.resources, threads=whole)
