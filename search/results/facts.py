"""Facts of a finished study beside its scores: how it was run, and what its models write."""

from dataclasses import dataclass
from math import log


@dataclass(frozen=True)
class ObjectiveResult:
    """What a study looked for, and how its values are to be read."""

    name: str
    """As --objectives has it."""
    unit: str
    """Of its values."""
    direction: str
    """minimize or maximize."""


@dataclass(frozen=True)
class MeasuredText:
    """Text of the test split that counts, as the students read it."""

    tokens: int
    """Predicted ones, by which scores are means."""
    bytes: int
    """Of the same text in UTF-8."""

    def bits_per_byte(self, loss: float) -> float:
        """Of a cross-entropy in nats per token."""
        return loss / log(2) * self.tokens / max(self.bytes, 1)


@dataclass(frozen=True)
class Completion:
    """What the models write after the beginning of a test document, the likeliest token each
    time."""

    prompt: str
    """The beginning."""
    written: dict[str, str]
    """By name of the model, `teacher` first; of one that could not be asked there is none."""


@dataclass(frozen=True)
class RunFacts:
    """How the study was run; of its last start."""

    finished: str
    """Date and time (ISO 8601, with the offset to UTC)."""
    command: str
    """As it was given, without passwords; "" where the library was called."""
    device: str
    """cpu, or the name of the GPU."""
    machine: str
    """Processor type and cores, and the system."""
    versions: dict[str, str]
    """Of Espalier, Python and the libraries that results depend on, by name."""
