"""File server for nodes that do not see the workspace: an actor beside the driver.

It reads and writes the workspace's directories; the bytes travel through Ray's object store. The
workers' side is `search.workers.staging`.
"""

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import ray
from numpy.typing import NDArray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from common.files import write_directory_atomically, write_file_atomically
from search.workers.access import MARKER, WorkspaceAccess


@dataclass(frozen=True)
class FileEntry:
    """A file below a directory, as it was when it was listed."""

    name: str
    """Path relative to the directory."""
    size: int
    """Bytes."""
    modified: int
    """Nanoseconds since the epoch."""


class FileServer:
    """Reads and writes directories of the workspace, and nothing outside it.

    All arguments are plain values, so that it can be an actor. Raises PermissionError for paths
    elsewhere and FileNotFoundError for what is not there.
    """

    def __init__(self, root: str, readable: tuple[str, ...] = ()):
        """`readable` are directories outside the workspace `root` that may be read."""
        self.root = Path(root).resolve()
        self.readable = [Path(os.path.normpath(path)) for path in readable]

    def exists(self, path: str) -> bool:
        """Whether there is a directory."""
        return self._inside(path).is_dir()

    def entries(self, path: str) -> list[FileEntry]:
        """The files below a directory, with what changes when one of them does."""
        directory = self._inside(path)
        if not directory.is_dir():
            raise FileNotFoundError(f"{directory} is no directory")
        files = sorted(file for file in directory.rglob("*") if file.is_file())
        found = [(str(file.relative_to(directory)), file.stat()) for file in files]
        return [FileEntry(name, stat.st_size, stat.st_mtime_ns) for name, stat in found]

    def read(self, path: str, name: str, *, offset: int, count: int) -> NDArray[np.uint8]:
        """At most `count` bytes of a file; an array, which Ray hands over without copies."""
        file = self._inside(path, name)
        return np.fromfile(file, np.uint8, count, offset=offset)

    def begin(self, path: str) -> str:
        """Start to write a directory; returns the one to put its files into meanwhile."""
        target = self._writable(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
        aside.mkdir()
        return str(aside)

    def append(self, aside: str, name: str, *, piece: NDArray[np.uint8]) -> None:
        """Put the next piece at the end of a file."""
        file = self._writable(aside, name)
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("ab") as output:
            piece.tofile(output)

    def finish(self, aside: str, path: str) -> None:
        """Put the written directory in its place; a reader sees the old or the new one, whole."""
        source = self._writable(aside)

        def move(directory: Path) -> None:
            for child in source.iterdir():
                child.rename(directory / child.name)

        write_directory_atomically(self._writable(path), move)
        source.rmdir()

    def delete(self, path: str) -> None:
        """Delete a directory, if it is there."""
        shutil.rmtree(self._writable(path), ignore_errors=True)

    def _inside(self, path: str, name: str = "") -> Path:
        """Links of a readable directory may lead elsewhere, as those of the Hub's cache do."""
        whole = Path(os.path.normpath(Path(path) / name))
        if any(whole.is_relative_to(directory) for directory in self.readable):
            return whole
        return self._writable(path, name)

    def _writable(self, path: str, name: str = "") -> Path:
        whole = (Path(path) / name).resolve()
        if whole == self.root or not whole.is_relative_to(self.root):
            raise PermissionError(f"{whole} is not inside the workspace {self.root}")
        return whole


@ray.remote
class FileServerActor(FileServer):
    """The file server as an actor, readable in Ray's dashboard."""

    def __repr__(self) -> str:
        return f"files of {self.root}"


@contextlib.contextmanager
def serve_workspace(root: Path, readable: tuple[Path, ...] = ()) -> Iterator[WorkspaceAccess]:
    """Serve the workspace to all nodes as long as the context lasts; Ray must be up.

    `readable` are directories outside of it that runs read, such as a teacher.
    """
    identity = uuid.uuid4().hex
    access = WorkspaceAccess(root.resolve(), identity, f"files-{identity}")
    write_file_atomically(root / MARKER, identity)  # whole, as soon as it is there
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options = FileServerActor.options(  # type: ignore[attr-defined]
        name=access.actor, num_cpus=0, max_concurrency=8, scheduling_strategy=here
    )
    actor = options.remote(str(access.root), tuple(str(path.absolute()) for path in readable))
    try:
        yield access
    finally:
        ray.kill(actor)
