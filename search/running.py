"""What the members of a study share while it runs."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from distill.limits import RunLimits
from pruning import Architecture
from search.candidate import SearchAssets, TaskQuestions
from search.finals import FullPlan
from search.prepare import Inputs
from search.resources import Resources
from search.room import Room
from search.workspace import Workspace
from search.workspace_access import WorkspaceAccess


@dataclass(frozen=True)
class Running:
    """What all members of a study share while it runs."""

    inputs: Inputs
    uncorrected: Callable[[], SearchAssets]
    """Computes the same assets from the teacher as the user gave it."""
    assets: SearchAssets
    workspace: Workspace
    key: str
    """Fingerprint of the study, which names its checkpoints and full runs."""
    resources: Resources
    room: Room
    say: Callable[[str], None]
    questions: TaskQuestions | None
    access: WorkspaceAccess | None
    """How workers on other nodes reach the workspace; None where there are no other nodes."""

    def full_plan(self) -> FullPlan:
        config = self.inputs.config
        return FullPlan(
            assets=self.assets,
            limits=RunLimits(
                config.full_tokens,
                config.full_reports,
                checkpoint_seconds=config.checkpoint_seconds,
            ),
            directory=self.workspace.full(self.key),
            checkpoints=self.workspace.checkpoints(self.key),
            dtype=str(self.inputs.teacher.dtype).removeprefix("torch."),
            room=self.room,
            access=self.access,
            errors=self.workspace.ray_errors,
        )


@dataclass(frozen=True)
class Larger:
    """The winner of a larger member of a family, sorted, from which smaller ones may be cut."""

    name: str
    architecture: Architecture
    sorted_student: Path
