"""Distil a student that there is, stage by stage, on one process or on many workers.

Corpus, corrected teacher, targets, warm start, training: each stage leaves a directory named after
all that it depends on, so that the same command goes on after whatever stopped it.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distill import (
    Corpus,
    Evaluation,
    Targets,
    evaluation_format,
    teacher_cross_entropy,
)
from distill.assets import Assets
from distill.atomic import sweep, write_directory_atomically, write_file_atomically
from distill.blockwise import BlockwiseSettings
from distill.limits import RunLimits
from distill.loading import load
from distill.parallel import ALONE, World
from distill.range_run import find_rate
from distill.reports import RunResult, points_to_json
from distill.stages import TargetSpace, read_blocks, stored_targets, training_format
from distill.student_run import StudentRun
from distill.targets import SHARD_BLOCKS, TargetFormat, TargetRequest
from search.candidate import parent_watch
from search.card import write_distilled_card
from search.correcting import Correcting, correction_facts
from search.distill_config import DistillConfig
from search.distill_inputs import RUN_FACTS, DistillInputs
from search.distributed import run_on_workers
from search.lease import locked
from search.machine import Machine
from search.model_card import Origin, shown_name
from search.proof import require_copied, written_line
from search.ray_session import ray_for_workers
from search.results import test_student
from search.statistics import mean_interval
from search.student import block_map
from search.student_folder import place_student
from search.warm_start import warm_started
from search.workspace import Workspace, fingerprint

RESULT = "distill.json"
STUDENT, TRAINED, CHECKPOINT = "student", "trained", "checkpoint"


def run_distill(config: DistillConfig, say: Callable[[str], None]) -> dict[str, Any]:
    """Distil, or go on; returns what distill.json holds.

    Raises SearchError, PruningError or DistillError for what the user can mend before anything
    started, TrainingDiverged for a loss that is not finite, and SearchStopped where workers keep
    being lost.
    """
    workspace = Workspace(config.output.expanduser().absolute(), "--output")
    Machine.here().keep_to_quota(say)
    inputs = DistillInputs.read(config, workspace)
    if not (workspace.root / RUN_FACTS).exists():
        say("models: loading")
        inputs.student.load(torch.device("cpu"), inputs.student.dtype_in("file"))
        inputs.model()
    workspace.make()
    with locked(workspace.root):
        inputs.require_same_run(workspace.root)
        result = workspace.root / RESULT
        if result.exists() and (workspace.root / STUDENT / "config.json").exists():
            say("the run is finished; nothing is trained again")
            known: dict[str, Any] = json.loads(result.read_text())
            return known
        sweep(workspace.root)
        corpus = inputs.packed(workspace.root, say)
        inputs.require_same_run(workspace.root, corpus)
        found = _Session(inputs, workspace, corpus, say).run()
        write_file_atomically(result, json.dumps(found, indent=2))
        for name in (TRAINED, CHECKPOINT):
            shutil.rmtree(workspace.root / name, ignore_errors=True)
        return found


class _Session:
    """One start of a run, from its corpus to its result."""

    def __init__(
        self,
        inputs: DistillInputs,
        workspace: Workspace,
        corpus: Corpus,
        say: Callable[[str], None],
    ):
        self.inputs, self.config, self.corpus = inputs, inputs.config, corpus
        self.workspace, self.root, self.say = workspace, workspace.root, say
        self.teacher, self.device = inputs.teacher, inputs.device
        self.model = inputs.model

    def run(self) -> dict[str, Any]:
        inputs, config = self.inputs, self.config
        for line in inputs.opening_lines():
            self.say(line)
        correcting = Correcting(
            config.correction,
            inputs.training,
            self.corpus,
            self.corpus.digest,
            config.seed,
            inputs.precision,
            self.device,
            config.checkpoint_seconds,
        )
        if config.correction.tokens:  # the corrected one takes its place
            self.model.release()
            self.teacher = correcting.teacher(self.teacher, self.workspace, self.say)
            self.model = self.model.like(self.teacher)
        targets = self._targets()
        inputs.note_run(self.root, self.corpus)
        run = self._student_run(self._warm_started(), targets)
        self.model.release()  # the memory is the student's now
        if RunResult.read(run.output) is None:
            self._train(self._with_found_rate(run))
        return self._finish(run, targets["test"])

    def _student_run(self, start: Path, targets: dict[str, Path]) -> StudentRun:
        config, inputs = self.config, self.inputs
        return StudentRun(
            student=start.absolute(),  # workers have another current directory
            assets=Assets(
                corpus=self.corpus.directory,
                training_targets=targets.get("train"),
                selection_targets=targets["selection"],
                test_targets=targets["test"],
                teacher=self.teacher.directory.absolute(),
                vocabulary=inputs.vocabulary,
                training=inputs.training,
                seed=config.seed,
                device=str(self.device),
                precision=inputs.precision,
                teacher_dtype=str(inputs.teacher_dtype).removeprefix("torch."),
            ),
            limits=RunLimits(
                config.tokens, config.reports, self.root / CHECKPOINT, config.checkpoint_seconds
            ),
            plateau=config.plateau,
            output=self.root / TRAINED,
            dtype=str(inputs.student.dtype).removeprefix("torch."),
            states=config.states if config.match_states else None,
            log=self.root,
            wandb=config.wandb,
            teacher_device=config.teacher_device,
        )

    def _targets(self) -> dict[str, Path]:
        """Directories by split; without training where the teacher is live or not asked."""
        config, inputs, vocabulary = self.config, self.inputs, self.inputs.vocabulary
        made_of = {"teacher": self.teacher.weights_fingerprint(), "corpus": self.corpus.digest}
        made_of |= self.teacher.precision_part(config.teacher_precision)
        found: dict[str, Path] = {}
        taken = 0

        def store(split: str, blocks: Any, form: TargetFormat, *more: Any) -> None:
            name = fingerprint(made_of, asdict(form), SHARD_BLOCKS, *more)
            found[split] = self.workspace.targets(split, name)
            request = TargetRequest(blocks, form, found[split], made_of)
            stored_targets(self.model, request, split=split, say=self.say)

        trial_tokens = config.range_steps * inputs.training.batch * self.corpus.block
        tokens = max(config.tokens, trial_tokens)
        read = read_blocks(self.corpus, tokens, batch=inputs.training.batch, seed=config.seed)
        scored = evaluation_format(vocabulary)
        for split in ("selection", "test"):
            taken += self.corpus.blocks(split).size * scored.bytes_per_token
        form = training_format(
            inputs.training,
            vocabulary,
            tokens=len(read) * self.corpus.block,
            space=TargetSpace(config.targets_gb, taken),
            seed=config.seed,
        )
        for split in ("selection", "test"):
            store(split, self.corpus.blocks(split), scored)
        if form is not None:
            store("train", read, form, config.seed)
        return found

    def _warm_started(self) -> Path:
        """The student's start: as it is, or after block-wise distillation."""
        wanted, student = self.config.warm_start, self.inputs.student
        if not wanted.tokens:
            return student.directory
        name = fingerprint(
            self.inputs.parts, self.corpus.digest, self.teacher.weights_fingerprint()
        )
        batch = self.inputs.training.batch
        return warm_started(
            student.directory,
            self.model,
            block_map(student),
            self.corpus.blocks("train"),
            BlockwiseSettings(
                wanted.tokens, wanted.learning_rate, batch, precision=self.inputs.precision
            ),
            self.config.seed,
            self.device,
            self.root / f"warm-{name}",
            self.config.checkpoint_seconds,
            self.say,
        )

    def _with_found_rate(self, run: StudentRun) -> StudentRun:
        """With the peak rate that a range run chose, now or before, where one is wanted."""
        if not self.config.range_steps:
            return run
        note = self.root / "range_run.json"
        if not note.exists():
            student = load(run.student, torch.float32).to(self.device)
            found = find_rate(
                student,
                run.data(self.device),
                training=run.assets.training,
                steps=self.config.range_steps,
                say=self.say,
            )
            write_file_atomically(note, json.dumps(asdict(found)))
        rate = json.loads(note.read_text())["rate"]
        self.say(f"range run: the peak learning rate is {rate:.2g}")
        training = replace(run.assets.training, learning_rate=rate)
        return replace(run, assets=replace(run.assets, training=training))

    def _train(self, run: StudentRun) -> None:
        workers = self.config.workers
        if workers.count == 1:
            if workers.cpus:
                torch.set_num_threads(workers.cpus)
            run.train(ALONE, str(self.device), say=self.say)
        else:
            gpus = 1.0 if self.device.type == "cuda" else 0.0
            with ray_for_workers(
                workers.count, workers.cpus, gpus=gpus, address=workers.address
            ) as cpus:
                run_on_workers(
                    partial(_train_on_worker, run),
                    workers.count,
                    cpus,
                    gpus,
                    self.root / "ray",
                    self.root.name,
                    workers.retries,
                    self.say,
                )
            shutil.rmtree(self.root / "ray", ignore_errors=True)

    def _finish(self, run: StudentRun, targets: Path) -> dict[str, Any]:
        """Measure start and end on the test split, and put the student in its place."""
        trained = RunResult.read(run.output)
        assert trained is not None, "training wrote it"
        before = self._measured(self.inputs.student.directory, targets)
        after = self._measured(run.output / "model", targets)
        blocks, weights = self.corpus.blocks("test"), self.corpus.weights("test")
        teacher = teacher_cross_entropy(Targets(targets), len(blocks), weights)
        found = {
            "teacher": {
                "name": shown_name(self.config.teacher),
                "parameters": self.inputs.teacher.parameters,
                "test_ce": mean_interval([teacher]).to_dict(),
                "correction": correction_facts(self.teacher.directory),
            },
            "student": {
                "name": shown_name(self.config.student),
                "parameters": self.inputs.student.parameters,
            },
            "before": shown(before),
            "after": shown(after),
            "tokens": trained.tokens,
            "seconds": round(trained.seconds, 1),
            "workers": self.config.workers.count,
            "curve": points_to_json(trained.curve),
            "settings": self.inputs.parts,
        }
        write_directory_atomically(
            self.root / STUDENT, partial(self._place, run.output / "model", found, trained)
        )
        for name in ("kl", "ce", "top1_agreement"):
            old, new = np.mean(getattr(before, name)), mean_interval([getattr(after, name)])
            self.say(f"test {name}: {old:.4f} -> {new}")
        self.say(f"student: {self.root / STUDENT}")
        return found

    def _place(
        self, model: Path, found: dict[str, Any], trained: RunResult, directory: Path
    ) -> None:
        """Put the trained student there, with proof that it is loaded as it was measured."""
        config, student, teacher = self.config, self.inputs.student, self.inputs.teacher
        place_student(model, student, directory, teacher)
        models = {config.student: student.directory, config.teacher: teacher.directory}
        write_distilled_card(directory, found, Origin.of(models, config.corpus))
        block = self.corpus.blocks("selection")[0]
        differing = require_copied(directory, model, block, trained.answers)
        self.say(written_line("the student", differing))

    def _measured(self, model: Path, targets: Path) -> Evaluation:
        return test_student(model, self.corpus, targets, str(self.device))


def shown(evaluation: Evaluation) -> dict[str, Any]:
    """Means with their intervals over sequences; one seed ran."""
    return {
        name: mean_interval([getattr(evaluation, name)]).to_dict() for name in evaluation.means()
    }


def _train_on_worker(
    run: StudentRun, world: World, device: str, say: Callable[[str], None]
) -> None:
    run.train(world, device, say=say, before_save=parent_watch())
