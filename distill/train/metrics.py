"""Log of a run's metrics: JSON lines, TensorBoard, and wandb where asked for."""

import json
import time
from pathlib import Path
from typing import Any

from common.errors import DistillError


class MetricLog:
    """Writes figures by token count to every place that is wanted, as they come."""

    def __init__(self, directory: Path, wandb_project: str | None = None, name: str = ""):
        """`metrics.jsonl` and `tensorboard/` go into `directory`.

        Raises DistillError where wandb is wanted and not installed.
        """
        from tensorboardX import SummaryWriter  # slow; workers that log nothing do without

        directory.mkdir(parents=True, exist_ok=True)
        self._lines = (directory / "metrics.jsonl").open("a", encoding="utf-8")
        self._board = SummaryWriter(str(directory / "tensorboard"))
        self._run: Any = None
        if wandb_project:
            check_wandb(wandb_project)
            import wandb

            identity = (directory / "wandb-id").read_text() if _has_id(directory) else None
            self._run = wandb.init(
                project=wandb_project, name=name or None, id=identity, resume="allow", dir=directory
            )
            (directory / "wandb-id").write_text(self._run.id)

    def write(self, tokens: int, figures: dict[str, float]) -> None:
        """Note `figures` of a run that has seen so many tokens."""
        line = {"tokens": tokens, "time": round(time.time(), 3), **figures}
        self._lines.write(json.dumps(line) + "\n")
        self._lines.flush()
        for figure, value in figures.items():
            self._board.add_scalar(figure, value, tokens)
        if self._run is not None:
            self._run.log(figures, step=tokens)

    def close(self) -> None:
        """End the log everywhere."""
        self._lines.close()
        self._board.close()
        if self._run is not None:
            self._run.finish()


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


def _has_id(directory: Path) -> bool:
    return (directory / "wandb-id").exists()
