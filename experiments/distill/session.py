"""Session of one distillation, stage by stage, on one process or on many workers.

Corpus, corrected teacher, targets, warm start, training: each stage leaves a directory named after
all that it depends on, so that the same command goes on after whatever stopped it.
"""

import json
import logging
import shutil
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers.utils.logging import disable_progress_bar

from common.files import sweep, write_file_atomically
from common.fingerprint import fingerprint
from common.machine import Machine
from common.progress import tell
from common.signals import parent_watch
from distill import Corpus
from distill.backend import ALONE, World, load
from distill.recipes import Assets, BlockwiseSettings, RunResult, StudentRun, find_rate
from distill.targets import SHARD_BLOCKS, TargetFormat
from distill.train import RunLimits
from experiments.distill.config import DistillConfig
from experiments.distill.inputs import RUN_FACTS, DistillInputs
from experiments.distill.outcome import STUDENT, Outcome
from experiments.distill.plan import DistillPlan
from experiments.distill.workers import WorkerGroup
from search.cluster import ray_for_workers
from search.database import locked
from search.results import write_copy_card
from workspace.corpus_and_targets import SELECTION, TEST, TRAIN, SplitTargets, TargetNeeds
from workspace.corrected_teacher import TeacherCorrection
from workspace.layout import Workspace
from workspace.models import LoadedModel, ModelSource, write_copies
from workspace.publishing import check_target, publish
from workspace.warm_start import WarmStart

LOGGER = logging.getLogger(__name__)
RESULT = "distill.json"
"""In the directory of a run that is finished: what came of it."""
RANGE_RUN = "range_run.json"
"""The peak learning rate that a range run chose, and its curve."""
TRAINED, CHECKPOINT = "trained", "checkpoint"
"""Folders that are deleted once the student is in its place."""


def run_distill(config: DistillConfig) -> dict[str, Any]:
    """Distil, or go on; returns what distill.json holds. With `config.plan` it prints what the run
    takes instead, and returns nothing.

    Raises:
        SearchError, PruningError, DistillError: The user can mend it; nothing was started.
        TrainingDiverged: The loss is not finite.
        SearchStopped: Workers keep being lost.
    """
    disable_progress_bar()
    if config.plan:
        DistillPlan.of(config).plan().shown()
        return {}
    if config.push_to_hub is not None:
        check_target(config.push_to_hub, option="--push_to_hub")
    workspace = Workspace(config.output.expanduser().absolute(), "--output")
    Machine.here().keep_to_quota()
    inputs = DistillInputs.read(config, workspace)
    if not (workspace.root / RUN_FACTS).exists():
        LOGGER.info("models: loading")
        tell(LOGGER, work="loading of the models")
        inputs.student.load(torch.device("cpu"), inputs.student.dtype_in("file"))
        inputs.model()
    workspace.make()
    with locked(workspace.root):
        inputs.require_same_run(workspace.root)
        sweep(workspace.root)
        corpus = inputs.packed(workspace.root)
        inputs.require_same_run(workspace.root, corpus)
        result, student = workspace.root / RESULT, workspace.root / STUDENT
        if result.exists() and (student / "config.json").exists():
            LOGGER.info(f"the run is finished; nothing is trained again; its student: {student}")
            known: dict[str, Any] = json.loads(result.read_text())
            _pass_on(inputs, student)
            return known
        facts = _Session(inputs, workspace, corpus).run()
        write_file_atomically(result, json.dumps(facts, indent=2))
        for name in (TRAINED, CHECKPOINT):
            shutil.rmtree(workspace.root / name, ignore_errors=True)
        _pass_on(inputs, workspace.root / STUDENT)
        return facts


def _pass_on(inputs: DistillInputs, student: Path) -> None:
    """Write copies of the student, and upload it, where that is asked for."""
    card = partial(write_copy_card, student=student, name=str(student))
    write_copies(student, inputs.config.export, card, part=inputs.teacher.part)
    if inputs.config.push_to_hub is not None:
        publish(student, inputs.config.push_to_hub)


