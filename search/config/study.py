"""Settings of a study. The docstring of a field is its `--help`; YAML and command line agree."""

import math
import re
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
from distill.recipes import CorrectionSettings
from distill.train import TrainingSettings
from pruning.exports import MULTIMODAL, check_forms
from search.config.budget import BudgetConfig
from search.config.names import EVIDENCE, EVIDENCE_FULL, EVIDENCE_NONE, EVIDENCE_SHORT, STOPPERS
from search.config.objectives import KL, Objectives
from search.config.per_layer import PerLayerConfig
from search.config.sampler import SamplerSettings
from search.config.sections import (
    FunnelConfig,
    HalvingConfig,
    ImportanceConfig,
    PlannedMachine,
    ResourceConfig,
)
from search.config.shown import DashboardConfig
from search.config.space import SpaceConfig
from search.config.tasks import check_task_names, names_of_tasks
from workspace.settings import (
    CALIBRATION_SEQUENCES,
    DEVICES,
    MOST_REPORTS,
    SHORTEST_BLOCK,
    TEACHER_PRECISIONS,
)

TIME = re.compile(r"(\d+(?:\.\d+)?)([smhd]?)")
SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
MOST_RUNS = 1_000
"""Full runs of one kind, each of which is planned before the first."""
MOST_COMPLETIONS = 50
"""Samples that a report has room for."""
LONGEST_STUDY = 512
"""Letters of a study's name that every database keeps."""


