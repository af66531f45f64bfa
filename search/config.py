"""What a user can set. The docstring of a field is its `--help`; YAML and command line agree."""

from dataclasses import dataclass, field
from pathlib import Path

from distill.corpus import SplitSizes
from distill.correction import CorrectionSettings
from distill.settings import TrainingSettings
from pruning.scores import DEFAULT_LAYER_SCORE, DEFAULT_SCORE, LAYER_SCORES, SCORES
from search.errors import SearchError

SAMPLERS = ("tpe", "random")
DEVICES = ("auto", "cpu", "cuda")


def require(condition: bool, text: str) -> None:
    """Raises SearchError with `text` where `condition` does not hold."""
    if not condition:
        raise SearchError(text)


@dataclass(frozen=True)
class BudgetConfig:
    """Limits that a student must meet."""

    parameters: float = 0.5
    """Most parameters: a share of the teacher's if <= 1, else a count (4e9)."""
    tolerance: float = 0.05
    """A student has at least (1 - tolerance) times that many."""

    def __post_init__(self) -> None:
        require(self.parameters > 0, f"--budget.parameters is {self.parameters}; it must be > 0")
        require(
            0 <= self.tolerance < 1, f"--budget.tolerance is {self.tolerance}; it must be in [0, 1)"
        )


@dataclass(frozen=True)
class SpaceConfig:
    """Choices per axis: a list of sizes, or [min, max, step] (three numbers, step <= max)."""

    layers: list[int] | None = None
    """Depths; by default every depth from a third of the teacher's."""
    hidden: list[int] | None = None
    """Hidden sizes; by default from a third of the teacher's, in about 24 steps."""
    heads: list[int] | None = None
    """Query heads; by default every multiple of the KV heads."""
    ffn: list[int] | None = None
    """FFN sizes; by default from a quarter of the teacher's, in steps of at most a 32nd of it."""
    experts: list[int] | None = None
    """Experts of a mixture of experts; by default in eighths of the teacher's."""
    expert_ffn: list[int] | None = None
    """FFN sizes of an expert; by default as for the FFN."""


@dataclass(frozen=True)
class ImportanceConfig:
    """What decides which channels, heads, neurons, experts and layers a student keeps."""

    score: str = DEFAULT_SCORE
    """Score of heads, neurons and channels, such as variance-norm, l2-mean or taylor."""
    layers: str = DEFAULT_LAYER_SCORE
    """Score of layers: kl, loss, logit-mse, block-influence or span."""
    rms_rescale: bool = True
    """Give every norm of a student the size that it has in the teacher."""

    def __post_init__(self) -> None:
        for name, known in (("score", SCORES), ("layers", LAYER_SCORES)):
            value = getattr(self, name)
            require(
                value in known,
                f"--importance.{name} is {value!r}; it must be one of {', '.join(known)}",
            )


@dataclass(frozen=True)
class ResourceConfig:
    """What runs at once."""

    concurrent: int | None = None
    """Trials at once; by default as many as the CPUs (or, with a GPU, the GPUs) allow."""
    cpus: int = 1
    """CPUs, and so threads, per trial."""
    gpus: float | None = None
    """GPUs per trial, a fraction allowed; by default 1 on cuda and 0 on cpu."""

    def __post_init__(self) -> None:
        for name in ("concurrent", "cpus"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"--resources.{name} is {value}; it must be >= 1")
        require(
            self.gpus is None or self.gpus >= 0,
            f"--resources.gpus is {self.gpus}; it must not be negative",
        )


@dataclass(frozen=True)
class HalvingConfig:
    """Early stopping by successive halving on the selection KL."""

    first_share: float = 0.25
    """Share of the short run's tokens at which candidates are first compared."""
    reduction: int = 2
    """Each comparison keeps one in so many, and comes after so many times the tokens; 1: never."""
    reports: int = 4
    """Evaluations per short run, evenly spaced; comparisons happen at these."""

    def __post_init__(self) -> None:
        require(
            0 < self.first_share < 1,
            f"--halving.first_share is {self.first_share}; it must be in (0, 1)",
        )
        require(self.reduction >= 1, f"--halving.reduction is {self.reduction}; it must be >= 1")
        require(self.reports >= 1, f"--halving.reports is {self.reports}; it must be >= 1")


@dataclass(frozen=True)
class CorpusFiles:
    """Which files of a folder are the corpus."""

    include: list[str] = field(default_factory=lambda: ["*.txt", "*.md", "*.py", "*.rst"])
    """File-name patterns to read."""
    exclude: list[str] = field(default_factory=lambda: [".*", "__pycache__"])
    """Patterns of file and folder names to leave out."""


