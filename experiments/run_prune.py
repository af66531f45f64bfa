"""Cut one student out of a teacher, and measure it before any training.

    python experiments/run_prune.py --teacher DIR --corpus FILE --layers 24 --hidden 3072 \
        --heads 32 --ffn 9216 --output student
    python experiments/run_prune.py --teacher DIR --corpus FILE --budget.parameters 0.5 \
        --shape uniform --output student

Writes an ordinary Hugging Face checkpoint with the teacher's tokenizer. Exit status: 0 written, 1
the disk fails, 2 something given cannot be used, 130 Ctrl-C, 143 SIGTERM; stopped early, it leaves
nothing behind.
"""

import json
import os
import sys
import tempfile
from dataclasses import asdict, dataclass, field, replace
from math import exp
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("DATASETS_VERBOSITY", "critical")

import torch

from distill import (
    Corpus,
    CorpusFiles,
    CorpusFrom,
    CorpusPlan,
    SplitSizes,
    evaluate_live,
    resolve_precision,
)
from distill.answers import next_token_log_probs
from experiments.command import exit_status, parse, timed_lines
from pruning import (
    AXES,
    Architecture,
    Checkpoint,
    Ordering,
    Pruned,
    PruneSettings,
    PruningError,
    Served,
    architecture_of,
    check_architecture,
    engines_line,
    engines_of,
    parameter_count,
    prune,
    write_sorted_teacher,
)
from pruning.options import check_options
from pruning.scores import check_layer_score, score_named
from pruning.sizes import in_order
from pruning.writing import fresh_directory, require_space
from search.anchors import CUT_AXES, DEPTH, DEPTH_AND_WIDTH, FFN_AND_HEADS, UNIFORM
from search.budget import Budget, BudgetConfig, CostModel
from search.card import write_cut_card
from search.choices import Narrowing
from search.config import DEVICES, SpaceConfig, check_teacher_precision
from search.loaded_model import LoadedModel
from search.machine import Machine
from search.model_card import Origin
from search.notes import notes_of, precision_note
from search.prepare import resolve_device
from search.proof import SliceProof, require_written, written_line
from search.signals import interruptible
from search.sorting import CalibrationBatches
from search.space import Space
from search.student_folder import finish_folder
from search.teacher import Teacher
from search.text import planned_text
from search.values import check_values

