"""Configuration of run_prune.py. The docstring of a field is its `--help`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from common.bounds import at_least, bounded, check_bounds, one_of
from common.trackers import check_names
from common.values import check_values
from distill import CorpusFiles, CorpusFrom, SplitSizes
from pruning import AXES, Architecture, PruneSettings, PruningError
from pruning.exports import check_forms
from pruning.importance import check_expert_score, check_layer_score, score_named
from search.config import PlannedMachine, SpaceConfig
from search.space import DEPTH, DEPTH_AND_WIDTH, FFN_AND_HEADS, UNIFORM
from workspace.settings import CALIBRATION_SEQUENCES, DEVICES, TEACHER_PRECISIONS

SHAPES = {
    "uniform": UNIFORM,
    "width": UNIFORM,
    "depth": DEPTH,
    "depth+width": DEPTH_AND_WIDTH,
    "ffn+heads": FFN_AND_HEADS,
}
"""--shape -> the same among the shapes that a search begins with."""


@dataclass(frozen=True)
class ShapeBudget:
    """A size to reach instead of a shape."""

    parameters: float | None = None
    """Most parameters: a share of the teacher's if <= 1, else a count (4e9)."""
    tolerance: float = 0.05
    """A student has at least (1 - tolerance) times that many, unless --shape is depth."""


@dataclass(frozen=True)
class PruneSpace:
    """What sizes there are to choose from."""

    multiple_of: int | dict[str, int] | None = None
    """What sizes must be multiples of: one number for hidden size, FFN and expert FFN, or one per
    axis, as in --space.multiple_of.ffn 256."""


@dataclass(frozen=True)
class ExplainConfig:
    """What is explained instead of cut."""

    explain: str
    """A model type, such as llama, or the folder of a model."""


def config_class(arguments: Sequence[str]) -> type:
    """The class of the options in these arguments: those of a cut need much that is not needed to
    explain a type."""
    asked = any(word == "--explain" or word.startswith("--explain=") for word in arguments)
    return ExplainConfig if asked else PruneConfig


