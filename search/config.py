"""What a user can set. The docstring of a field is its `--help`; YAML and command line agree."""

import math
import re
from dataclasses import dataclass, field
from pathlib import Path

from distill.correction import CorrectionSettings
from distill.data.corpus import SplitSizes
from distill.data.settings import CorpusFrom
from distill.data.sources import CorpusFiles
from distill.settings import TrainingSettings
from pruning.scores import DEFAULT_LAYER_SCORE, DEFAULT_SCORE, LAYER_SCORES, SCORES
from search.budget_config import BudgetConfig
from search.errors import require
from search.halving import HALVING, STOPPERS
from search.imports import is_import_path
from search.objectives import KL, Objectives
from search.samplers import SamplerSettings
from search.values import check_values

DEVICES = ("auto", "cpu", "cuda")
EVIDENCE_SHORT, EVIDENCE_FULL, EVIDENCE_NONE = "short", "full", "none"
EVIDENCE = (EVIDENCE_SHORT, EVIDENCE_FULL, EVIDENCE_NONE)
TEACHER_PRECISIONS = ("file", "fp32")
TIME = re.compile(r"(\d+(?:\.\d+)?)([smhd]?)")
SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
MOST_REPORTS = 100_000
MOST_RUNS = 1_000
"""Full runs of one kind, each of which is planned before the first."""
LONGEST_STUDY = 512
"""Letters of a study's name that every database keeps."""


CHANNEL_AXES = ("hidden", "ffn", "expert_ffn")
"""Axes of single channels, which kernels and quantised formats take in blocks."""
MULTIPLE_AXES = ("hidden", "heads", "kv_heads", "ffn", "experts", "expert_ffn")


@dataclass(frozen=True)
class SpaceConfig:
    """Choices per axis: a list of sizes, or [min, max, step] (three numbers, step <= max)."""

    layers: list[int] | None = None
    """Depths; by default every depth from a third of the teacher's."""
    hidden: list[int] | None = None
    """Hidden sizes; by default from a third of the teacher's, in about 24 steps."""
    heads: list[int] | None = None
    """Query heads; by default every multiple of the KV heads."""
    kv_heads: list[int] | None = None
    """Key-value heads; by default those of the teacher."""
    ffn: list[int] | None = None
    """FFN sizes; by default from a quarter of the teacher's, in steps of at most a 32nd of it."""
    experts: list[int] | None = None
    """Experts of a mixture of experts; by default in eighths of the teacher's."""
    expert_ffn: list[int] | None = None
    """FFN sizes of an expert; by default as for the FFN."""
    multiple_of: int | dict[str, int] | None = None
    """What default sizes are multiples of, and given ones must be: one number for hidden size, FFN
    and expert FFN, or one per axis, as in --space.multiple_of.ffn 256. By default a power of two;
    on a GPU at least 64 where that divides the teacher's size and leaves eight choices."""
    layer_choice: list[str] | None = None
    """Which layers a shallower student keeps: ranked (the most important), span (all but one
    contiguous span), or both, and the search chooses; by default ranked."""

    @property
    def multiples(self) -> dict[str, int]:
        """What sizes are to be multiples of, by axis."""
        given = self.multiple_of
        if given is None:
            return {}
        return given if isinstance(given, dict) else dict.fromkeys(CHANNEL_AXES, given)

    def __post_init__(self) -> None:
        for axis, multiple in self.multiples.items():
            require(
                axis in MULTIPLE_AXES,
                f"--space.multiple_of names {axis!r}; it must be one of {', '.join(MULTIPLE_AXES)}",
            )
            require(
                multiple >= 1,
                f"--space.multiple_of has {multiple} for {axis}; it must be at least 1",
            )


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
    """Trials at once; by default as many as CPUs, memory and, with a GPU, GPUs allow."""
    cpus: int = 1
    """CPUs, and so threads, per trial."""
    gpus: float | None = None
    """GPUs per trial, a fraction allowed; by default 1 on cuda and 0 on cpu."""
    memory_gb: float | None = None
    """Memory of a trial in GB, of the GPU on cuda; by default an estimate from the largest student
    of the space, the sequences of a forward pass and the vocabulary."""

    def __post_init__(self) -> None:
        for name in ("concurrent", "cpus"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"--resources.{name} is {value}; it must be >= 1")
        require(
            self.gpus is None or self.gpus >= 0,
            f"--resources.gpus is {self.gpus}; it must not be negative",
        )
        require(
            self.memory_gb is None or 0 < self.memory_gb < math.inf,
            f"--resources.memory_gb is {self.memory_gb}; it must be above 0",
        )


