"""Disk that a study takes, at most, by part."""

from dataclasses import dataclass, fields

from search.finals.outlook import LastRuns
from search.inputs.outline import StudyOutline

MOMENTS_BYTES = 12
"""Of a parameter in a checkpoint of a run: weight and AdamW's moments, in fp32."""


@dataclass(frozen=True, kw_only=True)
class StudyDisk:
    """Bytes of a study's workspace. Its packed text, and the blocks of students whose layers
    differ, are not counted."""

    targets: float
    """The teacher's answers on all splits."""
    text_model: float
    """The text model of a multimodal teacher."""
    corrected_teacher: float
    """The teacher after its correction."""
    sorted_teacher: float
    """The model that students are cut out of, once more for the uncorrected teacher."""
    checkpoints: float
    """Of the runs that go on, each beside the one before while it is written; of the correction
    where that is larger."""
    students: float
    """Of full runs, winners, and trials that full runs would repeat or have no time for."""

    @classmethod
    def of(
        cls, outline: StudyOutline, last: LastRuns, *, targets: float, concurrent: int
    ) -> "StudyDisk":
        """Of a study whose targets take so many bytes, and that has `concurrent` runs at once."""
        config, teacher = outline.config, outline.teacher
        held = teacher.parameters * teacher.dtype.itemsize
        student = max(max(member.space.parameters) for member in outline.members)
        # best/ and winners/; one may be a baseline, and one is of the other kind
        copies = config.winners + config.ties + 1 + bool(config.space.per_layer)
        kept = last.stage.repeats_trials or config.time_budget is not None
        of_trials = config.trials if kept else 0
        written = (last.count + copies + of_trials) * len(outline.members)
        corrected = config.correction.tokens > 0
        running = (concurrent + 1) * 2 * student * MOMENTS_BYTES
        correction = 2 * teacher.parameters * MOMENTS_BYTES * corrected
        return cls(
            targets=targets * (1 + corrected),  # the winner is taught once more without it
            text_model=0.0 if teacher.part is None else held,  # written already
            corrected_teacher=held * corrected,
            sorted_teacher=held * (1 + corrected),
            checkpoints=max(running, correction),
            students=written * student * teacher.dtype.itemsize,
        )

    @property
    def total(self) -> float:
        """All of it."""
        return sum(self.parts.values())

    @property
    def parts(self) -> dict[str, float]:
        """Those that take anything, by their names for people."""
        every = {field.name.replace("_", " "): getattr(self, field.name) for field in fields(self)}
        return {name: size for name, size in every.items() if size}

    def __str__(self) -> str:
        shown = ", ".join(f"{name} {size / 1e6:,.0f}" for name, size in self.parts.items())
        return f"disk: at most {self.total / 1e6:,.0f} MB ({shown})"
