"""What the driver of a study costs for each report of a trial, with many trials at once.

    python experiments/benchmarks/search/driver_load.py [--concurrent 1 4 16 64] [--storage URL]

Drives real studies through Ray with slots that sleep instead of training, so that the driver has
all the work there is: ours (the database, proposing, the rest of our code) and Ray's own. The
goal is under 50 ms of ours for each report with 64 trials at once. Also times single proposals.
"""

import argparse
import json
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial, wraps
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT))

import numpy as np
import optuna
import ray
from optuna.storages import BaseStorage, RDBStorage

from distill.recipes import CurvePoint, RunReport
from distill.train import ResolvedTraining, RunLimits
from experiments.benchmarks.search.proposing import large_space, synthetic_kl, time_proposals
from search.cluster import Resources, Room, ray_cluster
from search.config import HALVING, NAMES, STOPPERS, SamplerSettings
from search.database import Coordination, TrialLog, leased, open_storage, storage_of
from search.samplers import Proposer
from search.space import Space
from search.study import EarlyStopping, Record, Rungs, TrialPolicy, TrialQueue, open_study
from search.trials import TrialPlan, TrialRunner
from search.workers import SearchAssets, SlotPool, TrialTask

GOAL = 50.0
"""Milliseconds of our own code per report."""
REPORTS = 5
STEP_TOKENS = 1_000
SEQUENCES = 64
DATABASE, PROPOSING, REST, WAITING = "database", "proposing", "rest", "waiting"