@dataclass(frozen=True)
class FunnelConfig:
    """Scoring of candidates before any training, which leaves out those that will not recover."""

    candidates: int = 0
    """Candidates to score before any training, at most; 0: none."""
    keep: float = 0.5
    """Share of the space that may be tried after it: the best by that score."""
    sequences: int = 32
    """Sequences of the selection split to score on, at most."""

    def __post_init__(self) -> None:
        require(
            self.candidates >= 0,
            f"--funnel.candidates is {self.candidates}; it must not be negative",
        )
        require(0 < self.keep <= 1, f"--funnel.keep is {self.keep}; it must be in (0, 1]")
        require(
            self.sequences >= 1, f"--funnel.sequences is {self.sequences}; it must be at least 1"
        )


@dataclass(frozen=True)
class HalvingConfig:
    """Early stopping of trials by comparison on the selection KL at equal tokens."""

    stopper: str = HALVING
    """halving (successive halving), hyperband, none, or the import path of an Optuna pruner
    (package.module:Name), which takes one objective only."""
    first_share: float = 0.125
    """Share of the short run's tokens at which candidates are first compared."""
    reduction: int = 2
    """Each comparison keeps one in so many, and comes after so many times the tokens; 1: never."""
    reports: int = 1
    """Evaluations per short run, evenly spaced, besides those at the comparisons."""

    @property
    def own_pruner(self) -> bool:
        """Whether the stopper is a pruner that the user names."""
        return self.stopper not in STOPPERS

    def __post_init__(self) -> None:
        require(
            self.stopper in STOPPERS or is_import_path(self.stopper),
            f"--halving.stopper is {self.stopper!r}; it must be one of {', '.join(STOPPERS)}, or "
            "the import path of an Optuna pruner (package.module:Name)",
        )
        require(
            0 < self.first_share < 1,
            f"--halving.first_share is {self.first_share}; it must be in (0, 1)",
        )
        require(self.reduction >= 1, f"--halving.reduction is {self.reduction}; it must be >= 1")
        require(
            1 <= self.reports <= MOST_REPORTS,
            f"--halving.reports is {self.reports}; it must be from 1 to {MOST_REPORTS:,}",
        )


