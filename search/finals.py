"""Full distillation of the best candidates and of what they are held against, at equal tokens.

Every run is a directory of the workspace with its own checkpoint; a finished one is never run
again, an interrupted one goes on.
"""

import json
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

from distill.checkpoint import write_file_atomically
from distill.errors import TrainingDiverged
from distill.evaluation import Evaluation
from pruning import Architecture
from search.candidate import Assets, Job
from search.cluster import LOST_NODE_SECONDS
from search.errors import SearchStopped
from search.files import Files
from search.ray_errors import DIED, note, noted, of_memory
from search.room import Room, too_large
from search.worker import FullTrainer

RETRIES = 2
OF = "@"
"""Between the name of a member and the fingerprint of its student."""


@dataclass(frozen=True)
class FullRun:
    """One student to distil in full."""

    role: str
    """Readable: candidate, uniform shrink, random architecture, random initialisation."""
    architecture: Architecture
    shuffle: int = 0
    from_scratch: bool = False
    source: str = ""
    """The larger student that this one is cut from, MEMBER@FINGERPRINT; empty: the teacher."""
    tokens: int | None = None
    """Where it is not the plan's."""

    def directory_name(self, planned: int) -> str:
        shape = str(self.architecture).replace(" ", "-").replace("/", "-")
        kind = "scratch" if self.from_scratch else f"from-{self.source}" if self.source else "cut"
        return f"{shape}-{kind}-seed{self.shuffle}-{self.tokens or planned}"

    def __str__(self) -> str:
        seed = f" seed {self.shuffle}" if self.shuffle else ""
        cut = f" cut from {self.source.partition(OF)[0]}" if self.source else ""
        return f"{self.role}{seed} {self.architecture}{cut}"


@dataclass(frozen=True)
class FullResult:
    """A finished full run."""

    run: FullRun
    directory: Path
    selection: Evaluation
    curve: list[dict[str, float]]
    tokens: int
    seconds: float
    resumed_tokens: int
    from_trial: bool = False
    """Whether it is what a trial wrote, which was the same run; its cost is the trial's."""
    answers: list[float] | None = None
    """What the student answered on the first selection sequence when it was measured; None of runs
    that did not keep it."""

    @property
    def model(self) -> Path:
        return self.directory / "model"


@dataclass(frozen=True)
class FullPlan:
    """How full runs are run."""

    assets: Assets
    tokens: int
    directory: Path
    checkpoints: Path
    checkpoint_seconds: float
    reports: int
    dtype: str
    """Type in which students are written, as torch names it."""
    room: Room
    cpus: int
    gpus: float
    files: Files | None = None
    """How workers on other nodes reach the workspace."""
    errors: Path | None = None
    """Where Ray's own words about failures are kept."""
    sources: Mapping[str, Path] = field(default_factory=dict)
    """Sorted students that smaller ones may be cut from, by name."""

    def assets_of(self, run: FullRun) -> Assets:
        if not run.source:
            return self.assets
        return replace(self.assets, sorted_teacher=self.sources[run.source])


def uncorrected(plan: FullPlan, assets: Assets | None = None) -> FullPlan:
    """The same for runs from the teacher as the user gave it, which are kept apart."""
    return replace(
        plan,
        assets=assets or plan.assets,
        directory=plan.directory / "uncorrected",
        checkpoints=plan.checkpoints / "uncorrected",
    )


def load_result(run: FullRun, plan: FullPlan) -> FullResult | None:
    """A finished run from the workspace, or None; one that cannot be read is none."""
    directory = plan.directory / run.directory_name(plan.tokens)
    try:
        summary = json.loads((directory / "done.json").read_text())
    except (OSError, ValueError):
        return None
    selection = Evaluation.from_dict(summary.pop("selection"))
    return FullResult(run=run, directory=directory, selection=selection, **summary)


def delete_taken_over(shapes: Iterable[Architecture], plan: FullPlan) -> None:
    """Delete what trials of these architectures wrote, which no full run will be."""
    for shape in shapes:
        result = load_result(FullRun("", shape), plan)
        if result is not None and result.from_trial:
            shutil.rmtree(result.directory, ignore_errors=True)


def load_failure(run: FullRun, plan: FullPlan) -> str | None:
    """Why a run cannot be finished, if it is known."""
    try:
        return _failure_file(run, plan).read_text()
    except OSError:
        return None


