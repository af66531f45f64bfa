"""Estimates of a study's stages, said before any of them begins: those of `--plan`, with the speed
that the teacher was seen to read at."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from common.progress import counted, duration
from search.cluster.resources import Resources
from search.finals.outlook import LastRuns, shown_evidence
from search.inputs.outline import StudyOutline
from search.needs.work import Work, total
from search.overview import BLOCKS, FULL_RUNS, PREPARATION, REPORT, SCORES, TRIALS, stage_of
from search.plan.speed import NOT_KNOWN, Speed
from search.plan.study_work import StudyWork

START_SECONDS = 5.0
"""Of Ray and its processes."""
RUN_SECONDS = 0.5
"""Of a run besides its steps: to cut the student, and to write checkpoints."""
REPORT_SECONDS = 5.0
"""Of the report besides evaluations: figures, cards and files."""
OF_STAGE = {"trials": TRIALS, "full runs and evidence": FULL_RUNS, "scores before training": SCORES}
OF_STAGE |= {"blocks of layers and their scores": BLOCKS}
"""Stage by the name of its work in a plan; all other work is preparation."""


@dataclass(frozen=True)
class StagePlan:
    """What a stage takes."""

    name: str
    """As `stage_of` has it."""
    what: str
    """Its runs and tokens, in words."""
    seconds: float | None
    """How long it takes, about; None where that is not known."""


@dataclass(frozen=True)
class Done:
    """What earlier starts of the study did."""

    prepared: bool = False
    """Whether importance and targets are there."""
    trials: Mapping[str | None, int] = field(default_factory=dict)
    """Finished trials by the name of the member."""
    full: int = 0
    """Finished full runs, of a family an even share of those of all members."""


def speed_of(flops: float | None, resources: Resources, *, threads: int) -> Speed:
    """The speed of a study whose teacher read so many FLOP/s with the threads of a run.

    A run is taken to compute as fast, or by its share of a GPU, and the preparation as fast per
    thread, of which the machine has `threads`.
    """
    if flops is None:
        return NOT_KNOWN
    share = min(1.0, resources.gpus or 1.0)
    machine = 1.0 if resources.gpus else max(1.0, threads / resources.cpus)
    basis = "by how fast the teacher reads; said again when the first steps are timed"
    each = 1 / (flops * share)
    alone = 1 / (flops * machine)
    return Speed(each, alone, alone, RUN_SECONDS, basis)


def planned_stages(
    outline: StudyOutline,
    resources: Resources,
    full_resources: Resources,
    *,
    speed: Speed,
    done: Done,
) -> list[StagePlan]:
    """The stages of a start, in order."""
    work = StudyWork(outline, resources, full_resources, speed)
    parts = work.parts()
    before = [part for part in parts if part.what not in OF_STAGE]
    stages = [_preparation(before, prepared=done.prepared)]
    stages += [_of_work(BLOCKS, part) for part in parts if OF_STAGE.get(part.what) == BLOCKS]
    for number, member in enumerate(outline.members):
        one = replace(work, outline=replace(outline, members=(member,)))
        stages += _of_member(one, member.name, last=work.last[number], done=done)
    return stages


def _of_member(
    work: StudyWork, name: str | None, *, last: LastRuns, done: Done
) -> Iterator[StagePlan]:
    """The stages of one student; `work` is that of a study which looks for it alone."""
    for part in work.parts():
        if OF_STAGE.get(part.what) == SCORES:
            yield _of_work(stage_of(SCORES, name), part)
    yield _trials(work, stage_of(TRIALS, name), finished=done.trials.get(name, 0))
    runs = next(part for part in work.parts() if OF_STAGE.get(part.what) == FULL_RUNS)
    left = max(0.0, 1 - done.full / max(1, runs.runs))
    found = f", {done.full} finished" if done.full else ""
    yield StagePlan(
        stage_of(FULL_RUNS, name),
        f"at most {last.describe()}{found}; evidence {shown_evidence(last.stage)}",
        None if runs.seconds is None else runs.seconds * left,
    )
    config = work.outline.config
    tokens = config.splits.test_tokens
    tasks = ", and lm-eval tasks, whose time is not known" if config.tasks else ""
    known = work.speed.training is not None
    yield StagePlan(
        stage_of(REPORT, name),
        f"at most {last.count} students on {tokens:,} tokens{tasks}",
        work.evaluation_seconds(last.count * tokens) + REPORT_SECONDS if known else None,
    )


def stage_lines(
    stages: Sequence[StagePlan], *, basis: str, outline: StudyOutline, train_tokens: int
) -> Iterator[str]:
    """What the whole takes, before any of it begins."""
    known = [stage.seconds for stage in stages if stage.seconds is not None]
    whole = f", about {duration(sum(known))} in all" if len(known) == len(stages) else ""
    yield f"plan: {len(stages)} stages{whole}" + (f" ({basis})" if whole else ", times not known")
    for number, stage in enumerate(stages, 1):
        lasting = "" if stage.seconds is None else f"; about {duration(stage.seconds)}"
        yield f"plan: {number} {stage.name}: {stage.what}{lasting}"
    config = outline.config
    passes = [
        f"a {name} is {shown_passes(tokens / train_tokens)}"
        for name, tokens in (("trial", config.short_tokens), ("full run", config.full_tokens))
    ]
    yield f"plan: {train_tokens:,} training tokens are packed: {' over them, '.join(passes)}"


def shown_passes(passes: float) -> str:
    """Epochs in words."""
    shown = f"{passes:.1f}" if passes >= 0.1 else f"{passes:.2g}"
    return f"{shown} pass{'' if shown == '1.0' else 'es'}"


def _preparation(parts: Sequence[Work], *, prepared: bool) -> StagePlan:
    if prepared:
        return StagePlan(PREPARATION, "what an earlier start left to compute", START_SECONDS)
    what = ", ".join(f"{part.what} {part.tokens:,.0f} tokens" for part in parts)
    seconds = total(parts).seconds
    return StagePlan(PREPARATION, what, None if seconds is None else seconds + START_SECONDS)


def _of_work(name: str, part: Work) -> StagePlan:
    return StagePlan(name, f"{part.runs:,} runs, {part.tokens:,.0f} tokens", part.seconds)


def _trials(work: StudyWork, name: str, *, finished: int) -> StagePlan:
    few, every = work.fewest_trials, work.trials
    left = max(0, every.runs - finished)
    share = left / max(1, every.runs)
    least, most = (part.tokens * share for part in (few, every))
    amount = f"{most:,.0f}" if round(least) == round(most) else f"{least:,.0f} to {most:,.0f}"
    found = f", {finished} of {every.runs} finished" if finished else ""
    why = "" if round(least) == round(most) else ", by how many stop early"
    what = f"{counted(left, 'trial')}{found}, {amount} tokens in all{why}"
    times = [part.seconds for part in (few, every) if part.seconds is not None]
    return StagePlan(name, what, share * sum(times) / 2 if len(times) == 2 else None)
