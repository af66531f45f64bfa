"""Ray's errors, of the types that it raises and in its own words, in one sentence of ours."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray.core.generated.common_pb2 import ActorDiedErrorContext  # type: ignore[attr-defined]
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    LocalRayletDiedError,
    NodeDiedError,
    ObjectLostError,
    ObjectReconstructionFailedError,
    OutOfMemoryError,
    OwnerDiedError,
    RayError,
    RaySystemError,
    RayTaskError,
    RuntimeEnvSetupError,
    WorkerCrashedError,
)
from ray.train import WorkerGroupError
from ray.train.v2.api.exceptions import ControllerError

from common.errors import SearchStopped, TrainingDiverged
from distill.train.limits import RunLimits
from distill.train.settings import ResolvedTraining
from pruning import Architecture
from search.cluster.ray_errors import (
    KILLED,
    NODE_LOST,
    OBJECT_LOST,
    WorkerFailure,
    note,
    noted,
)
from search.cluster.ray_errors import OUT_OF_MEMORY as MEMORY
from search.cluster.ray_errors import sentence as said
from search.cluster.resources import Resources
from search.cluster.room import Room
from search.finals import runner as full_runner
from search.finals.runner import run_in_full
from search.trials import zero_shot
from search.trials.zero_shot import ZeroShot, ZeroShotPlan, score_zero_shot
from search.workers import slots, tasks
from search.workers.full_runs import FullPlan, FullRun
from search.workers.slots import SlotPool
from tests.search.assets import assets_in

RAY_OUT_OF_MEMORY = """1 worker(s) were killed due to the node running low on memory. Memory on \
the node (IP: 192.0.2.2, ID: bbaa4eb67e61) was 23.1GB used / 23.54GB limit (0.981)
OOM kill reason: Memory usage 24803414425B exceeded threshold of 24012676915B (95.0%)
Object store memory usage: [- objects spillable: 0
- bytes spillable: 0

Eviction Stats:
(global lru) capacity: 7151490662]
Considered workers: [
Selected to kill: (Actor(869ad480): job ID=01000000, task name=Slot.__init__, pid=8362)
]
Top 10 memory users: PID	MEM(GB)	COMMAND
8362	11.06	ray::trial-0003 L6
Refer to the documentation on how to address the out of memory issue: https://docs.ray.io. Set \
max_restarts and max_task_retries to enable retry when the task crashes due to OOM."""
CRASHED = """The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR \
Worker exit detail: Worker unexpectedly exits with a connection error code 2. End of file. Some \
common causes include: (1) the process was killed by the OOM killer due to high memory usage, (2) \
ray stop --force was called, or (3) the worker crashed unexpectedly due to SIGSEGV."""
NODE_DIED = """The actor died because its node has died. Node Id: bbaa4eb67e61, Ip: 192.0.2.2
	the actor's node was terminated unexpectedly: health check failed due to missing too many \
heartbeats"""
TASK_NODE = """Task failed because the node it was running on is dead or unavailable. Node IP: \
192.0.2.2, node ID: bbaa4eb67e61. This can happen if the node was preempted, had a hardware failure,
or its raylet crashed unexpectedly. To see node death information, use `ray list nodes`."""
TRACEBACK = """Traceback (most recent call last):
  File "python/ray/_raylet.pyx", line 2205, in ray._raylet.execute_task
  File "search/workers/actors.py", line 90, in train
    run = run_in(directory)
ValueError: the first line
and a second"""


def died(text: str) -> ActorDiedError:
    context = ActorDiedErrorContext(
        error_message=text, class_name="Slot", actor_id=bytes(16), pid=8292
    )
    return ActorDiedError(context)


def raised(cause: Exception) -> RayTaskError:
    return RayTaskError("train", TRACEBACK, cause, proctitle="ray::trial-0003 L6", pid=1, ip="::1")


