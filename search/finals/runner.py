"""Full runs on slots: as many at once as there is room for, until every run is finished."""

import logging
import math
import shutil
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.exceptions import RayError

from common.errors import SearchStopped, TrainingDiverged
from common.files import write_file_atomically
from common.progress import tell
from search.cluster.ray_errors import DIED, LOST_NODE_SECONDS, WorkerFailure, noted, of_memory
from search.cluster.room import too_large
from search.config.names import CANDIDATE
from search.workers.full_runs import FullPlan, FullResult, FullRun, load_result, missing
from search.workers.slot import WorkerTask
from search.workers.slots import SHARED_SECONDS, SlotPool

LOGGER = logging.getLogger(__name__)
RETRIES = 2
"""How often a run that failed is taken up again."""


def run_in_full(
    runs: Sequence[FullRun], plan: FullPlan, slots: SlotPool
) -> dict[FullRun, FullResult]:
    """Distil what is not finished yet on `slots`; Ray must be up.

    A run whose loss diverges is left out, since it would again; one that fails otherwise is taken
    up again, and SearchStopped is raised when it keeps failing. One that wants for memory is taken
    up again with fewer beside it, and stops the search where none was. Two entries of `runs` that
    mean the same training are trained once.
    """
    return FullRunner(plan, slots).finish(runs)


def results_of(runs: Sequence[FullRun], plan: FullPlan) -> dict[FullRun, FullResult]:
    """Those of the runs that are finished."""
    finished = {run: load_result(run, plan) for run in runs}
    return {run: result for run, result in finished.items() if result is not None}


@dataclass(frozen=True)
class _Attempt:
    """One more try at a run."""

    run: FullRun
    """The student to distil."""
    failures: int = 0
    """How often it failed before."""


