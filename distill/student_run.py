"""Two models of the user's own, from the student's first step to its written checkpoint.

Everything is named by paths and values, so that any process can take a run up.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from distill.callbacks import RunCallbacks
from distill.checkpoint import write_directory_atomically
from distill.data.corpus import Corpus
from distill.evaluation import HeldOut
from distill.limits import RunLimits
from distill.live import LiveTeacher
from distill.losses import CROSS_ENTROPY
from distill.metrics import MetricLog
from distill.parallel import ALONE, World
from distill.products import with_fast_products
from distill.run import ResumableRun
from distill.settings import ResolvedTraining, TrainingSettings
from distill.states import StateSettings
from distill.targets import Targets
from distill.training import Distillation, TrainingData
from distill.writing import write_model


@dataclass(frozen=True)
class StudentRun:
    """One student, its teacher's answers, and where everything goes."""

    student: Path
    """Checkpoint that the run starts from."""
    teacher: Path
    """Loaded only where no targets are stored."""
    corpus: Path
    training_targets: Path | None
    """None where the teacher runs beside the student, or nothing is asked of it."""
    selection_targets: Path
    training: ResolvedTraining
    seed: int
    precision: str
    limits: RunLimits
    output: Path
    """Directory of the written student and what was measured on the way."""
    dtype: str
    """Type in which the student is written, as torch names it."""
    vocabulary: int
    """Tokens that both models know."""
    plateau: int | None = None
    """End after so many evaluations in a row without a better KL; None: never early."""
    states: StateSettings | None = None
    log: Path | None = None
    """Directory of metrics.jsonl and TensorBoard files."""
    wandb: str | None = None
    teacher_device: str | None = None
    """Of a teacher beside the student; by default the student's."""
    teacher_dtype: str = "float32"
    """Type that a teacher beside the student is held in, as torch names it; in bf16 training
    bfloat16."""

    def train(
        self,
        world: World = ALONE,
        device: str = "cpu",
        say: Callable[[str], None] = print,
        before_save: Callable[[], None] = lambda: None,
    ) -> None:
        """Train to the end, from the checkpoint where there is one, and write the student.

        `before_save` may refuse a checkpoint by an exception. All processes of `world` must call
        it. Raises what `Distillation` raises.
        """
        place: Any = torch.device(device)
        log = None
        if self.log is not None and world.first:
            log = MetricLog(self.log, self.wandb, self.output.parent.name)

        def start() -> Distillation:
            student: Any = load(self.student, torch.float32)
            return Distillation(
                student.to(place),
                replace(self.data(place), states=self.states),
                training=self.training,
                tokens=self.limits.tokens,
                world=world,
            )

        try:
            run = ResumableRun(
                start,
                self.limits,
                selection=HeldOut.of(Corpus(self.corpus), "selection", self.selection_targets),
                callbacks=RunCallbacks(say if world.first else lambda line: None, log, before_save),
                plateau=self.plateau,
            )
            result = run.result()
            while not result["done"]:
                result = run.next_report()
            selection = run.selection or run.evaluate()
        finally:
            if log is not None:
                log.close()
        self._write(run, result | {"selection": selection.to_dict()}, world)

    def data(self, device: torch.device) -> TrainingData:
        return training_data(
            Corpus(self.corpus),
            self.training_targets,
            self.teacher,
            self.vocabulary,
            self.training,
            self.precision,
            torch.device(self.teacher_device or device),
            self.seed,
            self.states is not None,
            getattr(torch, self.teacher_dtype),
        )

    def _write(self, run: ResumableRun, result: dict[str, Any], world: World) -> None:
        student = run.distillation.student
        block = run.held_out.blocks[0]
        weights, answers = run.distillation.as_written(getattr(torch, self.dtype), block)
        if not world.first:
            return

        def fill(directory: Path) -> None:
            write_model(student, weights, directory / "model")
            (directory / "done.json").write_text(json.dumps(result | {"answers": answers}))

        write_directory_atomically(self.output, fill)


def training_data(
    corpus: Corpus,
    stored: Path | None,
    teacher: Path,
    vocabulary: int,
    training: TrainingSettings,
    precision: str,
    teacher_device: torch.device,
    seed: int,
    states: bool = False,
    teacher_dtype: torch.dtype = torch.float32,
) -> TrainingData:
    """What a run reads: stored targets, or else a teacher beside it where anything is asked of one.

    `states` says that its hidden states are. `teacher_dtype` is that of `live_teacher`.
    """
    targets: Targets | LiveTeacher | None = None
    if stored is not None:
        targets = Targets(stored)
    elif training.loss != CROSS_ENTROPY or states:
        targets = live_teacher(
            teacher, vocabulary, training.temperature, precision, teacher_device, teacher_dtype
        )
    return TrainingData(corpus.blocks("train"), targets, seed, corpus.weights("train"))


def load(directory: Path, dtype: torch.dtype | str, **options: Any) -> Any:
    """A stock causal LM for evaluation, in `dtype` or, for "auto", in the type of its file;
    `options` are those of `from_pretrained`."""
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        directory, dtype=dtype, trust_remote_code=False, **options
    )
    return loaded.eval()


def live_teacher(
    directory: Path,
    vocabulary: int,
    temperature: float,
    precision: str,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> LiveTeacher:
    """A teacher to run beside a student, in the type that it computes in: bf16, or else `dtype`."""
    model = load(directory, torch.bfloat16 if precision == "bf16" else dtype)
    model = with_fast_products(model.to(device))
    return LiveTeacher(model, vocabulary, temperature, precision)
