"""The study's directory: where everything that is computed once is kept, and under which name.

A name carries a fingerprint of all that the thing depends on. What does not match is computed
again, never silently reused.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.atomic import free_bytes
from distill.formats import shown_bytes
from search.errors import SearchError
from search.ray_errors import RAY_ERRORS


def fingerprint(*parts: Any) -> str:
    """A short name for anything that JSON can hold."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


EARLIER = {"teacher_precision": "fp32"}
"""Settings that are recorded only where they are otherwise: what runs of earlier versions had."""


def differences(recorded: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What differs between two sets of named settings, each in words."""
    recorded, now = EARLIER | recorded, EARLIER | now
    return [
        f"{name} (was {_brief(recorded.get(name))}, is {_brief(now.get(name))}{_meant(name)})"
        for name in sorted(recorded.keys() | now.keys())
        if recorded.get(name) != now.get(name)
    ]


def _meant(name: str) -> str:
    return ": the packed tokens, of another text or written otherwise" if name == "corpus" else ""


def _brief(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def fingerprint_files(paths: list[Path]) -> str:
    """A short name for the content of files and their names, not for where they lie."""
    digest = hashlib.sha256()
    for path in sorted(paths, key=lambda p: p.name):
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


@dataclass(frozen=True)
class Workspace:
    """Paths inside a study's directory."""

    root: Path
    option: str = "--workspace"
    """What the user names it by."""

    def make(self) -> None:
        """Raises SearchError where the directory cannot be written."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            probe = self.root / ".probe"
            probe.write_text("")
            probe.unlink()
        except OSError as problem:
            raise SearchError(
                f"the workspace {self.root} cannot be written ({problem.strerror}); choose another "
                f"{self.option}"
            ) from problem

    def corpus(self, name: str) -> Path:
        return self.root / f"corpus-{name}"

    def importance(self, name: str) -> Path:
        return self.root / f"importance-{name}.safetensors"

    def sorted_teacher(self, name: str) -> Path:
        return self.root / f"sorted-{name}"

    @property
    def prepared(self) -> bool:
        """Whether a start of a study came as far as a sorted teacher."""
        return any(self.root.glob("sorted-*"))

    def targets(self, split: str, name: str) -> Path:
        return self.root / f"targets-{split}-{name}"

    def checkpoints(self, study: str) -> Path:
        """Of the runs that are going on, by study."""
        return self.root / "checkpoints" / study

    def full(self, study: str) -> Path:
        """Finished full runs, by study: one directory each with its model."""
        return self.root / "full" / study

    def member(self, name: str) -> "Workspace":
        """Where the results of a member of a family go."""
        return Workspace(self.root / "family" / name)

    @property
    def ray(self) -> Path:
        return self.root / "ray"

    @property
    def ray_errors(self) -> Path:
        """What Ray itself says of what failed; outlives `ray`."""
        return self.root / RAY_ERRORS

    @property
    def best(self) -> Path:
        return self.root / "best"

    @property
    def winners(self) -> Path:
        return self.root / "winners"

    def winner_folders(self, count: int) -> list[Path]:
        """Where `count` winners go, the best first."""
        return [self.best, *(self.winners / str(rank) for rank in range(2, count + 1))][:count]

    @property
    def results(self) -> Path:
        return self.root / "results.json"

    @property
    def trials_table(self) -> Path:
        return self.root / "trials.csv"

    @property
    def report(self) -> Path:
        return self.root / "report.html"

    def used(self) -> int:
        """Bytes of all files in it."""
        return sum(path.stat().st_size for path in self.root.rglob("*") if path.is_file())

    def require_space(self, needed: int) -> None:
        """Raises SearchError where the disk has less than `needed` bytes left."""
        free = free_bytes(self.root)
        if free < needed:
            raise SearchError(
                f"the study needs up to {shown_bytes(needed)} in {self.root}, which has "
                f"{shown_bytes(free)} left; free some, lower --full_tokens or --training.draws, or "
                f"choose another {self.option}"
            )
