"""Staging of a run on a node that may not see the workspace.

Directories that a run reads are copied once per node; its checkpoints and results are sent back.
"""

import contextlib
import hashlib
import json
import os
import shutil
import socket
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import psutil
import ray

from common.errors import SearchStopped
from common.files import write_directory_atomically
from search.workers.access import WorkspaceAccess
from search.workers.candidate import Job, SearchAssets
from search.workers.file_server import FileEntry

PIECE_BYTES = 64 * 2**20
"""Of a file at once; a few such pieces fit into any object store."""
CACHE_VARIABLE = "ESPALIER_CACHE"
"""Where a node keeps its copies, if not in a folder of the system's temporary one."""
UNUSED_DAYS = 7.0
"""After which a copy is deleted when another is made."""


class RemoteWorkspace:
    """The workspace on the driver's machine, directory by directory."""

    def __init__(self, actor: Any):
        """`actor` has the methods of `FileServer`."""
        self.actor = actor

    def fetch(self, source: Path, target: Path) -> None:
        """Copy a directory of the driver's machine to `target`, whole or not at all."""
        entries = ray.get(self.actor.entries.remote(str(source)))
        write_directory_atomically(target, lambda aside: self._fill(aside, source, entries=entries))

    def _fill(self, aside: Path, source: Path, *, entries: list[FileEntry]) -> None:
        pieces = [
            (entry.name, offset, min(PIECE_BYTES, entry.size - offset))
            for entry in entries
            for offset in range(0, entry.size, PIECE_BYTES) or [0]
        ]
        under_way = [self._asked(source, piece) for piece in pieces[:1]]
        for index, (name, _, count) in enumerate(pieces):
            under_way += [self._asked(source, piece) for piece in pieces[index + 1 : index + 2]]
            content = ray.get(under_way.pop(0))
            if len(content) != count:
                raise OSError(f"{source / name} was changed while it was read")
            file = aside / name
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("ab") as output:
                content.tofile(output)

    def _asked(self, source: Path, piece: tuple[str, int, int]) -> Any:
        name, offset, count = piece
        return self.actor.read.remote(str(source), name, offset=offset, count=count)

    def is_here(self, directory: Path) -> bool:
        """Whether this machine has the directory too, by the names and sizes of its files."""
        entries: list[FileEntry] = ray.get(self.actor.entries.remote(str(directory)))
        with contextlib.suppress(OSError):
            return all((directory / each.name).stat().st_size == each.size for each in entries)
        return False

    def send(self, source: Path, target: Path) -> None:
        """Copy a directory of this machine to `target` on the driver's, whole or not at all."""
        aside = ray.get(self.actor.begin.remote(str(target)))
        try:
            for file in sorted(path for path in source.rglob("*") if path.is_file()):
                name = str(file.relative_to(source))
                for offset in range(0, file.stat().st_size, PIECE_BYTES) or [0]:
                    piece = np.fromfile(file, np.uint8, PIECE_BYTES, offset=offset)
                    ray.get(self.actor.append.remote(aside, name, piece=piece))
            ray.get(self.actor.finish.remote(aside, str(target)))
        except BaseException:
            with contextlib.suppress(Exception):
                ray.get(self.actor.delete.remote(aside))
            raise


class NodeCache:
    """A node's copies of the driver's directories, and the checkpoints of what runs on it."""

    def __init__(self, directory: Path | None = None):
        """`directory` is by default that of the environment variable, or the user's own."""
        self.directory = directory or _cache_directory()

    def copy_of(self, source: Path, remote: RemoteWorkspace) -> Path:
        """This node's copy of a directory, made if it is not there in its present state."""
        entries = ray.get(remote.actor.entries.remote(str(source)))
        state = json.dumps([str(source), *(asdict(entry) for entry in entries)])
        name = f"{source.name}-{hashlib.sha256(state.encode()).hexdigest()[:16]}"
        copy = self.directory / name
        with filelock.FileLock(self.directory / f"{name}.lock"):
            if not copy.is_dir():
                self._make_room()
                remote.fetch(source, copy)
            os.utime(copy)
        return copy

    def scratch(self) -> Path:
        """A directory of this process; those of processes that are gone are deleted."""
        host = socket.gethostname()
        for path in self.directory.glob(f"run@{host}@*"):
            if not psutil.pid_exists(int(path.name.split("@")[2])):
                shutil.rmtree(path, ignore_errors=True)
        path = self.directory / f"run@{host}@{os.getpid()}@{uuid.uuid4().hex[:8]}"
        path.mkdir()
        return path

    def _make_room(self) -> None:
        """Delete what no run has begun with for a week."""
        oldest = time.time() - UNUSED_DAYS * 24 * 3600
        for path in self.directory.iterdir():
            if path.is_dir() and path.stat().st_mtime < oldest:
                shutil.rmtree(path, ignore_errors=True)


