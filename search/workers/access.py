"""Access of a worker to the workspace of its study."""

from dataclasses import dataclass
from pathlib import Path

MARKER = ".visible"
"""File of the workspace with a random text; who reads the same text there sees the workspace."""


@dataclass(frozen=True)
class WorkspaceAccess:
    """Where the workspace is, and which actor serves it to nodes that do not see it.

    A value: it travels in what a worker is given.
    """

    root: Path
    """The workspace on the driver's machine."""
    identity: str
    """Text of the workspace's marker."""
    actor: str
    """Name of the Ray actor that reads and writes it."""

    def visible(self) -> bool:
        """Whether this process sees the same workspace: the driver's machine, or a shared disk."""
        try:
            return (self.root / MARKER).read_text() == self.identity
        except OSError:
            return False