SHAPES = {
    "uniform": UNIFORM,
    "width": UNIFORM,
    "depth": DEPTH,
    "depth+width": DEPTH_AND_WIDTH,
    "ffn+heads": FFN_AND_HEADS,
}
"""--shape -> the same among the anchors of a search."""


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
class PruneConfig:
    """One student: sizes or a budget; what is not given stays as in the teacher."""

    teacher: str
    """A Hugging Face causal LM with its tokenizer: a directory or a Hub id."""
    corpus: str | list[str]
    """A .txt, .jsonl, .jsonl.gz (field "text" or "messages") or .parquet file, a folder, or a Hub
    data set."""
    output: Path
    """New directory for the student."""
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
    keep_layers: list[int] | None = None
    """The very layers to keep, counted from 0, instead of the most important."""
    budget: ShapeBudget = field(default_factory=ShapeBudget)
    """A size to reach instead of a shape."""
    shape: str = "uniform"
    """With a budget, what is cut: width (every width by about one ratio, and no layer; also called
    uniform), depth (layers alone, as few as it takes), depth+width (layers and every width by about
    one ratio) or ffn+heads (these by about one ratio; hidden size and layers stay)."""
    space: PruneSpace = field(default_factory=PruneSpace)
    """What sizes there are to choose from."""
    serve_with: list[str] = field(default_factory=list)
    """Engines that must take the student and compute it rightly, any of transformers4, vllm,
    sglang, llama.cpp, ctranslate2 and mlx: what they do not take is refused, with their rule."""
    cut: PruneSettings = field(default_factory=PruneSettings)
    """How the student is cut."""
    calibration: int = 1024
    """Training sequences that importance is measured on, at most."""
    batch: int = 16
    """Sequences at once."""
    block: int | None = None
    """Tokens per sequence; by default the model's positions, at most 1024."""
    device: str = "auto"
    """cpu, cuda, or auto."""
    teacher_precision: str = "file"
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

    def __post_init__(self) -> None:
        check_values(self)
        sizes = {axis: getattr(self, axis) for axis in AXES if getattr(self, axis) is not None}
        share = self.budget.parameters
        if share is not None and (sizes or self.keep_layers is not None):
            given = ", ".join(f"--{axis}" for axis in sizes) or "--keep_layers"
            raise PruningError(f"--budget.parameters and {given} are both given; give one of them")
        if share is None and not sizes and self.keep_layers is None:
            raise PruningError(
                "no size is given; give --layers, --hidden, ..., or --budget.parameters"
            )
        if self.shape not in SHAPES:
            raise PruningError(f"--shape is {self.shape!r}; it must be one of {', '.join(SHAPES)}")
        if self.device not in DEVICES:
            raise PruningError(
                f"--device is {self.device!r}; it must be one of {', '.join(DEVICES)}"
            )
        for axis, multiple in SpaceConfig(multiple_of=self.space.multiple_of).multiples.items():
            if sizes.get(axis, 0) % multiple:
                raise PruningError(
                    f"--{axis} is {sizes[axis]}, which is no multiple of the {multiple} of "
                    "--space.multiple_of"
                )
        check_teacher_precision(self.teacher_precision)
        for name in ("calibration", "batch"):
            if getattr(self, name) < 1:
                raise PruningError(f"--{name} is {getattr(self, name)}; it must be at least 1")
        for name, check in (("score", score_named), ("layer_score", check_layer_score)):
            try:
                check(getattr(self.cut, name))
            except PruningError as problem:
                raise PruningError(f"--cut.{name}: {problem}") from problem


def main(arguments: list[str] | None = None) -> int:
    def work() -> None:
        config = parse(PruneConfig, __doc__, arguments)
        with interruptible():
            run_prune(config)

    return exit_status(work, lambda: "nothing was written")


def run_prune(config: PruneConfig) -> dict[str, Any]:
    """Cut, measure and write a student; returns what prune.json holds."""
    say = timed_lines()

    Machine.here().keep_to_quota(say)
    device = resolve_device(config.device)
    teacher = Teacher.open(config.teacher)
    check_options(teacher.config, config.cut.head_merge, config.cut.bias_compensation)
    whole = architecture_of(teacher.config)
    say(f"teacher: {whole}, {teacher.parameters:,} parameters")
    architecture = wanted_architecture(config, teacher)
    served = Served(teacher.config, tuple(config.serve_with))
    served.check(config.cut.shape(architecture), config.keep_layers)
    for caution in served.cautions():
        say(f"note: {caution}")
    size = int(parameter_count(teacher.config, architecture, config.keep_layers))
    say(f"student: {architecture}, {size:,} parameters ({size / teacher.parameters:.1%})")
    with fresh_directory(config.output) as aside, tempfile.TemporaryDirectory() as scratch:
        require_space(config.output.absolute().parent, size * teacher.dtype.itemsize)
        text = _text(config, teacher)
        teacher.check()
        dtype = teacher.dtype_in(config.teacher_precision)
        for line in (precision_note(dtype, device), *notes_of(teacher)):
            say(line)
        name = teacher.tokenizer_fingerprint()
        corpus = text.packed(teacher.tokenizer, name, root=Path(scratch), say=say)
        corpus.require_known(teacher.config.vocab_size, teacher.tokenizer, "the teacher")
        model = _loaded(teacher, dtype, config, Path(scratch))
        block = corpus.calibration(1)[0]
        say(_slice_proof(model, block, Path(scratch)).shuffled())
        blocks = corpus.calibration(config.calibration)
        say(f"importance: {len(blocks):,} sequences of {corpus.block} tokens, {config.cut.score}")
        batches = CalibrationBatches(blocks, config.batch)
        pruned = prune(
            teacher.directory,
            architecture,
            batches,
            aside,
            config.cut,
            config.keep_layers,
            model(),
            config.serve_with,
        )
        for line in kept_lines(pruned, architecture, whole):
            say(line)
        engines = engines_of(Checkpoint(aside).config)
        say(engines_line(engines))
        facts: dict[str, Any] = {
            "teacher": config.teacher,
            "architecture": architecture.to_dict(),
            "parameters": _parameters(aside),
            "kept_layers": pruned.kept_layers,
            "kept_channels": pruned.ordering.hidden[: architecture.hidden].tolist(),
            "cut": asdict(config.cut),
            "engines": [asdict(verdict) for verdict in engines],
        }
        student = model.like(Teacher(aside))
        if config.evaluate:
            facts["test"] = measured(student(), model(), corpus)
            for name, value in facts["test"].items():
                say(f"{name.replace('_', ' ')}: {value:.4f}")
        model.release()
        answers = next_token_log_probs(student(), block)
        _finish(config, teacher, aside, facts)
        student.release()
        say(written_line("the student", require_written(aside, block, answers, student)))
    say(f"written: {config.output}")
    return facts


