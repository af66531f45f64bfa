"""Full runs: students distilled in full, and the directories of the workspace that they leave.

Every run is a directory of the workspace with its own checkpoint; a finished one is never run
again, an interrupted one goes on.
"""

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from common.fingerprint import fingerprint
from common.progress import left_in_words
from distill.recipes import MODEL, RunResult
from distill.train import RunLimits
from pruning import Architecture
from search.cluster.room import Room
from search.workers.access import WorkspaceAccess
from search.workers.candidate import Job, SearchAssets

MEMBER_SEPARATOR = "@"
"""Joins the name of a member and the fingerprint of its student in `FullRun.source`."""


@dataclass(frozen=True)
class FullRun:
    """One student to distil in full."""

    role: str
    """Readable: candidate, uniform shrink, random architecture, random initialisation."""
    architecture: Architecture
    """Shape of the student."""
    shuffle: int = 0
    """Order of the tokens; 0 is the study's, others are further seeds."""
    from_scratch: bool = False
    """Random initialisation instead of a cut."""
    source: str = ""
    """The larger student that this one is cut from, MEMBER@FINGERPRINT; empty: the teacher."""
    tokens: int | None = None
    """Training tokens, where they are not the plan's."""

    def directory_name(self, planned: int) -> str:
        """Name of its directory, where the plan has so many tokens; the same training, the same
        name."""
        shape = _in_file_names(self.architecture)
        kind = "scratch" if self.from_scratch else f"from-{self.source}" if self.source else "cut"
        return f"{shape}-{kind}-seed{self.shuffle}-{self.tokens or planned}"

    def __str__(self) -> str:
        seed = f" seed {self.shuffle}" if self.shuffle else ""
        cut = f" cut from {self.source.partition(MEMBER_SEPARATOR)[0]}" if self.source else ""
        return f"{self.role}{seed} {self.architecture}{cut}"


def _in_file_names(shape: Architecture) -> str:
    """The sizes; of a per-layer architecture a fingerprint of them, since text of many layers is
    longer than names of files may be."""
    if shape.per_layer:
        span = "-span" if shape.contiguous else ""
        return f"L{shape.layers}{span}-H{shape.hidden}-layers-{fingerprint(shape.to_dict())}"
    return str(shape).replace(" ", "-").replace("/", "-")


@dataclass(frozen=True, kw_only=True)
class FullResult(RunResult):
    """A finished full run."""

    run: FullRun
    """The student that it distilled."""
    directory: Path
    """Where it is in the workspace."""

    @property
    def model(self) -> Path:
        """Checkpoint of the student."""
        return self.directory / MODEL


def _nobody(label: str, result: "FullResult | None") -> None:
    """Where none is to be told."""


@dataclass(frozen=True, kw_only=True)
class FullPlan:
    """How full runs are run."""

    assets: SearchAssets
    """What they read, and what students are cut out of where no larger one is named."""
    limits: RunLimits
    """Of a full run, evaluated at even distances; its checkpoint has a directory of its own below
    `checkpoints`."""
    directory: Path
    """Where finished runs are."""
    checkpoints: Path
    """Directory of the checkpoints of all runs."""
    dtype: str
    """Type in which students are written, as torch names it."""
    room: Room
    """How many run at once, with which resources."""
    access: WorkspaceAccess | None = None
    """How workers on other nodes reach the workspace."""
    errors: Path | None = None
    """Where Ray's own words about failures are kept."""
    expected: int = 0
    """Runs that the last stage has at most, where that is known."""
    words: Callable[[float | None], str] = left_in_words
    """Ends a line with how long the study still takes, where its full runs take so many seconds."""
    sources: Mapping[str, Path] = field(default_factory=dict)
    """Sorted students that smaller ones may be cut from, by name."""
    study: str = ""
    """Name of the study, for metrics."""
    ended: Callable[[str, "FullResult | None"], None] = _nobody
    """Told of each run at its end by its label, with its result, or None where it diverged."""

    @property
    def tokens(self) -> int:
        """Training tokens of a full run."""
        return self.limits.tokens

    def tokens_of(self, run: FullRun) -> int:
        """Training tokens of this run."""
        return run.tokens or self.tokens

    def output(self, run: FullRun) -> Path:
        """Directory of a finished run."""
        return self.directory / run.directory_name(self.tokens)

    def failure(self, run: FullRun) -> Path:
        """File that says why a run cannot be finished."""
        return self.directory / f"{run.directory_name(self.tokens)}.failed"

    def checkpoint(self, run: FullRun) -> Path:
        """Directory of a run's checkpoint."""
        return self.checkpoints / f"full-{run.directory_name(self.tokens)}"

    def label(self, run: FullRun) -> str:
        """Readable name of a run."""
        return f"{self.kind(run)} {run}"

    def kind(self, run: FullRun) -> str:
        """Short for a run of fewer tokens than a full one."""
        return "short" if run.tokens is not None and run.tokens < self.tokens else "full"

    def job(self, run: FullRun) -> Job:
        """Job of the run's worker."""
        return Job(
            name=self.label(run),
            architecture=run.architecture,
            limits=self._limits(run),
            shuffle=run.shuffle,
            from_scratch=run.from_scratch,
        )

    def _limits(self, run: FullRun) -> RunLimits:
        """Evaluated as often as a full run; a shorter one at its end only."""
        tokens, reports = self.tokens_of(run), self.limits.reports
        assert isinstance(reports, int), "full runs are evaluated at even distances"
        reports = reports * (tokens // self.tokens) or 1
        return replace(self.limits, tokens=tokens, reports=reports, checkpoint=self.checkpoint(run))

    def assets_of(self, run: FullRun) -> SearchAssets:
        """The assets of a run, with the larger student that it is cut from, if any."""
        if not run.source:
            return self.assets
        return replace(self.assets, sorted_teacher=self.sources[run.source])


def uncorrected(plan: FullPlan, assets: SearchAssets | None = None) -> FullPlan:
    """The same for runs from the teacher as the user gave it, which are kept apart."""
    return replace(
        plan,
        assets=assets or plan.assets,
        directory=plan.directory / "uncorrected",
        checkpoints=plan.checkpoints / "uncorrected",
    )


def load_result(run: FullRun, plan: FullPlan) -> FullResult | None:
    """A finished run from the workspace, or None; one that cannot be read is none.

    Raises DistillError where a newer version of this code wrote it.
    """
    directory = plan.output(run)
    result = RunResult.read(directory)
    if result is None:
        return None
    return FullResult(run=run, directory=directory, **vars(result))


def load_failure(run: FullRun, plan: FullPlan) -> str | None:
    """Why a run cannot be finished, if it is known."""
    try:
        return plan.failure(run).read_text()
    except OSError:
        return None


def missing(runs: Sequence[FullRun], plan: FullPlan) -> list[FullRun]:
    """The runs that are neither finished nor known to fail, each training once."""
    by_name = {run.directory_name(plan.tokens): run for run in reversed(runs)}
    return [
        run
        for run in reversed(by_name.values())
        if load_result(run, plan) is None and load_failure(run, plan) is None
    ]


def delete_taken_over(shapes: Iterable[Architecture], plan: FullPlan) -> None:
    """Delete what trials of these architectures wrote, which no full run will be."""
    for shape in shapes:
        result = load_result(FullRun("", shape), plan)
        if result is not None and result.from_trial:
            shutil.rmtree(result.directory, ignore_errors=True)
