"""What the members of a study share while it runs."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pruning import Architecture
from search.candidate import Assets, TaskQuestions
from search.cluster import Slots
from search.files import Files
from search.finals import FullPlan
from search.inputs import Inputs
from search.room import Room
from workspace.layout import Workspace


@dataclass(frozen=True)
class Running:
    """What all members of a study share while it runs."""

    inputs: Inputs
    uncorrected: Callable[[], Assets]
    """Computes the same assets from the teacher as the user gave it."""
    assets: Assets
    workspace: Workspace
    key: str
    """Fingerprint of the study, which names its checkpoints and full runs."""
    slots: Slots
    room: Room
    say: Callable[[str], None]
    questions: TaskQuestions | None
    files: Files | None
    """How workers on other nodes reach the workspace; None where there are no other nodes."""

    def full_plan(self) -> FullPlan:
        config = self.inputs.config
        return FullPlan(
            assets=self.assets,
            tokens=config.full_tokens,
            directory=self.workspace.full(self.key),
            checkpoints=self.workspace.checkpoints(self.key),
            checkpoint_seconds=config.checkpoint_seconds,
            reports=config.full_reports,
            dtype=str(self.inputs.teacher.dtype).removeprefix("torch."),
            room=self.room,
            cpus=self.slots.cpus,
            gpus=self.slots.gpus,
            files=self.files,
            errors=self.workspace.ray_errors,
        )


@dataclass(frozen=True)
class Larger:
    """The winner of a larger member of a family, sorted, from which smaller ones may be cut."""

    name: str
    architecture: Architecture
    sorted_student: Path