WORKER_SAID = ValueError("the first line\nand a second")
KINDS: list[tuple[RayError, str]] = [
    (OutOfMemoryError(RAY_OUT_OF_MEMORY), MEMORY),
    (died(CRASHED), KILLED),
    (died("The actor is dead because it was killed by `ray.kill`."), KILLED),
    (died(NODE_DIED), NODE_LOST),
    (NodeDiedError(TASK_NODE), NODE_LOST),
    (LocalRayletDiedError(), NODE_LOST),
    (WorkerCrashedError(), KILLED),
    (ActorUnavailableError("rpc failed\nat once", None), KILLED),
    (ActorDiedError(raised(WORKER_SAID)), "ValueError: the first line"),
    (raised(WORKER_SAID), "ValueError: the first line"),
    (raised(WORKER_SAID).as_instanceof_cause(), "ValueError: the first line"),
    (raised(OutOfMemoryError(RAY_OUT_OF_MEMORY)), MEMORY),
    (raised(TrainingDiverged("at 3\nsteps")), "TrainingDiverged: at 3"),
    (ObjectLostError("ab" * 14, None, "here"), OBJECT_LOST),
    (OwnerDiedError("ab" * 14, None, "here"), OBJECT_LOST),
    (ObjectReconstructionFailedError("ab" * 14), OBJECT_LOST),
    (RaySystemError("it broke", "trace\nback"), "Ray failed with RaySystemError: System error: it"),
    (RuntimeEnvSetupError("no\nenvironment"), "Ray failed with RuntimeEnvSetupError: Failed to"),
]
SHAPE = Architecture(layers=2, hidden=24, heads=4, kv_heads=2, ffn=24)
GROUPS: list[tuple[Exception, str]] = [
    (
        WorkerGroupError("x\ny", {0: raised(WORKER_SAID), 1: OutOfMemoryError(RAY_OUT_OF_MEMORY)}),
        MEMORY,
    ),
    (WorkerGroupError("x\ny", {0: raised(WORKER_SAID), 1: died(CRASHED)}), KILLED),
    (WorkerGroupError("x\ny", {0: died(CRASHED), 1: died(NODE_DIED)}), NODE_LOST),
    (WorkerGroupError("x\ny", {0: raised(WORKER_SAID)}), "ValueError: the first line"),
    (ControllerError(died(NODE_DIED)), NODE_LOST),
    (ControllerError(RuntimeError("one\ntwo")), "RuntimeError: one"),
]


@pytest.mark.parametrize(("problem", "expected"), [*KINDS, *GROUPS])
def test_every_kind_of_error_is_one_sentence(problem: Exception, expected: str) -> None:
    found = said(problem)
    assert found.startswith(expected)
    assert "\n" not in found and len(found) < 160


def test_its_own_words_are_kept_and_the_place_is_said(tmp_path: Path) -> None:
    log = tmp_path / "new" / "ray-errors.log"
    found = noted(log, "trial-0003", problem=OutOfMemoryError(RAY_OUT_OF_MEMORY))
    assert found == f"{MEMORY} (more in ray-errors.log)"
    assert note(log, "trial-0004", text="a traceback\nof two lines") == " (more in ray-errors.log)"
    text = log.read_text("utf-8")
    assert RAY_OUT_OF_MEMORY in text and text.index("trial-0003") < text.index("a traceback")
    before = log.read_bytes()
    assert note(log, "trial-0005", text=" \n") == "" and log.read_bytes() == before
    assert noted(None, "trial-0006", problem=died(CRASHED)) == KILLED


@pytest.fixture
def plan(tmp_path: Path) -> FullPlan:
    """Of full runs, three at once."""
    return FullPlan(
        assets=assets_in(tmp_path, training=ResolvedTraining(batch=4, precision="fp32")),
        limits=RunLimits(100),
        directory=tmp_path,
        checkpoints=tmp_path,
        dtype="float32",
        room=Room(Resources(3, 1, 0.0)),
        errors=tmp_path / "ray-errors.log",
    )


