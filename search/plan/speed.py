"""Speed that the times of a plan follow from: stated by the user, or measured by a few steps."""

from dataclasses import dataclass

from common.errors import DistillError
from distill.targets import evaluation_format
from search.needs.device import PlannedDevice
from search.plan.timing import RandomRun
from search.space.timing import threads

UNKNOWN = "times are not known: "
NO_WEIGHTS = UNKNOWN + "the teacher's weights are not here; "
STATE = "give --plan_for.tflops, the TFLOP/s that a run comes to"


@dataclass(frozen=True)
class Speed:
    """How long operations take."""

    training: float | None
    """Seconds for an operation of a run; None where that is not known."""
    reading: float | None
    """Seconds for an operation of a teacher that is read; likewise."""
    answering: float | None
    """Seconds for an operation of a teacher whose answers are stored; likewise."""
    starting: float
    """Seconds that every run takes besides."""
    basis: str
    """How it is known, or how it would be, in words."""

    @classmethod
    def of(
        cls, run: RandomRun, device: PlannedDevice, *, cpus: int, reading_cpus: int, weights: bool
    ) -> "Speed":
        """Of a run on a device, by so many threads, and of a teacher that is read by others.

        `weights` says whether those of the teacher are there, without which this is not where it
        will run.
        """
        if device.flops is not None:
            each = 1 / device.flops
            basis = f"times by --plan_for.tflops {device.flops / 1e12:g}, evaluations included"
            return cls(each, each, each, 0.0, basis)
        if not device.here:
            return cls(None, None, None, 0.0, f"{UNKNOWN}{STATE} on that machine")
        if not weights:
            return cls(None, None, None, 0.0, NO_WEIGHTS + STATE)
        try:
            with threads(cpus):
                pace = run.pace()
            form = run.targets or evaluation_format(run.teacher.config.vocab_size)
            with threads(reading_cpus):
                reading = run.teacher.seconds_per_flop(run.block)
                answering = run.teacher.seconds_per_flop(run.block, form)
        except (DistillError, RuntimeError) as problem:
            reason = (str(problem) or type(problem).__name__).splitlines()[0]
            return cls(None, None, None, 0.0, f"{UNKNOWN}a step failed, {reason}; {STATE}")
        return cls(
            pace.seconds_per_token / run.flops_per_token,
            reading,
            answering,
            pace.starting,
            "times by a few steps of random weights on this machine, one run alone, without the "
            "start of processes",
        )


NOT_KNOWN = Speed(None, None, None, 0.0, "")
"""No times."""
NOT_TIMED = Speed(None, None, None, 0.0, "times are not measured of what does not fit")
"""Of what would fail."""