@dataclass(frozen=True)
class SearchConfig:
    """One study: teacher, corpus and budget are all that must be given."""

    teacher: str
    """A Hugging Face causal LM with its tokenizer: a directory or a Hub id."""
    corpus: str | list[str]
    """A text or chats: a file of rows (.jsonl, .json, .ndjson, .csv, .tsv, .parquet, .arrow; field
    "text" or "messages") or of text, also compressed (.gz, .zst, .xz, .bz2); a pattern of files; a
    folder; a Hub data set; or several of these."""
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    """Limits that a student must meet."""
    space: SpaceConfig = field(default_factory=SpaceConfig)
    """Choices per axis; derived from the teacher where not given."""
    objectives: list[str] = field(default_factory=lambda: [KL])
    """What is traded: kl, alone or with parameters, non_embedding, active, memory, flops,
    prefill_ms, decode_ms or task:NAME."""
    family: list[float] | None = None
    """Budgets of a family as shares of the teacher's parameters, the largest first: one student
    for each, in place of --budget."""
    trials: int = 24
    """Candidates to score; of a family, for each member."""
    short_tokens: int = 250_000
    """Tokens that scores a candidate."""
    full_tokens: int = 2_000_000
    """Tokens of a full distillation."""
    full_reports: int = 4
    """Evaluations per full distillation, evenly spaced."""
    scratch_tokens: int | None = None
    """Tokens of the run of the winner's shape from random weights, at least --full_tokens; by
    default as many as the other baselines have (see --evidence). More than --full_tokens show how
    many it needs to come as far as the winner."""
    winners: int = 2
    """Best candidates to distil in full."""
    ties: int = 1
    """At most so many more, where they cannot be told apart from the last of the winners."""
    finalist_seeds: int = 1
    """Full runs of every candidate before one is called the best."""
    evidence: str = EVIDENCE_SHORT
    """What the winner is held against: short (uniform shrink, random architecture and random
    initialisation after --short_tokens; only winners run in full), full (the same after full runs,
    with --seeds), or none."""
    seeds: int | None = None
    """Full runs of winner and runner-up, and with --evidence full of the uniform shrink, for the
    intervals; by default 3 with --evidence full, else 1."""
    seed: int = 0
    """Fixes proposals, data order and baselines."""
    serve_with: list[str] = field(default_factory=list)
    """Engines that must take the students and compute them rightly, and that so narrow the space:
    any of transformers4, vllm, sglang, llama.cpp, ctranslate2 and mlx."""
    sampler: SamplerSettings = field(default_factory=SamplerSettings)
    """What proposes candidates."""
    funnel: FunnelConfig = field(default_factory=FunnelConfig)
    """Scoring of candidates before any training."""
    study: str = "espalier"
    """Name of the study in the database."""
    storage: str | None = None
    """URL of the database (sqlite, postgresql, mysql); by default study.db in the workspace. One
    with a password goes into the environment variable ESPALIER_STORAGE instead."""
    workspace: Path = Path("runs/espalier")
    """Directory of everything the study computes."""
    device: str = "auto"
    """cpu, cuda, or auto."""
    teacher_precision: str = "file"
    """What the teacher is held and computes in for importance, targets and evaluation: file (the
    type of its weights) or fp32 (which takes twice the memory of a 16-bit teacher)."""
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
    corpus_from: CorpusFrom = field(default_factory=CorpusFrom)
    """How the corpus is read and packed."""
    training: TrainingSettings = field(default_factory=TrainingSettings)
    """How a student learns."""
    halving: HalvingConfig = field(default_factory=HalvingConfig)
    """Early stopping of trials."""
    resources: ResourceConfig = field(default_factory=ResourceConfig)
    """What runs at once."""
    address: str | None = None
    """A Ray cluster to run on, such as 10.0.0.1:6379 or auto; by default this machine."""
    time_budget: str | None = None
    """Wall-clock time of this start, such as 90m or 2h: no trial goes on when what is left of it is
    needed for the full runs; the winners are chosen from what there is."""
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

    @property
    def full_seeds(self) -> int:
        """Full runs of winner and runner-up."""
        if self.seeds is not None:
            return self.seeds
        return 3 if self.evidence == EVIDENCE_FULL else 1

    @property
    def time_seconds(self) -> float | None:
        """The time budget."""
        return None if self.time_budget is None else seconds(self.time_budget)

    def __post_init__(self) -> None:
        check_values(self)
        for name in ("trials", "short_tokens", "full_tokens", "calibration"):
            value = getattr(self, name)
            require(value >= 1, f"--{name} is {value}; it must be at least 1")
        most = dict.fromkeys(("winners", "ties", "finalist_seeds", "seeds"), MOST_RUNS)
        most["full_reports"] = MOST_REPORTS
        for name, limit in most.items():
            value, least = getattr(self, name), int(name != "ties")
            require(
                value is None or least <= value <= limit,
                f"--{name} is {value}; it must be from {least} to {limit:,}",
            )
        check_disk_settings(self.targets_gb, self.checkpoint_seconds)
        require(
            self.evidence in EVIDENCE,
            f"--evidence is {self.evidence!r}; it must be one of {', '.join(EVIDENCE)}",
        )
        require(
            self.evidence != EVIDENCE_NONE or self.scratch_tokens is None,
            f"--scratch_tokens is {self.scratch_tokens}, but --evidence none runs nothing to hold "
            f"the winner against; leave one of them out",
        )
        for name in ("max_retries", "seed"):
            value = getattr(self, name)
            require(value >= 0, f"--{name} is {value}; it must not be negative")
        require(self.max_failures >= 1, f"--max_failures is {self.max_failures}; it must be >= 1")
        require(
            self.block is None or self.block >= 8, f"--block is {self.block}; it must be at least 8"
        )
        objectives = Objectives.of(self.objectives)
        require(
            not objectives.several or self.halving.stopper in STOPPERS,
            f"--halving.stopper is {self.halving.stopper}, and Optuna's pruners take one objective "
            f"only, not {', '.join(objectives.names)}; use {', '.join(STOPPERS)}",
        )
        require(
            self.family is None or not self.halving.own_pruner,
            f"--halving.stopper is {self.halving.stopper}, which would compare the members of "
            f"--family with each other; use {', '.join(STOPPERS)}",
        )
        require(
            self.task_questions >= 1,
            f"--task_questions is {self.task_questions}; it must be at least 1",
        )
        require(
            not objectives.tasks or self.tasks is not None,
            f"--objectives has {', '.join(objectives.tasks)}, but --tasks names no folder of task "
            "files",
        )
        if self.time_budget is not None:
            seconds(self.time_budget)
        if self.family is not None:
            check_family(self.family, objectives)
            require(
                not self.budget.given,
                "--family and --budget are both given; a family's members have their budgets from "
                "--family",
            )
        require(
            self.device in DEVICES,
            f"--device is {self.device!r}; it must be one of {', '.join(DEVICES)}",
        )
        check_teacher_precision(self.teacher_precision)
        require(
            self.full_tokens >= self.short_tokens,
            f"--full_tokens is {self.full_tokens}; it must be at least --short_tokens "
            f"({self.short_tokens})",
        )
        require(
            self.scratch_tokens is None or self.scratch_tokens >= self.full_tokens,
            f"--scratch_tokens is {self.scratch_tokens}; it must be at least --full_tokens "
            f"({self.full_tokens})",
        )
        require(bool(self.study), "--study is empty; give the study a name")
        require(
            len(self.study) <= LONGEST_STUDY,
            f"--study has {len(self.study):,} letters; a database keeps {LONGEST_STUDY}",
        )
        require(
            self.tasks is None or self.tasks.is_dir(),
            f"--tasks is {self.tasks}, which is no folder of task files",
        )


