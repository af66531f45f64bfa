"""The workspace's files, for nodes that do not see the workspace: the driver's side.

An actor beside the driver reads and writes them; they travel through Ray's object store. What a
worker does with them is in `search.desk`.
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

from distill.checkpoint import write_directory_atomically

MARKER = ".visible"
"""File of the workspace with a random text; who reads the same text there sees the workspace."""


@dataclass(frozen=True)
class Entry:
    """A file below a directory, as it was when it was listed."""

    name: str
    size: int
    """Bytes."""
    modified: int
    """Nanoseconds since the epoch."""


class Store:
    """Reads and writes directories of the workspace, and nothing outside it.

    All arguments are plain values, so that it can be an actor. Raises PermissionError for paths
    elsewhere and FileNotFoundError for what is not there.
    """

    def __init__(self, root: str, readable: tuple[str, ...] = ()):
        """`readable` are directories outside the workspace `root` that may be read."""
        self.root = Path(root).resolve()
        self.readable = [Path(os.path.normpath(path)) for path in readable]

    def exists(self, path: str) -> bool:
        return self._inside(path).is_dir()

    def entries(self, path: str) -> list[Entry]:
        """The files below a directory, with what changes when one of them does."""
        directory = self._inside(path)
        if not directory.is_dir():
            raise FileNotFoundError(f"{directory} is no directory")
        files = sorted(file for file in directory.rglob("*") if file.is_file())
        found = [(str(file.relative_to(directory)), file.stat()) for file in files]
        return [Entry(name, stat.st_size, stat.st_mtime_ns) for name, stat in found]

    def read(self, path: str, name: str, offset: int, count: int) -> NDArray[np.uint8]:
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

    def append(self, aside: str, name: str, piece: NDArray[np.uint8]) -> None:
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
class WorkspaceFiles(Store):
    """The store as an actor, readable in Ray's dashboard."""

    def __repr__(self) -> str:
        return f"files of {self.root}"


@dataclass(frozen=True)
class Files:
    """How a worker reaches the workspace. A value: it travels in a trial's settings."""

    root: Path
    identity: str
    """What stands in the workspace's marker."""
    actor: str
    """Name of the actor that reads and writes it."""

    def visible(self) -> bool:
        """Whether this process sees the same workspace: the driver's machine, or a shared disk."""
        try:
            return (self.root / MARKER).read_text() == self.identity
        except OSError:
            return False


@contextlib.contextmanager
def served(root: Path, readable: tuple[Path, ...] = ()) -> Iterator[Files]:
    """Serve the workspace to all nodes as long as the context lasts; Ray must be up.

    `readable` are directories outside of it that runs read, such as a teacher.
    """
    identity = uuid.uuid4().hex
    files = Files(root.resolve(), identity, f"files-{identity}")
    (root / MARKER).write_text(identity)
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options = WorkspaceFiles.options(  # type: ignore[attr-defined]
        name=files.actor, num_cpus=0, max_concurrency=8, scheduling_strategy=here
    )
    actor = options.remote(str(files.root), tuple(str(path.absolute()) for path in readable))
    try:
        yield files
    finally:
        ray.kill(actor)
