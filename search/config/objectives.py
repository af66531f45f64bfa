"""Objectives of a study: the KL to the teacher, alone or beside costs and task scores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from common.errors import require
from search.config.units import COSTS

Direction = Literal["minimize", "maximize"]
KL = "kl"
TASK = "task:"
"""Begins the name of an objective that is a task's score: task:NAME or task:NAME.METRIC."""


@dataclass(frozen=True)
class Objectives:
    """Names of what is searched for; the KL to the teacher is always among them."""

    names: tuple[str, ...] = (KL,)
    """The KL first."""

    @classmethod
    def of(cls, names: Sequence[str]) -> "Objectives":
        """Raises SearchError for names that are unknown, missing or there twice."""
        known = f"{KL}, {', '.join(COSTS)} or {TASK}NAME"
        require(bool(names), f"--objectives is empty; give {known}")
        for name in names:
            require(
                name == KL or name in COSTS or (name.startswith(TASK) and len(name) > len(TASK)),
                f"--objectives has {name!r}; it must be {known}",
            )
        require(len(set(names)) == len(names), f"--objectives names one twice: {', '.join(names)}")
        require(
            KL in names,
            f"--objectives is {', '.join(names)}; {KL} must be among them, since a student is "
            "trained towards its teacher",
        )
        require(len(names) <= 3, f"--objectives has {len(names)} names; at most 3 can be traded")
        return cls((KL, *(name for name in names if name != KL)))

    @property
    def several(self) -> bool:
        """Whether there is anything beside the KL."""
        return len(self.names) > 1

    @property
    def directions(self) -> list[Direction]:
        """As Optuna has them: task scores are maximised."""
        return ["maximize" if name.startswith(TASK) else "minimize" for name in self.names]

    @property
    def costs(self) -> list[str]:
        """Those that are costs."""
        return [name for name in self.names if name in COSTS]

    @property
    def tasks(self) -> list[str]:
        """Those that are scores of tasks."""
        return [name for name in self.names if name.startswith(TASK)]

    def values(self, kl: float, figures: Mapping[str, float]) -> list[float]:
        """One candidate's figures in the order of the names; task scores as they are.

        Args:
            kl: To the teacher, in nats per token.
            figures: Costs and task scores by objective.
        """
        known = {**figures, KL: kl}
        return [float(known[name]) for name in self.names]

    def minimised(self, values: Sequence[float]) -> tuple[float, ...]:
        """The same with the sign that makes less better."""
        signed = zip(self.names, values, strict=True)
        return tuple(-value if name.startswith(TASK) else value for name, value in signed)


def task_of(name: str) -> tuple[str, str]:
    """(task, metric) of an objective task:NAME.METRIC; the metric is empty where none is named."""
    task, _, metric = name.removeprefix(TASK).partition(".")
    return task, metric


def require_tasks(names: Sequence[str], known: Sequence[str], *, given: Sequence[str]) -> None:
    """Raises SearchError for objectives whose task is not `known`, of those of --tasks `given`."""
    for name in names:
        require(
            task_of(name)[0] in known,
            f"--objectives has {name}, but {', '.join(given)} has the tasks "
            f"{', '.join(sorted(known))}",
        )
