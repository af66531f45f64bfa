"""Log of a run's metrics: JSON lines, TensorBoard, and trackers where asked for."""

import json
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

from common.errors import DistillError
from common.trackers import TENSORBOARD, WANDB, SafeTrackers, open_trackers, require_installed

RUN_IDS = ("run-id", "wandb-id")
"""Files that hold the id of a run at trackers; the last is what versions before had."""


class MetricLog:
    """Writes figures by token count to every place that is wanted, as they come."""

    def __init__(
        self,
        directory: Path,
        wandb_project: str | None = None,
        name: str = "",
        *,
        log_to: Sequence[str] = (),
    ):
        """`metrics.jsonl` and `tensorboard/` go into `directory`; `log_to` names trackers besides.

        Raises DistillError where wandb is wanted by its project and not installed, and SearchError
        where a tracker cannot be used.
        """
        from tensorboardX import SummaryWriter  # slow; workers that log nothing do without

        check_wandb(wandb_project)
        require_installed(log_to)
        directory.mkdir(parents=True, exist_ok=True)
        self._lines = (directory / "metrics.jsonl").open("a", encoding="utf-8")
        self._board = SummaryWriter(str(directory / "tensorboard"))
        named = [*log_to, *([WANDB] if wandb_project else [])]
        others = [tracker for tracker in named if tracker != TENSORBOARD]
        self._name = name or "distill"
        self._trackers = SafeTrackers(
            open_trackers(others, directory, group=self._name, project=wandb_project)
        )
        self._run = _run_id(directory) if others else ""
        self._trackers.begin(self._run, name=self._name, facts={"directory": str(directory)})

    def write(self, tokens: int, figures: dict[str, float]) -> None:
        """Note `figures` of a run that has seen so many tokens."""
        line = {"tokens": tokens, "time": round(time.time(), 3), **figures}
        self._lines.write(json.dumps(line) + "\n")
        self._lines.flush()
        for figure, value in figures.items():
            self._board.add_scalar(figure, value, tokens)
        self._trackers.log(self._run, tokens, figures)

    def close(self, *, finished: bool = False) -> None:
        """End the log; of a run that is not `finished` it goes on with the next start."""
        self._lines.close()
        self._board.close()
        if finished:
            self._trackers.finish(self._run, {"state": "complete"})
        self._trackers.leave()


def check_wandb(project: str | None) -> None:
    """Raises DistillError where a project is named and wandb is not installed."""
    if not project:
        return
    try:
        import wandb  # noqa: F401
    except ImportError as problem:
        raise DistillError(
            f"--wandb is {project!r}, but wandb is not installed; pip install wandb, or leave it "
            "out (metrics.jsonl and TensorBoard files are always written)"
        ) from problem


def _run_id(directory: Path) -> str:
    """The id of the run that is logged there, made at its first start."""
    for path in (directory / name for name in RUN_IDS):
        if path.exists():
            return path.read_text()
    made = uuid.uuid4().hex[:12]
    (directory / RUN_IDS[0]).write_text(made)
    return made
