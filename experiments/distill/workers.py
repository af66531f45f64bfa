"""Workers of a Ray cluster for one distillation, by Ray Train's TorchTrainer.

A worker that is lost takes its group down; the group starts anew and goes on from the run's last
checkpoint, which Ray knows nothing of.
"""

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray.train
import torch
from ray.exceptions import RayError
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from common.errors import DistillError, SearchStopped, TrainingDiverged
from common.files import write_file_atomically
from common.log import lines_to
from common.progress import Facts, RunPace
from common.values import in_ascii
from distill.backend import World
from search.cluster import note, sentence
from workspace.layout import Workspace

LOGGER = logging.getLogger(__name__)
Work = Callable[[World, str], None]
"""The work of each process: given the world it belongs to, and its device."""
TAIL_SECONDS = 0.5
"""Seconds between two looks at the lines of the workers."""


@dataclass(frozen=True)
class WorkerGroup:
    """Processes that train one student together; Ray must be up."""

    count: int
    """How many."""
    cpus: int
    """CPUs, and so threads, of each."""
    gpus: float
    """GPUs of each; 0 without."""
    retries: int
    """How often lost workers are replaced."""
    smaller: Sequence[str] = ()
    """What takes less memory, as advice."""

    def run(self, work: Work, workspace: Workspace) -> None:
        """Do `work` on all of them at once.

        The lines that the first of them logs are logged here. Ray's own words about a failure go to
        a file of the workspace.

        Raises:
            SearchStopped: Workers keep being lost.
            TrainingDiverged, DistillError: The work itself failed, which is not tried again.
        """
        scratch = workspace.ray
        scratch.mkdir(parents=True, exist_ok=True)
        failure, spoken = scratch / "failure.txt", scratch / "said.txt"
        failure.unlink(missing_ok=True)
        spoken.write_text("")
        trainer = self._trainer(work, failure=failure, spoken=spoken, name=workspace.root.name)
        with _repeated(spoken):
            problem = _fitted(trainer)
        if failure.exists():
            kind, _, text = failure.read_text().partition(": ")
            raise (TrainingDiverged if kind == TrainingDiverged.__name__ else DistillError)(text)
        if isinstance(problem, ray.train.TrainingFailedError | RayError):
            fewer = [f"use fewer workers (--workers.count {self.count - 1})"] * (self.count > 1)
            reason = sentence(problem, " or ".join([*fewer, *self.smaller]))
            more = note(workspace.ray_errors, f"run on {self.count} workers", text=str(problem))
            raise SearchStopped(
                f"the run on {self.count} workers failed: {reason}{more}; mend the cause and start "
                "the same command again, it goes on from its last checkpoint"
            ) from None
        if problem is not None:
            raise problem

    def _trainer(self, work: Work, *, failure: Path, spoken: Path, name: str) -> TorchTrainer:
        """Its workers write into the files `failure` and `spoken`; Ray calls the run `name`."""
        return TorchTrainer(
            _loop,
            train_loop_config={
                "work": work,
                "cpus": self.cpus,
                "failure": str(failure),
                "spoken": str(spoken),
            },
            torch_config=TorchConfig(backend="nccl" if self.gpus else "gloo"),
            scaling_config=ScalingConfig(
                num_workers=self.count,
                use_gpu=self.gpus > 0,
                resources_per_worker={"CPU": self.cpus} | ({"GPU": self.gpus} if self.gpus else {}),
            ),
            run_config=RunConfig(
                name=in_ascii(name),
                storage_path=str(failure.parent.absolute()),
                failure_config=FailureConfig(max_failures=self.retries),
            ),
        )


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
def _repeated(spoken: Path) -> Iterator[None]:
    """Log every line that is added to the file `spoken` meanwhile."""
    over = threading.Event()

    def follow() -> None:
        with spoken.open(encoding="utf-8") as lines:
            rest = ""
            while True:
                last = over.wait(TAIL_SECONDS)
                *whole, rest = (rest + lines.read()).split("\n")
                for line in whole:
                    pace = RunPace.read(line, "")
                    LOGGER.info(line, extra={"facts": Facts(at=pace, said=True)} if pace else None)
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
    """What Ray Train calls in each worker."""
    failure = Path(config["failure"])
    if failure.exists():
        return  # a worker of the group before this one said why it cannot be done
    torch.set_num_threads(config["cpus"])
    device = ray.train.torch.get_device()
    world = World.of_group(device)

    def write(line: str) -> None:
        with Path(config["spoken"]).open("a", encoding="utf-8") as lines:
            lines.write(line + "\n")

    try:
        with lines_to(write):
            config["work"](world, str(device))
    except (TrainingDiverged, DistillError) as problem:
        write_file_atomically(failure, f"{type(problem).__name__}: {problem}")
        raise  # so that workers that wait for this one are stopped at once