def seconds(text: str) -> float:
    """Seconds in a time such as 90, 45s, 90m, 2h or 1.5d. Raises SearchError for anything else."""
    found = TIME.fullmatch(text.strip())
    value = float(found[1]) * SECONDS[found[2]] if found else 0.0
    require(
        0 < value < math.inf,
        f"--time_budget is {text!r}; it must be a time above 0, such as 90m or 2h",
    )
    return value


def check_disk_settings(targets_gb: float, checkpoint_seconds: float) -> None:
    """Raises SearchError for --targets_gb and --checkpoint_seconds that cannot be."""
    require(targets_gb > 0, f"--targets_gb is {targets_gb}; it must be above zero")
    require(
        checkpoint_seconds >= 0,
        f"--checkpoint_seconds is {checkpoint_seconds}; it must not be negative",
    )


def check_teacher_precision(name: str) -> None:
    """Raises SearchError for a --teacher_precision that there is not."""
    require(
        name in TEACHER_PRECISIONS,
        f"--teacher_precision is {name!r}; it must be one of {', '.join(TEACHER_PRECISIONS)}",
    )


def check_family(shares: list[float], objectives: Objectives) -> None:
    """Raises SearchError for members that make no family."""
    shown = " ".join(f"{share:g}" for share in shares)
    require(len(shares) >= 2, f"--family is {shown}; give two shares or more, or use --budget")
    for share in shares:
        require(0 < share <= 1, f"--family has {share:g}; a share of the teacher is in (0, 1]")
    require(
        shares == sorted(set(shares), reverse=True),
        f"--family is {shown}; give different shares, the largest first",
    )
    require(
        not objectives.several,
        f"--family chooses a member per size, and --objectives {', '.join(objectives.names)} a "
        "front of sizes; give one of them",
    )
