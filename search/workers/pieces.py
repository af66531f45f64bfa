"""Pieces of what a study computes once, on a slot's side, on whatever node that is."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import ray
import torch

from common.signals import parent_watch
from search.cluster.resources import Resources
from search.workers.access import WorkspaceAccess
from search.workers.staging import NodeCache, RemoteWorkspace
from workspace.models import LoadedModel, ModelSource
from workspace.pieces import Passes


@dataclass(frozen=True, kw_only=True)
class PieceTask:
    """All that a slot is given for a piece."""

    label: str
    """What Ray calls it, and what is put before its lines."""
    passes: Passes
    """What computes it."""
    folder: Path
    """Where it goes in the workspace."""
    model: LoadedModel
    """The model, which is yet to be loaded."""
    resources: Resources
    """What the slot has of its node."""
    access: WorkspaceAccess | None = None
    """How it reaches a workspace that its node may not see; None: it sees it."""


class PieceWriter:
    """A model of a slot, and the pieces that are computed by it.

    On a node that does not see the workspace, the model is a copy of the node, and pieces are sent
    home.
    """

    def __init__(self, task: PieceTask):
        self.model = task.model
        self._alive = parent_watch()
        self._remote: RemoteWorkspace | None = None
        torch.set_num_threads(task.resources.cpus)
        directory = task.model.source.directory
        if task.access is not None:
            remote = RemoteWorkspace(ray.get_actor(task.access.actor))
            seen = task.access.visible()
            self._remote = None if seen else remote
            if not (seen and remote.is_here(directory)):
                directory = NodeCache().copy_of(directory, remote)
        self._here = task.model.like(ModelSource(directory))

    def write(self, task: PieceTask) -> None:
        """Compute a piece, and put it in its place."""
        self._alive()
        if self._remote is None:
            task.passes.write(self._here(), task.folder)
            return
        scratch = NodeCache().scratch()
        try:
            task.passes.write(self._here(), scratch / task.folder.name)
            self._remote.send(scratch / task.folder.name, task.folder)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
