"""Settings of whole runs."""

from dataclasses import dataclass

from common.errors import DistillError

FEWEST_STEPS = 20
"""Of a learning-rate range test."""


@dataclass(frozen=True)
class CorrectionSettings:
    """Fine-tuning of the teacher on the corpus, before anything else."""

    tokens: int = 0
    """Training tokens; 0 leaves the teacher as it is."""
    learning_rate: float | None = None
    """Peak learning rate; by default a fifth of the one that follows from the teacher's size."""

    def __post_init__(self) -> None:
        if self.tokens < 0:
            raise DistillError(f"--correction.tokens is {self.tokens}; it must not be negative")
        if self.learning_rate is not None and not self.learning_rate > 0:
            raise DistillError(
                f"--correction.learning_rate is {self.learning_rate}; it must be above zero"
            )