def test_a_full_run_gives_its_reason_in_one_line(
    plan: FullPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = FullRun("candidate", SHAPE)

    def lost(reference: Any) -> None:
        raise OutOfMemoryError(RAY_OUT_OF_MEMORY)

    def outcome(get: Callable[[Any], WorkerFailure | None]) -> str | None:
        monkeypatch.setattr(ray, "get", get)
        return full_runner._outcome(None, run, plan=plan)

    failure = WorkerFailure("OSError: full", TRACEBACK)
    assert outcome(lost) == f"{MEMORY} (more in ray-errors.log)"
    assert outcome(lambda reference: failure) == "OSError: full (more in ray-errors.log)"
    assert outcome(lambda reference: None) is None
    assert plan.errors is not None
    assert RAY_OUT_OF_MEMORY in plan.errors.read_text() and TRACEBACK in plan.errors.read_text()


@dataclass
class Workers:
    """Stands for Ray's: each run ends as it is told to, the oldest first."""

    ends: list[Any]
    """What each raises, or None."""
    running: list[str] = field(default_factory=list)
    most: list[int] = field(default_factory=list)
    """How many ran when each ended."""

    def start(self, name: str) -> str:
        self.running.append(name)
        return name

    def wait(
        self, references: list[str], num_returns: int, timeout: float | None = None
    ) -> tuple[list[str], list[str]]:
        return references[:1], references[1:]

    def get(self, reference: str) -> Any:
        self.most.append(len(self.running))
        self.running.remove(reference)
        end = self.ends.pop(0)
        if isinstance(end, Exception):
            raise end
        return end

    def kill(self, actor: Any) -> None:
        """It has ended."""


@pytest.fixture
def full_runs(plan: FullPlan, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Does full runs of workers, at most three at once."""

    def do(workers: Workers, runs: int, kills: Callable[[], int] = lambda: 0) -> None:
        start = SimpleNamespace(remote=lambda task: workers.start(task.name))
        slot = SimpleNamespace(train=SimpleNamespace(options=lambda name: start))
        actor = SimpleNamespace(options=lambda **_: SimpleNamespace(remote=lambda: slot))
        for module in (full_runner, slots):
            monkeypatch.setattr(module, "ray", workers)
        room = Room(Resources(3, 1, 0.0), kills)
        run_in_full(
            [FullRun("candidate", SHAPE, seed) for seed in range(runs)],
            replace(plan, room=room),
            SlotPool(room, actor),
        )

    return do


def test_full_runs_that_want_for_memory_run_with_fewer_beside_them(
    full_runs: Callable[..., None], lines: list[str]
) -> None:
    short = OutOfMemoryError(RAY_OUT_OF_MEMORY)
    workers = Workers([short, short, None, None, None, None])
    full_runs(workers, 4)
    assert workers.most == [3, 2, 1, 1, 1, 1] and not workers.ends
    assert [line.partition("; put back, ")[2] for line in lines[:2]] == [
        "and no more than 2 at once from now on",
        "and no more than 1 at once from now on",
    ]


def test_runs_that_are_certain_fill_what_others_leave_free(
    plan: FullPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Begun before the others are known, they come after them, and are done once."""
    workers = Workers([None] * 6)
    started: list[str] = []

    def start(task: Any) -> str:
        started.append(task.name)
        return workers.start(task.name)

    slot = SimpleNamespace(
        train=SimpleNamespace(options=lambda name: SimpleNamespace(remote=start))
    )
    actor = SimpleNamespace(options=lambda **_: SimpleNamespace(remote=lambda: slot))
    for module in (full_runner, slots):
        monkeypatch.setattr(module, "ray", workers)

    def missing(runs: Sequence[FullRun], plan: FullPlan) -> list[FullRun]:
        ended = {name for name in started if name not in workers.running}
        return [run for run in runs if plan.label(run) not in ended]

    monkeypatch.setattr(full_runner, "missing", missing)
    room = Room(Resources(2, 1, 0.0), lambda: 0)
    certain = [FullRun("uniform shrink", SHAPE, seed) for seed in (0, 1, 2)]
    others = [FullRun("candidate", replace(SHAPE, ffn=SHAPE.ffn + 8 * k)) for k in (1, 2, 3)]
    runner = full_runner.FullRunner(replace(plan, room=room), SlotPool(room, actor), certain)
    assert runner.start()
    assert runner.slot_seconds > 0
    runner.finish([certain[0], *others])
    order = [certain[0], *others, certain[1]]
    assert started == [plan.label(run) for run in order]
    assert len(runner.running) == 1, "the last goes on while the next are chosen"
    runner.finish(certain)
    assert started == [plan.label(run) for run in [*order, certain[2]]]
    assert not runner.running and not runner.waiting and not workers.ends


def test_runs_are_expected_to_take_as_long_as_their_tokens(
    plan: FullPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Short ones come first, and say little of how long full ones take by their number."""
    workers, now, told = Workers([None] * 3), [0.0], list[float | None]()
    short = FullRun("uniform shrink", SHAPE, tokens=plan.tokens // 4)
    runs = [short, *(FullRun("candidate", SHAPE, seed) for seed in (1, 2))]
    lasting = iter([10.0, 40.0, 40.0])

    def wait(references: list[Any], **options: Any) -> Any:
        now[0] += next(lasting)
        return Workers.wait(workers, references, **options)

    def words(left: float | None) -> str:
        told.append(left)
        return ""

    start = SimpleNamespace(remote=lambda task: workers.start(task.name))
    slot = SimpleNamespace(train=SimpleNamespace(options=lambda name: start))
    actor = SimpleNamespace(options=lambda **_: SimpleNamespace(remote=lambda: slot))
    monkeypatch.setattr(workers, "wait", wait)
    monkeypatch.setattr(full_runner, "time", SimpleNamespace(monotonic=lambda: now[0]))
    for module in (full_runner, slots):
        monkeypatch.setattr(module, "ray", workers)
    room = Room(Resources(1, 1, 0.0), lambda: 0)
    expecting = replace(plan, room=room, words=words, expected=4)
    full_runner.FullRunner(expecting, SlotPool(room, actor)).finish(runs)
    assert told == [120.0, 80.0, 40.0], "two full runs that are known, and one that may come"


def test_a_full_run_that_wants_for_memory_alone_stops_the_search(
    full_runs: Callable[..., None], lines: list[str]
) -> None:
    kills = iter([0, 1])
    with pytest.raises(SearchStopped, match=f"{MEMORY} .*; lower --training.micro_batch .4 now"):
        full_runs(Workers([died(CRASHED)]), 1, lambda: next(kills))
    full_runs(Workers([died(CRASHED), None]), 1)
    assert "taking it up again" in lines[0], "nothing says that it was memory"


@pytest.fixture
def scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., ZeroShot]:
    """Scores some architectures by workers, at most two at once."""

    def do(workers: Workers, count: int) -> ZeroShot:
        numbers = itertools.count()
        start = SimpleNamespace(remote=lambda *_: workers.start(f"task {next(numbers)}"))
        slot = SimpleNamespace(call=SimpleNamespace(options=lambda name: start))
        actor = SimpleNamespace(options=lambda **_: SimpleNamespace(remote=lambda: slot))
        for module in (tasks, slots):
            monkeypatch.setattr(module, "ray", workers)
        corpus = SimpleNamespace(block=8, blocks=lambda split: [0])
        monkeypatch.setattr(zero_shot, "Corpus", lambda folder: corpus)
        resources = Resources(2, 1, 0.0)
        plan = ZeroShotPlan(
            assets=assets_in(tmp_path),
            sequences=2,
            access=None,
            directory=tmp_path,
        )
        shapes = [replace(SHAPE, layers=layers) for layers in range(1, count + 1)]
        room = Room(resources, lambda: 0)
        return score_zero_shot(shapes, plan, slots=SlotPool(room, actor))

    return do


def test_scores_that_want_for_memory_are_made_with_fewer_at_once(
    scored: Callable[..., ZeroShot], lines: list[str]
) -> None:
    scores = ([0.5] * zero_shot.PER_TASK, 1.0)
    workers = Workers([OutOfMemoryError(RAY_OUT_OF_MEMORY), scores, scores, scores])
    found = scored(workers, 12)
    assert list(found.scores.values()) == [0.5] * 12
    assert workers.most == [2, 1, 1, 1] and lines[0].endswith("no more than 1 at once from now on")


def test_scores_before_training_that_fail_stop_the_search(
    scored: Callable[..., ZeroShot], tmp_path: Path
) -> None:
    with pytest.raises(SearchStopped, match=f"{NODE_LOST} .more in ray-errors.log.; mend"):
        scored(Workers([NodeDiedError(TASK_NODE)] * 4), 1)
    assert TASK_NODE in (tmp_path / "ray-errors.log").read_text()
