"""What was measured of one model, kept on the disk part by part, so that a start goes on."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from common.files import write_file_atomically
from common.fingerprint import fingerprint
from experiments.evaluation.measuring.contenders import Contender
from experiments.evaluation.measuring.speed import Speed
from experiments.evaluation.measuring.text_scores import TextScores

FOLDER = "measured"
LONGEST = 60
"""Letters of a file's name that say what it is of."""
FORMAT = 1
"""Of the files in it; those of another are measured again."""


@dataclass(frozen=True)
class TaskScores:
    """What came of one task."""

    metrics: dict[str, float]
    """By name."""
    questions: dict[str, list[float]]
    """By name, the value of every question, where the metric is their mean."""
    higher_is_better: dict[str, bool]
    """By name, where it is known."""


@dataclass
class Measured:
    """One model's figures, as far as they are there."""

    contender: Contender
    """The model."""
    text: TextScores | None = None
    """On the text."""
    speed: Speed | None = None
    """On this device."""
    tasks: dict[str, TaskScores] = field(default_factory=dict)
    """By task."""
    notes: list[str] = field(default_factory=list)
    """What could not be measured, and why."""


@dataclass(frozen=True)
class Result:
    """What came of one part."""

    figures: dict[str, Any]
    """As JSON has them."""
    seconds: float
    """That it took."""


@dataclass(frozen=True)
class Store:
    """Results of parts in a directory, by all that they depend on."""

    root: Path
    """Directory of the evaluation."""

    def known(self, kind: str, depends: Any) -> Result | None:
        """The result of a part that was measured before, by this start or another."""
        path = self._path(kind, depends)
        if not path.exists():
            return None
        return Result(**json.loads(path.read_text("utf-8")))

    def keep(self, kind: str, depends: Any, result: Result) -> None:
        """Write the result of a part."""
        path = self._path(kind, depends)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file_atomically(path, json.dumps(asdict(result)))

    def _path(self, kind: str, depends: Any) -> Path:
        plain = "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in kind)
        return self.root / FOLDER / f"{plain[-LONGEST:]}-{fingerprint(FORMAT, depends)}.json"