@dataclass(frozen=True)
class _Session:
    """One start of a run, from its corpus to its result."""

    inputs: DistillInputs
    workspace: Workspace
    corpus: Corpus

    def run(self) -> dict[str, Any]:
        """All stages; returns what distill.json holds."""
        for line in self.inputs.opening_lines():
            LOGGER.info(line)
        model = self._correction.corrected(self.inputs.model, self.workspace)
        targets = self._targets(model.source)
        for split in targets.values():
            split.stored(model)
        self.inputs.note_run(self.workspace.root, self.corpus)
        start = self._warm_started(model)
        model.release()  # the memory is the student's now
        run = self._student_run(start, targets, teacher=model.source)
        if RunResult.read(run.output) is None:
            self._train(self._with_range_rate(run))
        tell(LOGGER, over="", work="test")
        outcome = Outcome(
            self.inputs, self.corpus, model.source, targets[TEST].directory, run.output
        )
        return outcome.placed(self.workspace.root / STUDENT)

    @property
    def _correction(self) -> TeacherCorrection:
        config = self.inputs.config
        return TeacherCorrection(
            settings=config.correction,
            training=self.inputs.training,
            corpus=self.corpus,
            seed=config.seed,
            checkpoint_seconds=config.checkpoint_seconds,
        )

    def _targets(self, teacher: ModelSource) -> dict[str, SplitTargets]:
        """The targets of `teacher` by split, without training where it is live or not asked."""
        config, inputs = self.inputs.config, self.inputs
        provenance = {"teacher": teacher.weights_fingerprint(), "corpus": self.corpus.digest}
        provenance |= inputs.precision_part

        def directory_of(split: str, target_format: TargetFormat) -> Path:
            drawn = [config.seed] if split == TRAIN else []
            name = fingerprint(provenance, asdict(target_format), SHARD_BLOCKS, *drawn)
            return self.workspace.targets(split, name)

        needs = TargetNeeds(
            training=inputs.training,
            vocabulary=inputs.vocabulary,
            tokens=max(config.tokens, inputs.range_tokens),
            limit_gb=config.targets_gb,
            seed=config.seed,
        )
        return needs.plan(self.corpus, directory_of, provenance=provenance)

    def _warm_started(self, model: LoadedModel) -> Path:
        """The student's start: as it is, or after block-wise distillation."""
        inputs, config = self.inputs, self.inputs.config
        wanted = config.warm_start
        if not wanted.tokens:
            return inputs.student.directory
        teacher = model.source.weights_fingerprint()
        name = fingerprint(inputs.parts, self.corpus.digest, teacher)
        warm_start = WarmStart(
            student=inputs.student,
            settings=BlockwiseSettings(
                wanted.tokens,
                wanted.learning_rate,
                inputs.training.batch,
                precision=inputs.training.precision,
            ),
            corpus=self.corpus,
            seed=config.seed,
            checkpoint_seconds=config.checkpoint_seconds,
        )
        return warm_start.written(model, self.workspace.warm_start(name))

    def _student_run(
        self, start: Path, targets: dict[str, SplitTargets], *, teacher: ModelSource
    ) -> StudentRun:
        config, inputs, root = self.inputs.config, self.inputs, self.workspace.root
        return StudentRun(
            student=start.absolute(),  # workers have another current directory
            assets=Assets(
                corpus=self.corpus.directory,
                training_targets=targets[TRAIN].directory if TRAIN in targets else None,
                selection_targets=targets[SELECTION].directory,
                test_targets=targets[TEST].directory,
                teacher=teacher.directory.absolute(),
                vocabulary=inputs.vocabulary,
                training=inputs.training,
                seed=config.seed,
                device=str(inputs.device),
                teacher_dtype=str(inputs.teacher_dtype).removeprefix("torch."),
            ),
            limits=RunLimits(
                config.tokens, config.reports, root / CHECKPOINT, config.checkpoint_seconds
            ),
            plateau=config.plateau,
            output=root / TRAINED,
            dtype=str(inputs.student.dtype).removeprefix("torch."),
            states=config.states if config.match_states else None,
            log=root,
            wandb=config.wandb,
            log_to=tuple(config.log_to),
            teacher_device=config.teacher_device,
        )

    def _with_range_rate(self, run: StudentRun) -> StudentRun:
        """With the peak rate that a range run chose, now or before, where one is wanted."""
        steps, device = self.inputs.config.range_steps, self.inputs.device
        if not steps:
            return run
        note = self.workspace.root / RANGE_RUN
        if not note.exists():
            student = load(run.student, torch.float32).to(device)
            data, training = run.data(device), run.assets.training
            outcome = find_rate(student, data, training=training, steps=steps)
            write_file_atomically(note, json.dumps(asdict(outcome)))
        rate = json.loads(note.read_text())["rate"]
        LOGGER.info(f"range run: the peak learning rate is {rate:.2g}")
        training = replace(run.assets.training, learning_rate=rate)
        return replace(run, assets=replace(run.assets, training=training))

    def _train(self, run: StudentRun) -> None:
        """To the end, in this process or by workers."""
        workers, device = self.inputs.config.workers, self.inputs.device
        tell(LOGGER, work="distillation")
        if workers.count == 1:
            if workers.cpus:
                torch.set_num_threads(workers.cpus)
            run.train(ALONE, str(device))
            return
        gpus = 1.0 if device.type == "cuda" else 0.0
        with ray_for_workers(
            workers.count, workers.cpus, gpus=gpus, address=workers.address
        ) as cpus:
            smaller = run.assets.training.smaller
            group = WorkerGroup(workers.count, cpus, gpus, workers.retries, smaller)
            group.run(partial(_train_on_worker, run), self.workspace)
        shutil.rmtree(self.workspace.ray, ignore_errors=True)


def _train_on_worker(run: StudentRun, world: World, device: str) -> None:
    run.train(world, device, before_save=parent_watch())