def wanted_architecture(config: PruneConfig, teacher: Teacher) -> Architecture:
    """The student's sizes. Raises PruningError or SearchError for what cannot be."""
    whole = architecture_of(teacher.config)
    if config.budget.parameters is not None:
        return _in_budget(config, teacher)
    given = {axis: getattr(config, axis) for axis in AXES if getattr(config, axis) is not None}
    if config.keep_layers is not None:
        if given.setdefault("layers", len(config.keep_layers)) != len(config.keep_layers):
            raise PruningError(
                f"--layers is {given['layers']}, but --keep_layers names {len(config.keep_layers)}"
            )
        if not in_order(config.keep_layers, whole.layers):
            raise PruningError(
                f"--keep_layers is {config.keep_layers}; name each layer once, in order, between 0 "
                f"and {whole.layers - 1}"
            )
    if whole.heads == whole.kv_heads:
        given.setdefault("kv_heads", given.get("heads", whole.kv_heads))
    architecture = replace(whole, **given)
    check_architecture(teacher.config, architecture)
    return architecture


def _in_budget(config: PruneConfig, teacher: Teacher) -> Architecture:
    assert config.budget.parameters is not None
    whole = architecture_of(teacher.config)
    limits = BudgetConfig(config.budget.parameters, config.budget.tolerance)
    costs = CostModel.of(teacher.config, limits)
    budget = Budget.of(limits, costs)
    largest = budget.most("parameters")
    assert largest is not None
    narrowing = Narrowing(
        config.cut.layer_score, tuple(config.serve_with), resolve_device(config.device).type
    )
    if config.shape == "depth":
        served = Served(teacher.config, narrowing.serve_with)
        every = [replace(whole, layers=count) for count in range(whole.layers, 0, -1)]
        depths = [shape for shape in every if served.holds(config.cut.shape(shape))]
        if not depths:
            served.check(config.cut.shape(whole))
        for shape in depths:
            if parameter_count(teacher.config, shape) <= largest:
                return shape
        raise PruningError(
            f"even one layer of full width has {parameter_count(teacher.config, depths[-1]):,} "
            f"parameters, above the budget of {largest:,.0f}; use --shape uniform"
        )
    name = SHAPES[config.shape]
    layers = None if "layers" in CUT_AXES[name] else [whole.layers]
    space = SpaceConfig(layers=layers, multiple_of=config.space.multiple_of)
    found = Space.build(teacher.config, space, budget, costs, narrowing).anchors()[name]
    if found is None:
        raise PruningError(
            f"no student of --shape {config.shape} has {budget}; use --shape uniform, or another "
            "budget"
        )
    return found