def run_in_full(
    runs: Sequence[FullRun], plan: FullPlan, say: Callable[[str], None]
) -> dict[FullRun, FullResult]:
    """Distil what is not finished yet; Ray must be up.

    A run whose loss diverges is left out, since it would again; one that fails otherwise is taken
    up again, and SearchStopped is raised when it keeps failing. One that wants for memory is taken
    up again with fewer beside it, and stops the search where none was. Two entries of `runs` that
    mean the same training are trained once.
    """
    waiting = deque((run, 0) for run in missing(runs, plan))
    total, done = len(waiting), 0
    started = time.monotonic()
    running: dict[Any, tuple[FullRun, int, Any]] = {}
    while waiting or running:
        while waiting and len(running) < plan.room.limit:
            run, attempt = waiting.popleft()
            actor = _actor(run, plan)
            output = str(plan.directory / run.directory_name(plan.tokens))
            running[actor.train.remote(output)] = (run, attempt, actor)
        ready, _ = ray.wait(list(running), num_returns=1)
        run, attempt, actor = running.pop(ready[0])
        problem = _outcome(ready[0], f"full run {run}", plan.errors)
        ray.kill(actor)
        problem = problem and plan.room.explained(problem)
        if problem and of_memory(problem):
            said = plan.room.lowered(problem, len(running))
            if said is None:
                stop = too_large(f"the full run {run}", problem, plan.assets.training)
                raise SearchStopped(stop)
            say(f"full run {run}: {said}")
            waiting.appendleft((run, attempt))
            continue
        if problem is not None and not problem.startswith(TrainingDiverged.__name__):
            if attempt >= RETRIES:
                raise SearchStopped(
                    f"the full run {run} failed: {problem}; mend the cause and start the same "
                    "command again"
                )
            say(f"full run {run} failed ({problem}); taking it up again")
            if plan.files is not None and problem.startswith(DIED):
                time.sleep(LOST_NODE_SECONDS)
            waiting.append((run, attempt + 1))
            continue
        done += 1
        shutil.rmtree(_checkpoint(run, plan), ignore_errors=True)
        if problem is not None:
            plan.directory.mkdir(parents=True, exist_ok=True)
            write_file_atomically(_failure_file(run, plan), problem)
        result = load_result(run, plan)
        outcome = f"kl {result.selection.means()['kl']:.4f}" if result else f"left out: {problem}"
        left = (time.monotonic() - started) / done * (total - done)
        say(f"{_kind(run, plan)} run {done} of {total}: {run}: {outcome}; about {left:.0f} s left")
    finished = {run: load_result(run, plan) for run in runs}
    return {run: result for run, result in finished.items() if result is not None}


def missing(runs: Sequence[FullRun], plan: FullPlan) -> list[FullRun]:
    """The runs that are neither finished nor known to fail, each training once."""
    by_name = {run.directory_name(plan.tokens): run for run in reversed(runs)}
    return [
        run
        for run in reversed(by_name.values())
        if load_result(run, plan) is None and load_failure(run, plan) is None
    ]


def _failure_file(run: FullRun, plan: FullPlan) -> Path:
    return plan.directory / f"{run.directory_name(plan.tokens)}.failed"


def _actor(run: FullRun, plan: FullPlan) -> Any:
    label = f"{_kind(run, plan)} {run}"
    job = Job(
        name=label,
        architecture=run.architecture,
        tokens=run.tokens or plan.tokens,
        checkpoint=_checkpoint(run, plan),
        checkpoint_seconds=plan.checkpoint_seconds,
        reports=_reports(run, plan),
        shuffle=run.shuffle,
        from_scratch=run.from_scratch,
    )
    options = FullTrainer.options(  # type: ignore[attr-defined]
        num_cpus=plan.cpus, num_gpus=plan.gpus, memory=plan.room.slots.memory
    )
    return options.remote(label, plan.assets_of(run), job, plan.dtype, plan.cpus, plan.files)


def _reports(run: FullRun, plan: FullPlan) -> int:
    """Evaluations, as often as in a full run; at the end only of a shorter one."""
    tokens = run.tokens or plan.tokens
    return plan.reports * (tokens // plan.tokens) if tokens >= plan.tokens else 1


def _kind(run: FullRun, plan: FullPlan) -> str:
    return "short" if run.tokens is not None and run.tokens < plan.tokens else "full"


def _checkpoint(run: FullRun, plan: FullPlan) -> Path:
    return plan.checkpoints / f"full-{run.directory_name(plan.tokens)}"


def _outcome(reference: Any, what: str, errors: Path | None) -> str | None:
    """Why a run failed, in one line, or None."""
    try:
        failed: tuple[str, str] | None = ray.get(reference)
    except RayError as problem:
        return noted(errors, what, problem)
    if failed is None:
        return None
    reason, details = failed
    return reason + note(errors, what, details)