def _cache_directory() -> Path:
    given = os.environ.get(CACHE_VARIABLE)
    path = Path(given or Path(tempfile.gettempdir()) / f"espalier-{os.getuid()}")
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.stat().st_uid != os.getuid():
        raise SearchStopped(
            f"{path} on {socket.gethostname()} is another user's; set {CACHE_VARIABLE} on that "
            "node to a folder for copies of the workspace"
        )
    return path


def materialise(assets: SearchAssets, remote: RemoteWorkspace, *, cache: NodeCache) -> SearchAssets:
    """The same assets in directories of this node; only what a run reads is copied."""

    def here(path: Path) -> Path:
        return cache.copy_of(path, remote)

    targets = assets.training_targets
    return replace(
        assets,
        sorted_teacher=here(assets.sorted_teacher),
        library=here(assets.library) if assets.library else None,
        teacher=assets.teacher if targets else here(assets.teacher),
        corpus=here(assets.corpus),
        training_targets=here(targets) if targets else None,
        selection_targets=here(assets.selection_targets),
    )


def assets_here(assets: SearchAssets, access: WorkspaceAccess | None) -> SearchAssets:
    """The assets where this process sees them: in the workspace, or in copies of this node."""
    if access is None or access.visible():
        return assets
    return materialise(assets, RemoteWorkspace(ray.get_actor(access.actor)), cache=NodeCache())


def directories_here(paths: Sequence[Path], access: WorkspaceAccess | None) -> list[Path]:
    """Directories of the workspace where this process sees them, or copies of this node."""
    if access is None or access.visible():
        return list(paths)
    cache, remote = NodeCache(), RemoteWorkspace(ray.get_actor(access.actor))
    return [cache.copy_of(path, remote) for path in paths]


class RunDirectory:
    """Where a worker does one run: in the workspace if it sees it, else in copies of this node."""

    def __init__(self, assets: SearchAssets, job: Job, *, access: WorkspaceAccess | None):
        """`access` is None where every worker sees the workspace."""
        self.assets, self.job = assets, job
        self.remote: RemoteWorkspace | None = None
        if access is None or access.visible():
            return
        if job.tasks is not None:
            raise SearchStopped(
                "tasks as objectives need a workspace that every node sees; put it on shared "
                "storage, or search without them"
            )
        self.remote = RemoteWorkspace(ray.get_actor(access.actor))
        cache = NodeCache()
        self.assets = materialise(assets, self.remote, cache=cache)
        self.scratch = cache.scratch()
        self._kept, self._checkpoint = job.limits.checkpoint, self.scratch / "checkpoint"
        if self._kept is None:
            return
        self.job = replace(job, limits=replace(job.limits, checkpoint=self._checkpoint))
        if ray.get(self.remote.actor.exists.remote(str(self._kept))):
            self.remote.fetch(self._kept, self._checkpoint)

    def send_checkpoint(self) -> None:
        """Bring the checkpoint to the workspace, so that the run can go on anywhere if this node is
        lost."""
        if self.remote is not None and self._kept is not None:
            self.remote.send(self._checkpoint, self._kept)

    @contextlib.contextmanager
    def output(self, target: Path) -> Iterator[Path]:
        """The directory to write instead of the workspace's `target`, which it then becomes."""
        if self.remote is None:
            yield target
            return
        yield self.scratch / "output"
        self.remote.send(self.scratch / "output", target)

    def close(self) -> None:
        """Delete what this node has of the run alone."""
        if self.remote is not None:
            shutil.rmtree(self.scratch, ignore_errors=True)