def _text(config: PruneConfig, teacher: Teacher) -> CorpusPlan:
    block = min(1024, teacher.positions) if config.block is None else config.block
    if not 8 <= block <= teacher.positions:
        raise PruningError(
            f"--block is {block}; it must be between 8 and the teacher's {teacher.positions}"
        )
    plan = planned_text(config, teacher, block)
    return plan.needing(config.calibration * block)


def _slice_proof(model: LoadedModel, block: Any, scratch: Path) -> SliceProof:
    """That what will be cut is what is loaded; a teacher that is spread over devices is sorted on
    the disk."""

    def spread_slice(ordering: Ordering) -> Any:
        with tempfile.TemporaryDirectory(prefix="slice-", dir=scratch) as folder:
            write_sorted_teacher(model.source.checkpoint, ordering, Path(folder) / "sorted")
            return model.like(Teacher(Path(folder) / "sorted"))()

    return SliceProof(model, block, spread_slice if model.placement else None)


def _loaded(
    teacher: Teacher, dtype: torch.dtype, config: PruneConfig, scratch: Path
) -> LoadedModel:
    """On the device, or spread."""
    placement: dict[str, Any] = {}
    if config.spread:
        folder = tempfile.mkdtemp(prefix="offload-", dir=scratch)
        placement = {"device_map": "auto", "offload_folder": folder}
    return LoadedModel(teacher, resolve_device(config.device), dtype, placement)


def kept_lines(pruned: Pruned, architecture: Architecture, whole: Architecture) -> list[str]:
    """What is kept per axis, and the share of the importance that it has."""
    importance, ordering = pruned.importance, pruned.ordering
    kept = ", ".join(map(str, pruned.kept_layers))
    lines = [f"kept: layers {architecture.layers} of {whole.layers}: {kept}"]
    layers = torch.tensor(pruned.kept_layers)
    for axis in ("hidden", "heads", "kv_heads", "ffn", "experts", "expert_ffn"):
        size, full = getattr(architecture, axis), getattr(whole, axis)
        if not full:
            continue
        line = f"kept: {axis} {size:,} of {full:,} ({size / full:.0%})"
        if axis in ("hidden", "ffn"):
            scores, order = getattr(importance, axis), getattr(ordering, axis)
            if axis == "ffn":
                scores, order = scores[layers], order[layers]
            share = scores.gather(-1, order[..., :size]).sum() / scores.sum().clamp_min(1e-30)
            line += f", {float(share):.0%} of their importance"
        lines.append(line)
    return lines


def _parameters(directory: Path) -> int:
    """Of a written student, with biases that its teacher does not have."""
    config = Checkpoint(directory).config
    every = list(range(config.num_hidden_layers))
    return int(parameter_count(config, architecture_of(config), every))


def measured(student: Any, model: Any, corpus: Corpus) -> dict[str, float]:
    """The student before any training, against the teacher on the test split."""
    precision = resolve_precision("auto", next(student.parameters()).device)
    student_scores, own = evaluate_live(
        student, model, blocks=corpus.blocks("test"), precision=precision
    )
    means = student_scores.means()
    return {
        "zero_shot_kl": means["kl"],
        "perplexity": exp(min(means["ce"], 700.0)),
        "teacher_perplexity": exp(float(own.mean())),
        "top1_agreement": means["top1_agreement"],
    }


def _finish(config: PruneConfig, teacher: Teacher, directory: Path, facts: dict[str, Any]) -> None:
    """Beside the weights: all that others need to use them, and prune.json."""
    finish_folder(directory, teacher)
    origin = Origin.of({config.teacher: teacher.directory}, config.corpus)
    write_cut_card(directory, facts, origin)
    (directory / "prune.json").write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
