"""Figures of a study as they were planned, beside what was measured."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PlannedMeasured:
    """A figure before the study and after it."""

    planned: float
    """By the estimate."""
    measured: float
    """Of what was run."""

    @property
    def off(self) -> float:
        """By how much of what was measured the estimate is above it."""
        return self.planned / self.measured - 1


@dataclass(frozen=True)
class Estimates:
    """Estimates of a study, held against it; None where one of both is not known."""

    memory_bytes: PlannedMeasured | None = None
    """Most memory of a run's process, or of what torch allocates on its GPU: the estimate of the
    largest run that was measured, and the most that one took."""
    trial_seconds: PlannedMeasured | None = None
    """Device-seconds of all trials: what their tokens take at the speed of the first forecast."""
    full_seconds: PlannedMeasured | None = None
    """The same of full runs, and of short runs of baselines."""

    def lines(self) -> list[str]:
        """For people."""
        shown = (
            ("memory of a run", self.memory_bytes, 1e9, "GB"),
            ("trials", self.trial_seconds, 1.0, "device-seconds"),
            ("full runs and evidence", self.full_seconds, 1.0, "device-seconds"),
        )
        return [
            f"planned, measured: {name} {one.planned / unit:,.2f}, {one.measured / unit:,.2f} "
            f"{of} ({one.off:+.0%})"
            for name, one, unit, of in shown
            if one is not None
        ]