@dataclass(frozen=True)
class SearchConfig:
    """One study: teacher, corpus and budget are all that must be given."""

    teacher: str
    """A Hugging Face causal LM with its tokenizer: a directory or a Hub id."""
    corpus: str
    """A .txt, .jsonl, .jsonl.gz (field "text" or "messages") or .parquet file, a folder, or a Hub
    data set."""
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    """Limits that a student must meet."""
    space: SpaceConfig = field(default_factory=SpaceConfig)
    """Choices per axis; derived from the teacher where not given."""
    trials: int = 24
    """Candidates to score."""
    short_tokens: int = 250_000
    """Tokens that scores a candidate."""
    full_tokens: int = 2_000_000
    """Tokens of a full distillation."""
    winners: int = 3
    """Best candidates to distil in full."""
    seeds: int = 3
    """Full runs of winner, runner-up and uniform shrink, for the intervals."""
    seed: int = 0
    """Fixes proposals, data order and baselines."""
    sampler: str = "tpe"
    """tpe or random."""
    study: str = "espalier"
    """Name of the study in the database."""
    storage: str | None = None
    """Database URL of the study; by default study.db in the workspace. One with a password goes
    into the environment variable ESPALIER_STORAGE instead."""
    workspace: Path = Path("runs/espalier")
    """Directory of everything the study computes."""
    device: str = "auto"
    """cpu, cuda, or auto."""
    block: int | None = None
    """Tokens per sequence; by default the model's positions, at most 1024."""
    calibration: int = 1024
    """Training sequences that importance is measured on, at most."""
    importance: ImportanceConfig = field(default_factory=ImportanceConfig)
    """What decides which parts a student keeps."""
    assistant_only: bool = False
    """Learn and measure only what the assistant says in chats (rows with "messages"); plain texts
    count wholly."""
    correction: CorrectionSettings = field(default_factory=CorrectionSettings)
    """Fine-tuning of the teacher on the corpus before it is cut and teaches."""
    splits: SplitSizes = field(default_factory=SplitSizes)
    """How much of the corpus is held out."""
    corpus_files: CorpusFiles = field(default_factory=CorpusFiles)
    """Which files of a folder are the corpus."""
    training: TrainingSettings = field(default_factory=TrainingSettings)
    """How a student learns."""
    halving: HalvingConfig = field(default_factory=HalvingConfig)
    """Early stopping of trials."""
    resources: ResourceConfig = field(default_factory=ResourceConfig)
    """What runs at once."""
    targets_gb: float = 2.0
    """Most disk for the teacher's targets, in GB."""
    checkpoint_seconds: float = 15.0
    """Seconds between the checkpoints of a running trial; what an interruption can lose."""
    max_retries: int = 2
    """How often an interrupted trial is taken up again before it is given up."""
    max_failures: int = 3
    """Failed trials in a row after which the search stops."""
    tasks: Path | None = None
    """Folder of lm-eval task files (YAML; $data is a file of questions built from test text)."""
    task_questions: int = 200
    """Questions to build for them."""
    dashboard: bool = False
    """Serve Ray's dashboard and optuna-dashboard on 127.0.0.1 and print their addresses."""

    def __post_init__(self) -> None:
        for name in ("trials", "short_tokens", "full_tokens", "winners", "seeds", "calibration"):
            value = getattr(self, name)
            require(value >= 1, f"--{name} is {value}; it must be at least 1")
        for name in ("max_retries", "seed"):
            value = getattr(self, name)
            require(value >= 0, f"--{name} is {value}; it must not be negative")
        require(self.max_failures >= 1, f"--max_failures is {self.max_failures}; it must be >= 1")
        require(
            self.block is None or self.block >= 8, f"--block is {self.block}; it must be at least 8"
        )
        require(
            self.sampler in SAMPLERS,
            f"--sampler is {self.sampler!r}; it must be one of {', '.join(SAMPLERS)}",
        )
        require(
            self.device in DEVICES,
            f"--device is {self.device!r}; it must be one of {', '.join(DEVICES)}",
        )
        require(
            self.full_tokens >= self.short_tokens,
            f"--full_tokens is {self.full_tokens}; it must be at least --short_tokens "
            f"({self.short_tokens})",
        )
        require(bool(self.study), "--study is empty; give the study a name")
        require(
            self.tasks is None or self.tasks.is_dir(),
            f"--tasks is {self.tasks}, which is no folder of task files",
        )
