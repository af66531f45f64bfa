"""What a study computes once: corrected teacher, sorted teacher and targets."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from common.files import free_bytes
from common.fingerprint import fingerprint
from distill import Corpus
from distill.targets import SHARD_BLOCKS, TargetFormat, shown_bytes
from distill.train import ResolvedTraining
from search.finals.outlook import LastRuns
from search.inputs.inputs import Inputs
from search.plan.disk import StudyDisk
from search.workers.candidate import SearchAssets
from workspace.corpus_and_targets import SELECTION, TEST, TRAIN, SplitTargets, TargetNeeds
from workspace.corrected_teacher import TeacherCorrection
from workspace.layout import Workspace
from workspace.models import LoadedModel, ModelSource
from workspace.pieces import Compute, Piece, compute_here
from workspace.sorted_teacher import SortedTeacher
from workspace.sorting import Sorter

LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Preparation:
    """Computes what is missing in the workspace, and says what it does."""

    inputs: Inputs
    """What the study starts from."""
    training: ResolvedTraining
    """How students learn."""
    workspace: Workspace
    """Where everything is kept."""
    corpus: Corpus
    """The packed text."""
    concurrent: int
    """Trials at once, each of which keeps a checkpoint."""
    correct: bool = True
    """False leaves the teacher as it is, whatever the configuration says."""
    compute: Compute = compute_here
    """What computes importance and targets piece by piece."""

    def check(self) -> None:
        """Say what the study takes of the disk. Raises DistillError where targets do not fit their
        limit, SearchError where the disk has not enough left."""
        self._log_disk(self._targets(self.inputs.teacher))

    def run(self) -> SearchAssets:
        """All that the runs read, computed or found."""
        model = self.inputs.model
        if self.correct:
            model = self._correction.corrected(model, self.workspace)
        teacher = model.source
        targets = self._targets(teacher)
        sorted_teacher = self._computed(model, list(targets.values()))
        model.release()  # the memory is the trials' now
        return SearchAssets(
            sorted_teacher=sorted_teacher.directory,
            teacher=teacher.directory.absolute(),
            vocabulary=self.inputs.teacher.config.vocab_size,
            corpus=self.corpus.directory,
            training_targets=targets[TRAIN].directory if TRAIN in targets else None,
            selection_targets=targets[SELECTION].directory,
            test_targets=targets[TEST].directory,
            training=self.training,
            seed=self.inputs.config.seed,
            device=str(self.inputs.device),
            teacher_dtype=str(self.inputs.teacher_dtype).removeprefix("torch."),
        )

    def _computed(self, model: LoadedModel, targets: Sequence[SplitTargets]) -> SortedTeacher:
        """The sorted teacher, beside the targets, which are all there then."""
        compute = self.compute
        missing = [piece for split in targets for piece in split.pieces()]

        def together(model: LoadedModel, pieces: Sequence[Piece]) -> None:
            compute(model, [*pieces, *missing])  # so that nobody waits for the last of the pieces
            missing.clear()

        sorted_teacher = self._sorter.sorted(model, "teacher", together)
        compute(model, missing)  # where it was sorted before
        return sorted_teacher

    def sorted_student(self, directory: Path, name: str) -> SortedTeacher:
        """A finished student, sorted, for smaller ones to be cut from."""
        model = self.inputs.model.like(ModelSource(directory))
        return self._sorter.sorted(model, f"member {name}", self.compute)

    @property
    def _correction(self) -> TeacherCorrection:
        config = self.inputs.config
        return TeacherCorrection(
            settings=config.correction,
            training=self.training,
            corpus=self.corpus,
            seed=config.seed,
            checkpoint_seconds=config.checkpoint_seconds,
        )

    @property
    def _sorter(self) -> Sorter:
        config, members = self.inputs.config, self.inputs.members
        return Sorter(
            settings=config.importance.settings,
            corpus=self.corpus,
            calibration=config.calibration_sequences,
            spans=any(1 in member.space.choices["contiguous"] for member in members),
            seed=config.seed,
            serve_with=tuple(config.serve_with),
            workspace=self.workspace,
            precision=self.inputs.precision_part,
        )

    def _targets(self, teacher: ModelSource) -> dict[str, SplitTargets]:
        """The targets of `teacher` by split, without training where it is live."""
        config = self.inputs.config
        answers = "-".join([teacher.weights_fingerprint(), *self.inputs.precision_part.values()])

        def directory_of(split: str, target_format: TargetFormat) -> Path:
            drawn = [config.seed] if split == TRAIN else []
            name = fingerprint(
                answers, self.corpus.digest, asdict(target_format), *drawn, SHARD_BLOCKS
            )
            return self.workspace.targets(split, name)

        needs = TargetNeeds(
            training=self.training,
            vocabulary=self.inputs.teacher.config.vocab_size,
            tokens=max(config.full_tokens, config.scratch_tokens or 0),
            limit_gb=config.targets_gb,
            seed=config.seed,
        )
        return needs.plan(self.corpus, directory_of)

    def _log_disk(self, planned: dict[str, SplitTargets]) -> None:
        """Raises SearchError where the disk has not enough left for the study."""
        outline = self.inputs.outline(self.training)
        staged = len(self.inputs.members) > 1
        disk = StudyDisk.of(
            outline,
            LastRuns.of(self.inputs.config, outline.step_tokens, staged=staged),
            targets=sum(split.bytes for split in planned.values()),
            concurrent=self.concurrent,
        )
        LOGGER.info(f"{disk}; {shown_bytes(free_bytes(self.workspace.root))} are free")
        self.workspace.require_space(int(disk.total) - self.workspace.used())
