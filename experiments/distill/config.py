"""Configuration of run_distill.py. The docstring of a field is its `--help`."""

from dataclasses import dataclass, field
from pathlib import Path

from common.bounds import (
    ABOVE_ZERO,
    NOT_NEGATIVE,
    ONE_OR_MORE,
    at_least,
    between,
    bounded,
    check_bounds,
    one_of,
)
from common.errors import require
from common.trackers import check_names
from common.values import check_values
from distill.data import CorpusFiles, CorpusFrom, SplitSizes
from distill.loss import StateSettings
from distill.recipes import FEWEST_STEPS, CorrectionSettings
from distill.train import LIVE, TrainingSettings
from pruning.exports import check_forms
from search.config import PlannedMachine
from workspace.settings import DEVICES, MOST_REPORTS, SHORTEST_BLOCK, TEACHER_PRECISIONS


@dataclass(frozen=True)
class WarmStart:
    """Block-wise distillation before that on the logits (Puzzle, arXiv 2411.19146)."""

    tokens: int = bounded(0, NOT_NEGATIVE)
    """Training tokens; 0 does without. The student must have been cut from this teacher by
    run_prune.py, or be a trial."""
    learning_rate: float | None = bounded(None, ABOVE_ZERO)
    """Peak learning rate; by default it follows the student's size."""

    def __post_init__(self) -> None:
        check_bounds(self, "--warm_start.")


@dataclass(frozen=True)
class WorkerConfig:
    """Processes that train one student together (torch FSDP2 on Ray Train)."""

    count: int = bounded(1, ONE_OR_MORE)
    """How many; one works without Ray."""
    cpus: int | None = bounded(None, ONE_OR_MORE)
    """CPUs, and so threads, of each; by default all of the machine's, shared evenly."""
    address: str | None = None
    """Ray cluster to join, such as auto; by default a Ray of this machine alone."""
    retries: int = bounded(3, NOT_NEGATIVE)
    """How often lost workers are replaced before the run is given up."""

    def __post_init__(self) -> None:
        check_bounds(self, "--workers.")


@dataclass(frozen=True)
class DistillConfig:
    """One student: teacher, student, corpus and output are all that must be given."""

    teacher: str
    """A Hugging Face causal LM with its tokenizer: a directory or a Hub id. Of a multimodal model
    its text model is used."""
    student: str
    """A causal LM with the same tokens: a directory, a Hub id, or WORKSPACE:NUMBER for a trial of a
    search."""
    corpus: str | list[str]
    """A .txt, .jsonl, .jsonl.gz (field "text" or "messages") or .parquet file, a folder, or a Hub
    data set."""
    output: Path
    """Directory of everything: the trained student, metrics, checkpoints, targets."""
    tokens: int = bounded(2_000_000, at_least(1))
    """Training tokens."""
    training: TrainingSettings = field(default_factory=TrainingSettings)
    """How the student learns."""
    match_states: bool = False
    """Learn hidden states beside the logits; needs --training.targets live."""
    states: StateSettings = field(default_factory=StateSettings)
    """Which hidden states, and how, with --match_states."""
    correction: CorrectionSettings = field(default_factory=CorrectionSettings)
    """Fine-tuning of the teacher on the corpus before it teaches."""
    warm_start: WarmStart = field(default_factory=WarmStart)
    """Block-wise distillation first."""
    range_steps: int = bounded(0, NOT_NEGATIVE)
    """Steps of a learning-rate range run that chooses the peak rate; 0 does without."""
    plateau: int | None = bounded(None, at_least(1))
    """End after so many evaluations in a row without a better KL."""
    workers: WorkerConfig = field(default_factory=WorkerConfig)
    """Processes that train together."""
    export: list[str] = field(default_factory=list)
    """Copies of the student, in folders beside it (student-padded). Where its layers differ, for
    other software: padded, a stock checkpoint that saves nothing, and decilm, for vLLM, llama.cpp
    and mlx-lm, of types with Llama's blocks. Where the teacher is multimodal and the student has
    its hidden size: multimodal, the teacher with the student in the place of its text model."""
    push_to_hub: str | None = None
    """Name on the Hugging Face Hub, such as user/name, that the student is uploaded to at the end,
    privately. The token is that of HF_TOKEN or `hf auth login`."""
    device: str = bounded("auto", one_of(DEVICES))
    """cpu, cuda, or auto."""
    teacher_device: str | None = None
    """Device of a live teacher, such as cuda:1; by default the student's."""
    teacher_precision: str = bounded("file", one_of(TEACHER_PRECISIONS))
    """What the teacher is held and computes in: file (the type of its weights) or fp32 (which takes
    twice the memory of a 16-bit teacher)."""
    block: int | None = bounded(None, at_least(SHORTEST_BLOCK))
    """Tokens per sequence; by default the student's positions, at most 1024."""
    seed: int = bounded(0, NOT_NEGATIVE)
    """Fixes the order of the data."""
    assistant_only: bool = False
    """Learn and measure only what the assistant says in chats (rows with "messages"); plain texts
    count wholly."""
    splits: SplitSizes = field(default_factory=SplitSizes)
    """How much of the corpus is held out."""
    corpus_files: CorpusFiles = field(default_factory=CorpusFiles)
    """Which files of a folder are the corpus."""
    corpus_from: CorpusFrom = field(default_factory=CorpusFrom)
    """How the corpus is read and packed."""
    targets_gb: float = bounded(2.0, ABOVE_ZERO)
    """Most disk for the teacher's targets, in GB."""
    checkpoint_seconds: float = bounded(60.0, NOT_NEGATIVE)
    """Seconds between checkpoints; what an interruption can lose."""
    reports: int = bounded(10, between(1, MOST_REPORTS))
    """Evaluations on the selection split, evenly spaced."""
    wandb: str | None = None
    """Project to log to with wandb, which must be installed."""
    log_to: list[str] = field(default_factory=list)
    """Trackers that get the metrics besides metrics.jsonl and TensorBoard files, which are always
    written: wandb, mlflow."""
    plan: bool = False
    """Print what the run takes, and do nothing: work, memory by part, disk and time. For it the
    config.json of teacher and student are enough, and the text need not be there."""
    plan_for: PlannedMachine = field(default_factory=PlannedMachine)
    """The machine that is planned for."""

    def __post_init__(self) -> None:
        check_values(self)
        check_bounds(self)
        check_forms(self.export)
        check_names(self.log_to)
        require(
            not 0 < self.range_steps < FEWEST_STEPS,
            f"--range_steps is {self.range_steps}; so few show nothing, give at least "
            f"{FEWEST_STEPS}",
        )
        require(
            not self.range_steps or self.training.learning_rate is None,
            "--range_steps chooses the learning rate, and --training.learning_rate is given; drop "
            "one of them",
        )
        require(
            not self.match_states or self.training.targets == LIVE,
            "--match_states needs the teacher beside the student; add --training.targets live",
        )
        require(
            not (self.match_states and self.training.compile),
            "--match_states and --training.compile exclude each other; drop one",
        )
        require(self.output != Path(), "--output is empty; give a directory")
