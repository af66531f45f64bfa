"""Reports of a run, on its way and at its end, as typed values and as JSON.

The only place that knows the keys. Files and messages without a `schema_version` are of the first.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from common.errors import DistillError
from distill.evaluation.scores import Evaluation

SCHEMA_VERSION = 1
"""Of reports and results; raised when older code would misread them."""
RESULT_FILE = "done.json"
"""Name of the file beside a written student that holds its `RunResult`."""


@dataclass(frozen=True)
class CurvePoint:
    """One evaluation on the selection split."""

    tokens: int
    """Tokens trained on until then."""
    loss: float | None
    """Mean training loss since the evaluation before; None where no step was taken."""
    kl: float
    """Forward KL to the teacher, nats per token."""
    ce: float
    """Cross-entropy to the text, nats per token."""
    top1_agreement: float
    """Share of the tokens where student and teacher agree on the likeliest next one."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class RunProgress:
    """How far a run has come, at an evaluation."""

    tokens: int
    """Tokens trained on."""
    resumed_tokens: int
    """Of these, those that the process found in a checkpoint."""
    seconds: float
    """What the run has taken, in all processes that took it up."""
    busy_seconds: float
    """What this process spent in training and evaluation, without checkpoints."""
    curve: Sequence[CurvePoint]
    """All evaluations so far, at least one."""
    peak_bytes: int = 0
    """Most memory that this process had for the run: what torch allocated of its GPU, else what was
    resident, without pages of files that it mapped; 0 in reports of before it was measured."""

    @property
    def last(self) -> CurvePoint:
        """The latest evaluation."""
        return self.curve[-1]

    @property
    def figures(self) -> dict[str, Any]:
        """All figures by name, those of the latest evaluation among them."""
        return {**self.last.to_dict(), **{k: v for k, v in vars(self).items() if k != "curve"}}

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {**vars(self), "curve": points_to_json(self.curve)}

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> Self:
        """From JSON. Raises KeyError where it is none."""
        return cls(
            tokens=saved["tokens"],
            resumed_tokens=saved["resumed_tokens"],
            seconds=saved["seconds"],
            busy_seconds=saved["busy_seconds"],
            curve=points_from_json(saved["curve"]),
            peak_bytes=saved.get("peak_bytes", 0),
        )


@dataclass(frozen=True, kw_only=True)
class RunReport(RunProgress):
    """Report of a worker at an evaluation."""

    done: bool
    """Whether the run is at its end."""
    kl_sequences: Sequence[float] = ()
    """Selection KL of each sequence, where the run is at its end and asked for them."""
    scores: Sequence[tuple[str, float]] = ()
    """(objective, score) of each task that was asked at the end."""

    @property
    def progress(self) -> RunProgress:
        """The part of it that a study keeps."""
        names = [field.name for field in fields(RunProgress)]
        return RunProgress(**{name: getattr(self, name) for name in names})


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """Result of a run that came to its end, kept beside its student."""

    tokens: int
    """Tokens trained on."""
    seconds: float
    """What the run took, in all processes that took it up."""
    resumed_tokens: int
    """Tokens that its last process found in a checkpoint."""
    curve: Sequence[CurvePoint]
    """All evaluations."""
    selection: Evaluation
    """The student at its end on the selection split."""
    answers: Sequence[float] | None
    """Log-probabilities that it gave the tokens of the first selection sequence when it was
    measured; None of runs of older versions, which did not keep them."""
    from_trial: bool = False
    """Whether a trial wrote it, which was the same run as a full one; its cost is the trial's."""
    peak_bytes: int = 0
    """Most memory that its last process took for it, as in `RunProgress`."""

    @classmethod
    def of(
        cls,
        report: RunReport,
        selection: Evaluation,
        *,
        answers: Sequence[float],
        from_trial: bool = False,
    ) -> Self:
        """From the last `report` of a run."""
        return cls(
            tokens=report.tokens,
            seconds=report.seconds,
            resumed_tokens=report.resumed_tokens,
            curve=report.curve,
            selection=selection,
            answers=answers,
            from_trial=from_trial,
            peak_bytes=report.peak_bytes,
        )

    def write(self, directory: Path) -> None:
        """Write it into the directory of the student."""
        saved = {
            "schema_version": SCHEMA_VERSION,
            **vars(self),
            "curve": points_to_json(self.curve),
            "selection": self.selection.to_dict(),
        }
        (directory / RESULT_FILE).write_text(json.dumps(saved))

    @classmethod
    def read(cls, directory: Path) -> Self | None:
        """That of the student in `directory`; None where there is none that can be read.

        Raises DistillError where a newer version of this code wrote it.
        """
        path = directory / RESULT_FILE
        try:
            saved = json.loads(path.read_text())
        except (OSError, ValueError):
            return None
        _require_known_schema(saved, str(path))
        return cls(
            tokens=saved["tokens"],
            seconds=saved["seconds"],
            resumed_tokens=saved["resumed_tokens"],
            curve=points_from_json(saved["curve"]),
            selection=Evaluation.from_dict(saved["selection"]),
            answers=saved.get("answers"),
            from_trial=saved.get("from_trial", False),
            peak_bytes=saved.get("peak_bytes", 0),
        )


def points_to_json(points: Sequence[CurvePoint]) -> list[dict[str, Any]]:
    """A curve as JSON has it."""
    return [point.to_dict() for point in points]


def points_from_json(saved: Sequence[Mapping[str, Any]]) -> list[CurvePoint]:
    """A curve from JSON. Raises KeyError where it is none."""
    return [
        CurvePoint(
            p["tokens"], p["loss"], kl=p["kl"], ce=p["ce"], top1_agreement=p["top1_agreement"]
        )
        for p in saved
    ]


def _require_known_schema(saved: Mapping[str, Any], what: str) -> None:
    version = saved.get("schema_version", 1)
    if version > SCHEMA_VERSION:
        raise DistillError(
            f"{what} is of schema_version {version}, but this version of Espalier knows none above "
            f"{SCHEMA_VERSION}; use the version that wrote it"
        )
