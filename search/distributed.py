"""One run on several workers of a Ray cluster, by Ray Train's TorchTrainer.

A worker that is lost takes its group down; the group starts anew and goes on from the run's last
checkpoint, which Ray knows nothing of.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ray.train
import torch
from ray.exceptions import RayError
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from distill.atomic import write_file_atomically
from distill.errors import DistillError, TrainingDiverged
from distill.parallel import World
from search.errors import SearchStopped
from search.ray_errors import RAY_ERRORS, note, sentence
from search.values import in_ascii

Work = Callable[[World, str, Callable[[str], None]], None]
"""What each worker does: given the world it belongs to, its device, and how to say something."""
TAIL_SECONDS = 0.5
FEWER_OR_SMALLER = "use fewer workers (--workers.count) or a lower --training.micro_batch"


def run_on_workers(
    work: Work,
    workers: int,
    cpus: int,
    gpus: float,
    scratch: Path,
    name: str,
    retries: int,
    say: Callable[[str], None],
) -> None:
    """Do `work` on so many workers at once; Ray must be up.

    Each gets `cpus` and `gpus`; what the first of them says is said here. What Ray itself says of
    a failure goes to a file beside `scratch`.

    Raises SearchStopped where workers keep being lost, and the TrainingDiverged or DistillError of
    the work itself, which is not tried again.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    failure, spoken = scratch / "failure.txt", scratch / "said.txt"
    failure.unlink(missing_ok=True)
    spoken.write_text("")
    trainer = TorchTrainer(
        _loop,
        train_loop_config={
            "work": work,
            "cpus": cpus,
            "failure": str(failure),
            "spoken": str(spoken),
        },
        torch_config=TorchConfig(backend="nccl" if gpus else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=workers,
            use_gpu=gpus > 0,
            resources_per_worker={"CPU": cpus} | ({"GPU": gpus} if gpus else {}),
        ),
        run_config=RunConfig(
            name=in_ascii(name),
            storage_path=str(scratch.absolute()),
            failure_config=FailureConfig(max_failures=retries),
        ),
    )
    with _repeated(spoken, say):
        problem = _fitted(trainer)
    if failure.exists():
        kind, _, text = failure.read_text().partition(": ")
        raise (TrainingDiverged if kind == TrainingDiverged.__name__ else DistillError)(text)
    if isinstance(problem, ray.train.TrainingFailedError | RayError):
        reason = sentence(problem, FEWER_OR_SMALLER)
        more = note(scratch.with_name(RAY_ERRORS), f"run on {workers} workers", str(problem))
        raise SearchStopped(
            f"the run on {workers} workers failed: {reason}{more}; mend the cause and start the "
            "same command again, it goes on from its last checkpoint"
        ) from None
    if problem is not None:
        raise problem


def _fitted(trainer: Any) -> BaseException | None:
    """Run the trainer to its end; returns what it raised.

    In a thread, since on the main one Ray takes Ctrl-C for itself and leaves with status 0.
    """
    raised: list[BaseException] = []

    def fit() -> None:
        try:
            trainer.fit()
        except BaseException as problem:
            raised.append(problem)

    thread = threading.Thread(target=fit, daemon=True, name="trainer")
    thread.start()
    while thread.is_alive():
        thread.join(TAIL_SECONDS)
    return raised[0] if raised else None


@contextlib.contextmanager
def _repeated(spoken: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Say every line that is added to the file `spoken` meanwhile."""
    over = threading.Event()

    def follow() -> None:
        with spoken.open(encoding="utf-8") as lines:
            rest = ""
            while True:
                last = over.wait(TAIL_SECONDS)
                *whole, rest = (rest + lines.read()).split("\n")
                for line in whole:
                    say(line)
                if last:
                    return

    thread = threading.Thread(target=follow, daemon=True, name="said by workers")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _loop(config: dict[str, Any]) -> None:
    failure = Path(config["failure"])
    if failure.exists():
        return  # a worker of the group before this one said why it cannot be done
    torch.set_num_threads(config["cpus"])
    device = ray.train.torch.get_device()
    world = World.of_group(device)

    def say(line: str) -> None:
        with Path(config["spoken"]).open("a", encoding="utf-8") as lines:
            lines.write(line + "\n")

    try:
        config["work"](world, str(device), say if world.first else lambda line: None)
    except (TrainingDiverged, DistillError) as problem:
        write_file_atomically(failure, f"{type(problem).__name__}: {problem}")
        raise  # so that workers that wait for this one are stopped at once