@dataclass(frozen=True)
class SearchConfig:
    """One study: teacher, corpus and budget are all that must be given."""

    teacher: str
    """A Hugging Face causal LM with its tokenizer: a directory or a Hub id. Of a multimodal model
    its text model is used."""
    corpus: str | list[str]
    """A text or chats: a file of rows (.jsonl, .json, .ndjson, .csv, .tsv, .parquet, .arrow; field
    "text" or "messages") or of text, also compressed (.gz, .zst, .xz, .bz2); a pattern of files; a
    folder; a Hub data set; or several of these."""
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    """Limits that a student must meet."""
    space: SpaceConfig = field(default_factory=SpaceConfig)
    """Choices per axis; derived from the teacher where not given."""
    per_layer: PerLayerConfig = field(default_factory=PerLayerConfig)
    """Blocks of students whose layers differ, where --space.per_layer asks for them."""
    objectives: list[str] = field(default_factory=lambda: [KL])
    """What is traded: kl, alone or with parameters, non_embedding, active, memory, flops,
    prefill_ms, decode_ms or task:NAME."""
    family: list[float] | None = None
    """Budgets of a family as shares of the teacher's parameters, the largest first: one student
    for each, in place of --budget."""
    trials: int = bounded(24, at_least(1))
    """Candidates to score; of a family, for each member."""
    short_tokens: int = bounded(250_000, at_least(1))
    """Training tokens of the short run that scores a candidate."""
    full_tokens: int = bounded(2_000_000, at_least(1))
    """Tokens of a full distillation."""
    full_workers: int | None = bounded(None, ONE_OR_MORE)
    """Processes that train one full run together, as --resources.workers; by default as many as
    train a trial."""
    full_reports: int = bounded(4, between(1, MOST_REPORTS))
    """Evaluations per full distillation, evenly spaced."""
    scratch_tokens: int | None = None
    """Tokens of the run of the winner's shape from random weights, at least --full_tokens; by
    default as many as the other baselines have (see --evidence). More than --full_tokens show how
    many it needs to come as far as the winner."""
    winners: int = bounded(2, between(1, MOST_RUNS))
    """Best candidates to distil in full."""
    ties: int = bounded(1, between(0, MOST_RUNS))
    """At most so many more, where they cannot be told apart from the last of the winners."""
    finalist_seeds: int = bounded(1, between(1, MOST_RUNS))
    """Full runs of every candidate before one is called the best."""
    evidence: str = bounded(EVIDENCE_SHORT, one_of(EVIDENCE))
    """What the winner is held against: short (uniform shrink, random architecture and random
    initialisation after --short_tokens; only winners run in full), full (the same after full runs,
    with --seeds), or none."""
    seeds: int | None = bounded(None, between(1, MOST_RUNS))
    """Full runs of winner and candidate 2, and with --evidence full of the uniform shrink, for the
    intervals; by default 3 with --evidence full, else 1."""
    seed: int = bounded(0, NOT_NEGATIVE)
    """Fixes proposals, data order and baselines."""
    serve_with: list[str] = field(default_factory=list)
    """Engines that must take the students and compute them rightly, and that so narrow the space:
    any of transformers4, vllm, sglang, llama.cpp, ctranslate2 and mlx."""
    export: list[str] = field(default_factory=list)
    """Copies of winners, in folders beside them (best-padded). Of those whose layers differ, for
    other software: padded, a stock checkpoint that saves nothing, and decilm, for vLLM, llama.cpp
    and mlx-lm, of types with Llama's blocks. Of those of a multimodal teacher's hidden size:
    multimodal, the teacher with the winner in the place of its text model."""
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
    device: str = bounded("auto", one_of(DEVICES))
    """cpu, cuda, or auto."""
    teacher_precision: str = bounded("file", one_of(TEACHER_PRECISIONS))
    """What the teacher is held and computes in for importance, targets and evaluation: file (the
    type of its weights) or fp32 (which takes twice the memory of a 16-bit teacher)."""
    spread: bool = False
    """Spread the teacher over all GPUs of a slot, the host's memory and the disk where it does not
    fit one device (accelerate's device_map="auto"). It is not corrected then, teaches by stored
    targets alone, answers no tasks, and is not cut layer by layer."""
    block: int | None = bounded(None, at_least(SHORTEST_BLOCK))
    """Tokens per sequence; by default the model's positions, at most 1024."""
    calibration: int | None = bounded(None, ONE_OR_MORE)
    """Training sequences that importance is measured on, at most; by default 256 (more changed
    students no more than another sample did), or as many as the study began with."""
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
    """Wall-clock time of this start, such as 90m or 2h, imports, test and report counted: no trial
    goes on when what is left of it is needed for the last stage, which is cut to it if need be."""
    targets_gb: float = bounded(2.0, ABOVE_ZERO)
    """Most disk for the teacher's targets, in GB."""
    checkpoint_seconds: float = bounded(15.0, NOT_NEGATIVE)
    """Seconds between the checkpoints of a running trial; what an interruption can lose."""
    max_retries: int = bounded(2, NOT_NEGATIVE)
    """How often an interrupted trial is taken up again before it is given up."""
    max_failures: int = bounded(3, ONE_OR_MORE)
    """Failed trials in a row after which the search stops."""
    tasks: str | list[str] | None = None
    """Tasks that winner and teacher answer: lm-eval's by their names, such as hellaswag arc_easy,
    and folders of its task files (YAML; $data is a file of questions built from test text)."""
    task_questions: int = bounded(200, at_least(1))
    """Questions to build for them, and of each of lm-eval's own the first so many."""
    completions: int = bounded(3, between(0, MOST_COMPLETIONS))
    """Samples in the report: beginnings of test documents, and what teacher, winner and uniform
    shrink write after them; 0: none."""
    push_to_hub: str | None = None
    """Name on the Hugging Face Hub, such as user/name, that the winner is uploaded to at the end,
    privately; of a family one for each member, with its share after the name. The token is that of
    HF_TOKEN or `hf auth login`."""
    dashboard: bool = False
    """Serve Ray's dashboard and optuna-dashboard, and print their addresses."""
    pages: DashboardConfig = field(default_factory=DashboardConfig)
    """Where the dashboards are served."""
    log_to: list[str] = field(default_factory=list)
    """Trackers that get the curve of every trial and full run and a summary of the study: any of
    tensorboard, wandb and mlflow."""
    plan: bool = False
    """Print what the study takes, and do nothing: work, memory by part, disk and time. The
    teacher's config.json is enough for it, and the text need not be there."""
    plan_for: PlannedMachine = field(default_factory=PlannedMachine)
    """The machine that is planned for."""

    @property
    def full_seeds(self) -> int:
        """Full runs of winner and candidate 2."""
        if self.seeds is not None:
            return self.seeds
        return 3 if self.evidence == EVIDENCE_FULL else 1

    @property
    def time_seconds(self) -> float | None:
        """The time budget."""
        return None if self.time_budget is None else seconds(self.time_budget)

    @property
    def task_names(self) -> list[str]:
        """Folders and names of tasks."""
        return names_of_tasks(self.tasks)

    @property
    def calibration_sequences(self) -> int:
        """Sequences that importance is measured on."""
        return self.calibration or CALIBRATION_SEQUENCES

    @property
    def workers_of_full_runs(self) -> int:
        """Processes that train one full run together."""
        return self.full_workers or self.resources.workers

    def __post_init__(self) -> None:
        check_values(self)
        check_bounds(self)
        if self.time_budget is not None:
            seconds(self.time_budget)
        self._check_objectives(Objectives.of(self.objectives))
        self._check_tokens()
        check_names(self.log_to)
        require(
            self.resources.workers == 1 or not Objectives.of(self.objectives).tasks,
            f"--resources.workers is {self.resources.workers}, but a student answers tasks as "
            "objectives in one piece; use 1",
        )
        require(bool(self.study), "--study is empty; give the study a name")
        require(
            len(self.study) <= LONGEST_STUDY,
            f"--study has {len(self.study):,} letters; a database keeps {LONGEST_STUDY}",
        )

    def _check_objectives(self, objectives: Objectives) -> None:
        """Raises SearchError for objectives, a family or tasks that do not go together."""
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
            not objectives.tasks or bool(self.task_names),
            f"--objectives has {', '.join(objectives.tasks)}, but --tasks names no folder of task "
            "files and no task of lm-eval",
        )
        check_task_names(self.task_names)
        require(
            bool(self.space.per_layer) or self.per_layer == PerLayerConfig(),
            "--per_layer says how layers may differ, but --space.per_layer names no sub-block that "
            "does; give it attention, ffn or both",
        )
        check_forms(self.export)
        layered = [form for form in self.export if form != MULTIMODAL]
        require(
            not layered or bool(self.space.per_layer),
            f"--export has {', '.join(layered)}, but --space.per_layer lets no layers differ: "
            "students whose layers are alike are stock checkpoints already",
        )
        if self.family is not None:
            require(
                MULTIMODAL not in self.export,
                f"--family and --export {MULTIMODAL} are both given; smaller members are cut out "
                "of larger ones, whose channels are in another order than those of pictures: "
                "search for each size alone",
            )
            check_family(self.family, objectives)
            require(
                not self.space.per_layer,
                "--family and --space.per_layer are both given; smaller members are cut out of "
                "larger ones, and none can be cut out of one whose layers differ: search for each "
                "size alone",
            )
            require(
                not self.budget.given,
                "--family and --budget are both given; a family's members have their budgets from "
                "--family",
            )

    def _check_tokens(self) -> None:
        """Raises SearchError for runs that are shorter than they must be."""
        require(
            self.full_tokens >= self.short_tokens,
            f"--full_tokens is {self.full_tokens}; it must be at least --short_tokens "
            f"({self.short_tokens})",
        )
        require(
            self.evidence != EVIDENCE_NONE or self.scratch_tokens is None,
            f"--scratch_tokens is {self.scratch_tokens}, but --evidence none runs nothing to hold "
            f"the winner against; leave one of them out",
        )
        require(
            self.scratch_tokens is None or self.scratch_tokens >= self.full_tokens,
            f"--scratch_tokens is {self.scratch_tokens}; it must be at least --full_tokens "
            f"({self.full_tokens})",
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