@dataclass
class Clock:
    """Seconds by what they were spent on; those of a part inside another count once."""

    wall: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    cpu: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    calls: Counter[str] = field(default_factory=Counter)
    """By the name of the method."""
    _open: list[str] = field(default_factory=list)
    _since: tuple[float, float] = (0.0, 0.0)

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        self._settle()
        self._open.append(part)
        try:
            yield
        finally:
            self._settle()
            self._open.pop()

    def _settle(self) -> None:
        now = time.perf_counter(), time.thread_time()
        if self._open:
            self.wall[self._open[-1]] += now[0] - self._since[0]
            self.cpu[self._open[-1]] += now[1] - self._since[1]
        self._since = now

    def timed(self, part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(call)
        def timed(*args: Any, **kwargs: Any) -> Any:
            if threading.current_thread() is not threading.main_thread():
                return call(*args, **kwargs)  # the driver's lease
            self.calls[call.__name__] += 1
            with self(part):
                return call(*args, **kwargs)

        return timed


class TimedRecord(Record):
    def __init__(self, queue: TrialQueue, policy: TrialPolicy, clock: Clock):
        super().__init__(queue, policy)
        self.clock = clock

    def report(self, number: int, report: RunReport) -> bool:
        self.clock.calls["reports"] += 1
        with self.clock(REST):
            return super().report(number, report)


class TimedCoordination(Coordination):
    def __init__(self, study: optuna.Study, storage: RDBStorage, *, token: str, clock: Clock):
        super().__init__(study, storage, token=token)
        self.clock = clock

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        with ExitStack() as stack:
            with self.clock(DATABASE):
                stack.enter_context(super().exclusive())
            yield


@ray.remote
class Sleeper:
    """Reports what a slot reports, after sleeping instead of training.

    As plain values: with classes of ours in them, every process would import torch.
    """

    def __init__(self) -> None:
        self.trial, self.done = "", 0

    def report(self, trial: str, *, final: float, seconds: float, asked: float) -> dict[str, Any]:
        late = time.time() - asked
        time.sleep(seconds)
        self.done = 1 if self.trial != trial else self.done + 1
        self.trial = trial
        kls = [final * (1 + 4 / number**2) for number in range(1, self.done + 1)]
        return {"kls": kls, "seconds": self.done * seconds, "late": late}


@dataclass(frozen=True)
class SleepingSlot:
    """A slot for the runner of trials, which has a sleeper work."""

    sleeper: Any
    space: Space
    seconds: float

    @property
    def next_report(self) -> Any:
        def named(name: str) -> Any:
            method = self.sleeper.report.options(name=name)
            return SimpleNamespace(remote=partial(self._asked, method))

        return SimpleNamespace(options=named)

    @property
    def __ray_ready__(self) -> Any:
        """Of the sleeper."""
        return self.sleeper.__ray_ready__

    def _asked(self, method: Any, task: TrialTask) -> Any:
        final = synthetic_kl(self.space, task.job.architecture)
        return method.remote(task.name, final=final, seconds=self.seconds, asked=time.time())

    @property
    def leave(self) -> Any:
        """There is nothing to leave."""
        return SimpleNamespace(options=lambda name: SimpleNamespace(remote=lambda: None))


@dataclass(frozen=True)
class SleepingSlots:
    """Starts them, as the actor of a `SlotPool`."""

    space: Space
    seconds: float

    def options(self, **reserved: Any) -> Any:
        def started() -> SleepingSlot:
            sleeper = Sleeper.options(**reserved).remote()  # type: ignore[attr-defined]
            return SleepingSlot(sleeper, self.space, self.seconds)

        return SimpleNamespace(remote=started)


def report_of(plain: dict[str, Any]) -> RunReport:
    """What the runner would get of a slot."""
    tokens = [number * STEP_TOKENS for number in range(1, len(plain["kls"]) + 1)]
    curve = [
        CurvePoint(at, kl, kl=kl, ce=kl + 2, top1_agreement=1 / (1 + kl))
        for at, kl in zip(tokens, plain["kls"], strict=True)
    ]
    done = len(curve) == REPORTS
    return RunReport(
        tokens=tokens[-1],
        resumed_tokens=0,
        seconds=plain["seconds"],
        busy_seconds=plain["seconds"],
        curve=curve,
        done=done,
        kl_sequences=[curve[-1].kl] * SEQUENCES if done else [],
    )


class TimedRunner(TrialRunner):
    """The runner of trials, of which what is ours is timed."""

    clock: Clock

    def next_trial(self) -> Any:
        with self.clock(REST):
            return super().next_trial()

    def goes_on(self, number: int, report: RunReport) -> bool:
        with self.clock(REST):
            return super().goes_on(number, report)


def unread_assets(folder: Path) -> SearchAssets:
    """Of trials that sleep: nothing is there."""
    return SearchAssets(
        corpus=folder,
        training_targets=None,
        selection_targets=folder,
        test_targets=folder,
        teacher=folder,
        sorted_teacher=folder,
        vocabulary=1,
        training=ResolvedTraining(batch=1, precision="fp32"),
        seed=0,
        device="cpu",
    )


def watch(storage: BaseStorage, clock: Clock) -> None:
    """Have every call of the storage timed and counted."""
    for name in dir(BaseStorage):
        if not name.startswith(("_", "remove_session", "check_trial")):
            setattr(storage, name, clock.timed(DATABASE, getattr(storage, name)))


def drive(space: Space, url: str, concurrent: int, options: argparse.Namespace) -> dict[str, Any]:
    """One study; returns its row of the table."""
    clock, resources = Clock(), Resources(concurrent, cpus=1, gpus=0.0)
    storage = open_storage(url)
    study = open_study(storage, f"driver-load-{concurrent}-{time.time():.0f}")
    trials = concurrent * options.trials_per_slot
    with (
        tempfile.TemporaryDirectory() as scratch,
        ray_cluster(study.study_name, resources),
        leased(study, shared=True) as driver,
    ):
        coordination = TimedCoordination(study, storage, token=driver.token, clock=clock)
        proposer = Proposer(space, SamplerSettings(options.sampler), 0)
        rungs = Rungs.of(
            options.stopper,
            REPORTS,
            step_tokens=STEP_TOKENS,
            first_share=1 / REPORTS,
            reduction=2,
        )
        policy = TrialPolicy(
            space, clock.timed(PROPOSING, proposer.__call__), 0, stopping=EarlyStopping(rungs)
        )
        record = TimedRecord(TrialQueue(study, coordination, max_retries=2), policy, clock)
        plan = TrialPlan(
            study=study.study_name,
            target=trials,
            assets=unread_assets(Path(scratch)),
            limits=RunLimits(REPORTS * STEP_TOKENS, tuple(range(1, REPORTS + 1))),
            checkpoints=Path(scratch) / "checkpoints",
            max_failures=3,
            room=Room(resources),
        )
        slots = SlotPool(plan.room, SleepingSlots(space, options.seconds))
        runner = TimedRunner(record, plan, slots)
        runner.clock = clock
        late: list[float] = []

        def get(reference: Any, fetch: Callable[..., Any] = ray.get) -> RunReport:
            plain = fetch(reference)
            late.append(plain["late"])
            return report_of(plain)

        watch(storage_of(study), clock)
        log = sys.modules[TrialLog.__module__]  # whose way to the database is timed
        written = clock.timed(DATABASE, log.write_together)
        with (
            patch.object(ray, "wait", clock.timed(WAITING, ray.wait)),
            patch.object(ray, "get", get),
            patch.object(log, "write_together", written),
        ):
            began, cpu = time.perf_counter(), time.thread_time()
            runner.run()
            wall, cpu = time.perf_counter() - began, time.thread_time() - cpu
        assert record.finished() == trials, f"{record.finished()} of {trials} trials finished"
    return {
        "concurrent": concurrent,
        "trials": trials,
        **row(clock, wall, cpu, trials=trials),
        "start_s": float(np.median(late)),
    }


def row(clock: Clock, wall: float, cpu: float, *, trials: int) -> dict[str, float]:
    """Times are milliseconds of the driver's main thread for each report, unless named otherwise.

    Ray's share is all of its loop that is neither ours nor idle: waiting for a result counts as
    idle, but for the CPU time that it takes.
    """
    reports = clock.calls["reports"]
    parts = {name: clock.wall[name] for name in (DATABASE, PROPOSING, REST)}
    ours, ours_cpu = sum(parts.values()), sum(clock.cpu.values()) - clock.cpu[WAITING]
    idle = clock.wall[WAITING] - clock.cpu[WAITING]
    writing = ("set_trial", "create", "write")
    writes = sum(n for name, n in clock.calls.items() if name.startswith(writing))
    reads = sum(n for name, n in clock.calls.items() if name.startswith(("get_all", "get_trial")))
    return {
        "reports": reports,
        "wall_s": wall,
        **{f"{name}_ms": 1e3 * seconds / reports for name, seconds in parts.items()},
        "ours_ms": 1e3 * ours / reports,
        "ours_cpu_ms": 1e3 * ours_cpu / reports,
        "ours_per_trial_ms": 1e3 * ours / trials,
        "ray_ms": 1e3 * (wall - ours - idle) / reports,
        "ray_cpu_ms": 1e3 * (cpu - ours_cpu) / reports,
        "idle_share": idle / wall,
        "writes": writes / reports,
        "reads": reads / reports,
    }


def print_rows(rows: list[dict[str, Any]]) -> None:
    print(f"\nmilliseconds of the driver per report (goal: ours under {GOAL:.0f})")
    print(
        f"{'at once':>7} {'trials':>6} {'reports':>7} {'wall s':>7} {'database':>9}"
        f" {'proposing':>9} {'rest':>6} {'ours':>7} {'(cpu)':>7} {'Ray':>7} {'(cpu)':>7}"
        f" {'ours/trial':>10} {'idle':>5} {'writes':>6} {'reads':>6} {'start s':>7}"
    )
    for r in rows:
        print(
            f"{r['concurrent']:>7} {r['trials']:>6} {r['reports']:>7} {r['wall_s']:>7.1f}"
            f" {r['database_ms']:>9.1f} {r['proposing_ms']:>9.1f} {r['rest_ms']:>6.1f}"
            f" {r['ours_ms']:>7.1f} {r['ours_cpu_ms']:>7.1f} {r['ray_ms']:>7.1f}"
            f" {r['ray_cpu_ms']:>7.1f} {r['ours_per_trial_ms']:>10.1f} {r['idle_share']:>5.0%}"
            f" {r['writes']:>6.1f} {r['reads']:>6.1f} {r['start_s']:>7.3f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--concurrent", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--storage", help="database URL; by default SQLite in a temporary folder")
    parser.add_argument("--trials-per-slot", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.2, help="of sleep before each report")
    parser.add_argument("--sampler", default="auto", choices=NAMES)
    parser.add_argument("--stopper", default=HALVING, choices=STOPPERS)
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = large_space()
    proposals = time_proposals(space, options.sampler)
    print(f"one proposal of {options.sampler} among {len(space.feasible):,} architectures:")
    for count, (wall, cpu) in proposals.items():
        print(f"    after {count:>3} trials {wall:6.0f} ms ({cpu:.0f} of CPU)")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        url = options.storage or f"sqlite:///{folder}/study.db"
        for concurrent in options.concurrent:
            rows.append(drive(space, url, concurrent, options))
            print_rows(rows[-1:])
    print_rows(rows)
    figures = {
        "benchmark": "driver_load",
        "storage": url.split(":")[0],
        "architectures": len(space.feasible),
        "proposal_ms": {str(count): round(wall, 1) for count, (wall, _) in proposals.items()},
        "proposal_cpu_ms": {str(count): round(cpu, 1) for count, (_, cpu) in proposals.items()},
        "rows": [{key: round(value, 3) for key, value in found.items()} for found in rows],
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