@dataclass(frozen=True)
class PruneConfig:
    """One student: sizes or a budget; what is not given stays as in the teacher."""

    teacher: str
    """A Hugging Face causal LM with its tokenizer: a directory or a Hub id. Of a multimodal model
    its text model is used."""
    corpus: str | list[str]
    """A .txt, .jsonl, .jsonl.gz (field "text" or "messages") or .parquet file, a folder, or a Hub
    data set."""
    output: Path
    """New directory for the student."""
    explain: str | None = None
    """Print the row of a model type or of the model in a folder, written or inferred: its tensors,
    axes, constraints and proofs. Nothing is cut, and no other option is needed with it."""
    layers: int | None = None
    """Layers to keep."""
    hidden: int | None = None
    """Hidden size."""
    heads: int | None = None
    """Query heads per layer."""
    kv_heads: int | None = None
    """Key-value heads per layer; by default all, or as many as heads in multi-head attention."""
    ffn: int | None = None
    """FFN size."""
    experts: int | None = None
    """Experts per layer of a mixture of experts."""
    expert_ffn: int | None = None
    """FFN size of an expert."""
    experts_per_token: int | None = None
    """Experts that a token is sent to; no weight changes with it."""
    shared_ffn: int | None = None
    """FFN size of the shared experts, all together."""
    expert_latent: int | None = None
    """Channels of the latent space that experts read and write."""
    ssm_heads: int | None = None
    """Heads of a Mamba-2 layer, or value heads of a gated delta net; the same number goes of every
    group."""
    ssm_head_dim: int | None = None
    """Channels of each of these heads."""
    ssm_groups: int | None = None
    """Groups of these heads; of a delta net its key heads."""
    ssm_state: int | None = None
    """Channels of the state of each of these heads."""
    architecture: str | None = None
    """The whole shape instead of single sizes, as a search writes it, with a size for every layer
    where they differ: "L6 H192 A[6/2*3 - 3/1*2] F[512*6]" (heads/KV heads and FFN sizes; *3: of
    three layers in a row; -: left out). Of mixtures and hybrids "L8 H88 A4/2 E4x80/2+42
    S8x16/2x16": experts x FFN / per token + shared FFN, recurrent heads x channels / groups x
    state."""
    keep_layers: list[int] | None = None
    """The very layers to keep, counted from 0, instead of the most important."""
    budget: ShapeBudget = field(default_factory=ShapeBudget)
    """A size to reach instead of a shape."""
    shape: str = bounded("uniform", one_of(SHAPES))
    """With a budget, what is cut: width (every width by about one ratio, and no layer; also called
    uniform), depth (layers alone, as few as it takes), depth+width (layers and every width by about
    one ratio) or ffn+heads (these by about one ratio; hidden size and layers stay)."""
    space: PruneSpace = field(default_factory=PruneSpace)
    """What sizes there are to choose from."""
    serve_with: list[str] = field(default_factory=list)
    """Engines that must take the student and compute it rightly, any of transformers4, vllm,
    sglang, llama.cpp, ctranslate2 and mlx: what they do not take is refused, with their rule."""
    export: list[str] = field(default_factory=list)
    """Copies of the student, in folders beside it (OUTPUT-padded). Where its layers differ, for
    other software: padded, a stock checkpoint that saves nothing, and decilm, for vLLM, llama.cpp
    and mlx-lm, of types with Llama's blocks. Where the teacher is multimodal and the student has
    its hidden size: multimodal, the teacher with the student in the place of its text model."""
    push_to_hub: str | None = None
    """Name on the Hugging Face Hub, such as user/name, that the student is uploaded to at the end,
    privately. The token is that of HF_TOKEN or `hf auth login`."""
    cut: PruneSettings = field(default_factory=PruneSettings)
    """How the student is cut."""
    calibration: int = bounded(CALIBRATION_SEQUENCES, at_least(1))
    """Training sequences that importance is measured on, at most; more than the default changed
    students no more than another sample did."""
    batch: int = bounded(16, at_least(1))
    """Sequences at once."""
    block: int | None = None
    """Tokens per sequence; by default the model's positions, at most 1024."""
    device: str = bounded("auto", one_of(DEVICES))
    """cpu, cuda, or auto."""
    teacher_precision: str = bounded("file", one_of(TEACHER_PRECISIONS))
    """What the teacher is held and computes in: file (the type of its weights) or fp32 (which takes
    twice the memory of a 16-bit teacher)."""
    spread: bool = False
    """Spread the teacher over all GPUs, the host's memory and the disk where it does not fit one
    device (accelerate's device_map="auto")."""
    evaluate: bool = True
    """Measure the student's KL and perplexity on held-out text."""
    splits: SplitSizes = field(default_factory=SplitSizes)
    """How much of the corpus is held out."""
    corpus_files: CorpusFiles = field(default_factory=CorpusFiles)
    """Which files of a folder are the corpus."""
    corpus_from: CorpusFrom = field(default_factory=CorpusFrom)
    """How the corpus is read and packed."""
    log_to: list[str] = field(default_factory=list)
    """Trackers that get the shape and what was measured: any of tensorboard, wandb and mlflow. What
    they keep on this machine goes into OUTPUT-log."""
    plan: bool = False
    """Print what the cut takes, and do nothing: work, memory by part, disk and time. The teacher's
    config.json is enough for it, and the text need not be there."""
    plan_for: PlannedMachine = field(default_factory=PlannedMachine)
    """The machine that is planned for."""

    def __post_init__(self) -> None:
        check_values(self)
        check_bounds(self)
        check_forms(self.export)
        check_names(self.log_to)
        self.cut.check_floors("--cut.least_layers")
        sizes = {axis: getattr(self, axis) for axis in AXES if getattr(self, axis) is not None}
        if self.architecture is not None:
            self._check_architecture(self.architecture, [f"--{axis}" for axis in sizes])
            return
        share = self.budget.parameters
        if share is not None and (sizes or self.keep_layers is not None):
            given = ", ".join(f"--{axis}" for axis in sizes) or "--keep_layers"
            raise PruningError(f"--budget.parameters and {given} are both given; give one of them")
        if share is None and not sizes and self.keep_layers is None:
            raise PruningError(
                "no size is given; give --layers, --hidden, ..., --architecture or "
                "--budget.parameters"
            )
        self._check_multiples([sizes])
        self._check_scores()

    def _check_architecture(self, text: str, others: list[str]) -> None:
        """Raises PruningError for text that is no shape, or that stands beside other sizes."""
        if self.budget.parameters is not None:
            others = [*others, "--budget.parameters"]
        if others:
            raise PruningError(
                f"--architecture and {', '.join(others)} are both given; give one of them"
            )
        try:
            shape = Architecture.parse(text)
        except PruningError as problem:
            raise PruningError(f"--architecture: {problem}") from problem
        layers = [vars(shape.layer_sizes(index)) for index in range(shape.layers)]
        self._check_multiples(layers)
        self._check_scores()

    def _check_multiples(self, layers: Sequence[Mapping[str, int]]) -> None:
        """Raises PruningError for sizes by axis that are no multiples of what was asked for."""
        multiples = SpaceConfig(multiple_of=self.space.multiple_of).multiples
        for sizes in layers:
            for axis, multiple in multiples.items():
                if sizes.get(axis, 0) % multiple:
                    raise PruningError(
                        f"--{axis} is {sizes[axis]}, which is no multiple of the {multiple} of "
                        "--space.multiple_of"
                    )

    def _check_scores(self) -> None:
        """Raises PruningError for scores that are not known."""
        checks = {
            "score": score_named,
            "ssm_score": score_named,
            "layer_score": check_layer_score,
            "expert_score": check_expert_score,
        }
        for name, check in checks.items():
            try:
                check(getattr(self.cut, name))
            except PruningError as problem:
                raise PruningError(f"--cut.{name}: {problem}") from problem