class FullRunner:
    """Gives each run to a slot, and takes up again what one leaves.

    Runs that are certain before the others may begin `ahead` of them, where a slot is free.
    """

    def __init__(self, plan: FullPlan, slots: SlotPool, ahead: Sequence[FullRun] = ()):
        self.plan, self.slots = plan, slots
        self.waiting = deque(_Attempt(run) for run in missing(ahead, plan))
        self.running: dict[Any, tuple[_Attempt, Any]] = {}
        """What runs, with its slot, by Ray's reference to its end."""
        self.begun: dict[Any, float] = {}
        """When, on the monotonic clock, likewise."""
        self._ended = set[str]()
        """Names of runs that came to their end in this start."""
        self._found = set[str]()
        """Names of those that were asked for, and that an earlier one finished."""
        self._past_seconds, self._past_tokens = 0.0, 0
        """What runs took that are at their end, and what those of them trained on that came to
        it."""
        self._best = math.inf
        """Least KL of a candidate on the selection split so far."""

    @property
    def done(self) -> int:
        """Runs that came to their end in this start."""
        return len(self._ended)

    @property
    def slot_seconds(self) -> float:
        """What all runs so far took of the slots."""
        now = time.monotonic()
        return self._past_seconds + sum(now - began for began in self.begun.values())

    def finish(self, runs: Sequence[FullRun]) -> dict[FullRun, FullResult]:
        """Do these runs, with those that are ahead where there is room, which may go on after."""
        wanted = {self._name(run): run for run in missing(runs, self.plan)}
        under_way = {self._name(attempt.run) for attempt, _ in self.running.values()}
        names = {self._name(run) for run in runs}
        self._found |= names - wanted.keys() - under_way - self._ended
        ahead = [each for each in self.waiting if self._name(each.run) not in wanted]
        known = self.done + len({*wanted, *under_way, *(self._name(each.run) for each in ahead)})
        done, total = float(self.done), float(self._most(known))
        tell(LOGGER, work="full runs", done=done, total=total, unit="runs")
        first = [_Attempt(run) for name, run in wanted.items() if name not in under_way]
        self.waiting = deque([*first, *ahead])
        with self.slots.closed_on_failure():
            while wanted.keys() & {self._name(run) for run in self._left()}:
                while len(self.running) < self.plan.room.limit and self.start():
                    pass
                # not for ever: others may want a slot without work
                ready, _ = ray.wait(list(self.running), num_returns=1, timeout=SHARED_SECONDS)
                self.slots.release_unused()
                for reference in ready:
                    self.take_up(reference)
        return results_of(runs, self.plan)

    def _left(self) -> list[FullRun]:
        """The runs that wait, and those that are under way."""
        attempts = [*self.waiting, *(attempt for attempt, _ in self.running.values())]
        return [attempt.run for attempt in attempts]

    def _name(self, run: FullRun) -> str:
        return run.directory_name(self.plan.tokens)

    def start(self) -> bool:
        """Begin the next run; False where none waits."""
        if not self.waiting:
            return False
        attempt = self.waiting.popleft()
        tell(LOGGER, begun=self.plan.label(attempt.run))
        task, slot = _task(attempt.run, self.plan), self.slots.take()
        reference = slot.train.options(name=task.label).remote(task)
        self.running[reference], self.begun[reference] = (attempt, slot), time.monotonic()
        return True

    def take_up(self, reference: Any) -> None:
        """A run has come to its end, or its process has."""
        attempt, slot = self.running.pop(reference)
        self._past_seconds += time.monotonic() - self.begun.pop(reference)
        problem = _outcome(reference, attempt.run, plan=self.plan)
        if problem is None:
            self.slots.give_back(slot)
        else:
            self.slots.drop(slot)
            problem = self.plan.room.explained(problem)
        if problem is None or problem.startswith(TrainingDiverged.__name__):
            self._end(attempt.run, problem)
        elif of_memory(problem):
            self._put_back(attempt, problem)
        else:
            self._try_again(attempt, problem)

    def _put_back(self, attempt: _Attempt, problem: str) -> None:
        """A run wanted for memory: fewer run from now on, or else the search stops."""
        said = self.plan.room.lowered(problem, len(self.running))
        if said is None:
            name, training = f"the full run {attempt.run}", self.plan.assets.training
            raise SearchStopped(too_large(name, problem, training=training))
        LOGGER.info(f"full run {attempt.run}: {said}")
        self.waiting.appendleft(attempt)

    def _try_again(self, attempt: _Attempt, problem: str) -> None:
        """Once more at the end of the queue, unless it has failed too often."""
        run = attempt.run
        if attempt.failures >= RETRIES:
            raise SearchStopped(
                f"the full run {run} failed: {problem}; mend the cause and start the same "
                "command again"
            )
        LOGGER.info(f"full run {run} failed ({problem}); taking it up again")
        if self.plan.access is not None and problem.startswith(DIED):
            time.sleep(LOST_NODE_SECONDS)
        self.waiting.append(replace(attempt, failures=attempt.failures + 1))

    def _end(self, run: FullRun, problem: str | None) -> None:
        """A run is at its end: its student is there, or its loss diverged."""
        plan = self.plan
        self._ended.add(self._name(run))
        self._past_tokens += plan.tokens_of(run)
        tell(LOGGER, over=plan.label(run), done=float(self.done))
        shutil.rmtree(plan.checkpoint(run), ignore_errors=True)
        if problem is not None:
            plan.directory.mkdir(parents=True, exist_ok=True)
            write_file_atomically(plan.failure(run), problem)
        result = load_result(run, plan)
        plan.ended(plan.label(run), result)
        chosen = run.role == CANDIDATE and plan.kind(run) == "full"  # others are held against these
        if chosen and result and (kl := result.selection.means()["kl"]) < self._best:
            self._best = kl
            tell(LOGGER, best=f"{plan.label(run)}, kl {kl:.4f}")
        known = self.done + len(self._left())
        most = self._most(known)
        outcome = f"kl {result.selection.means()['kl']:.4f}" if result else f"left out: {problem}"
        total = f"{known}" if most == known else f"at most {most}"
        LOGGER.info(
            f"{plan.kind(run)} run {self.done} of {total}: {run}: {outcome}"
            f"{plan.words(self._seconds_left(most - known))}"
        )

    def _most(self, known: int) -> int:
        """Runs of this start as far as they can be known, of which so many are."""
        return max(known, self.plan.expected - len(self._found))

    def _seconds_left(self, unknown: int) -> float:
        """Until the end of all runs, by the tokens of those before; `unknown` are full runs that
        may be asked for yet."""
        plan, now = self.plan, time.monotonic()
        each = self._past_seconds / self._past_tokens
        tokens = sum(map(plan.tokens_of, self._left())) + unknown * plan.tokens
        under_way = sum(
            min(now - self.begun[reference], each * plan.tokens_of(attempt.run))
            for reference, (attempt, _) in self.running.items()
        )
        return max(0.0, each * tokens - under_way) / plan.room.limit


def _task(run: FullRun, plan: FullPlan) -> WorkerTask:
    return WorkerTask(
        job=plan.job(run),
        assets=plan.assets_of(run),
        resources=plan.room.resources,
        output=plan.output(run),
        access=plan.access,
        dtype=plan.dtype,
        study=plan.study,
    )


def _outcome(reference: Any, run: FullRun, *, plan: FullPlan) -> str | None:
    """Why a run failed, in one line, or None."""
    name = f"full run {run}"
    try:
        failure: WorkerFailure | None = ray.get(reference)
    except RayError as problem:
        return noted(plan.errors, name, problem=problem)
    return None if failure is None else failure.noted(plan.errors, name)
