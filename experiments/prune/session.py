"""Cut one student out of a teacher, measure it, and write it for others to use."""

import json
import logging
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from common.files import fresh_directory, require_fresh, require_space
from common.log import timed_lines
from common.machine import Machine
from common.progress import tell
from distill import Corpus, CorpusPlan, evaluate_live, resolve_precision
from distill.evaluation import next_token_log_probs, perplexity
from experiments.prune.config import ExplainConfig, PruneConfig
from experiments.prune.plan import CutPlan
from experiments.prune.shape import wanted_architecture
from experiments.prune.tracking import track_cut, trackers_of
from pruning import (
    AXES,
    Architecture,
    Checkpoint,
    Pruned,
    Pruner,
    PruningError,
    Served,
    architecture_of,
    engines_line,
    engines_of,
    parameter_count,
    student_config,
)
from pruning.exports import check_copies
from pruning.inference import explanation, inferred_row_proofs
from pruning.slicing import Slice
from search.results import Origin, write_copy_card, write_cut_card
from workspace.corpus import planned_text
from workspace.corpus_and_targets import TEST
from workspace.importance import CalibrationBatches
from workspace.layout import Workspace
from workspace.models import (
    CUT_FACTS,
    LoadedModel,
    ModelSource,
    copy_folder,
    finish_folder,
    notes_of,
    precision_note,
    write_copies,
)
from workspace.proof import SliceProof, require_written, written_line
from workspace.publishing import check_target, publish
from workspace.settings import LONGEST_BLOCK, SHORTEST_BLOCK, resolve_device
from workspace.sources import Sources

LOGGER = logging.getLogger(__name__)


@timed_lines()
def run_prune(config: PruneConfig | ExplainConfig) -> dict[str, Any]:
    """Cut, measure and write a student; returns what prune.json holds. Or explain a row, or print
    what the cut takes, and return nothing.

    Raises:
        SearchError, PruningError, DistillError: Something cannot be used; nothing was written.
    """
    Machine.here().keep_to_quota()
    if config.explain is not None:
        for line in explanation(config.explain):
            print(line, flush=True)
        return {}
    assert isinstance(config, PruneConfig)
    if config.plan:
        CutPlan.of(config).plan().shown()
        return {}
    if config.push_to_hub is not None:
        check_target(config.push_to_hub, option="--push_to_hub")
    cut = PlannedCut.of(config)
    trackers = trackers_of(config)
    fresh = fresh_directory(config.output, error=PruningError)
    with fresh as aside, tempfile.TemporaryDirectory() as scratch:
        needed = cut.parameters * cut.teacher.dtype.itemsize
        require_space(config.output.absolute().parent, needed, error=PruningError)
        text = cut.planned_text()
        with _text_model_of(cut, beside=aside) as placed:
            facts = placed.written(aside, Path(scratch), text)
    LOGGER.info(f"written: {config.output}")
    track_cut(trackers, config, facts)
    card = partial(write_copy_card, student=config.output, name=str(config.output))
    write_copies(config.output, config.export, card, part=cut.teacher.part)
    if config.push_to_hub is not None:
        publish(config.output, config.push_to_hub)
    return facts


@dataclass(frozen=True)
class PlannedCut:
    """A teacher, and the shape that is cut out of it."""

    config: PruneConfig
    """What the user set."""
    teacher: ModelSource
    """The model that is cut."""
    architecture: Architecture
    """Sizes of the student."""
    device: torch.device
    """Where teacher and student are loaded."""

    @classmethod
    def of(cls, config: PruneConfig) -> "PlannedCut":
        """Raises SearchError or PruningError for what cannot be cut."""
        device = resolve_device(config.device)
        teacher = ModelSource.open(config.teacher)
        LOGGER.info(
            f"teacher: {architecture_of(teacher.config)}, {teacher.parameters:,} parameters"
        )
        wanted = wanted_architecture(config, teacher, device=device.type)
        cut = cls(config, teacher, wanted, device)
        served = Served(teacher.config, tuple(config.serve_with))
        served.check(config.cut.shape(cut.architecture), config.keep_layers)
        cut.check_copies()
        for caution in served.cautions():
            LOGGER.info(f"note: {caution}")
        config.cut.check(teacher.config, cut.architecture)
        if config.keep_layers is not None:
            Slice.of(teacher.config, cut.architecture, kept_layers=config.keep_layers)
        share = cut.parameters / teacher.parameters
        LOGGER.info(f"student: {cut.architecture}, {cut.parameters:,} parameters ({share:.1%})")
        return cut

    @property
    def parameters(self) -> int:
        """Parameters of the student, without biases that the cut may add."""
        config, kept = self.teacher.config, self.config.keep_layers
        return int(parameter_count(config, self.architecture, kept=kept))

    def check_copies(self) -> None:
        """Raises PruningError for copies that the student cannot have, or whose place is taken."""
        kept = self.config.keep_layers or range(self.architecture.layers)
        student = student_config(self.teacher.config, self.architecture, kept)
        check_copies(self.config.export, student, part=self.teacher.part)
        for form in self.config.export:
            require_fresh(copy_folder(self.config.output, form), error=PruningError)

    def written(self, directory: Path, scratch: Path, text: CorpusPlan) -> dict[str, Any]:
        """Cut the student into `directory`, measured and with proof; returns its facts."""
        config, teacher = self.config, self.teacher
        corpus = self._corpus(scratch, text)
        model = self._model(scratch)
        block = corpus.calibration(1)[0]
        tell(LOGGER, work="proof that it is cut as it is loaded")
        for line in inferred_row_proofs(teacher.checkpoint):
            LOGGER.info(line)
        LOGGER.info(SliceProof(model, block, scratch).shuffled())
        pruned = self._cut(model, corpus, directory=directory)
        facts = self._facts(pruned, directory)
        student = model.like(ModelSource(directory))
        if config.evaluate:
            tell(LOGGER, work="test of student and teacher")
            facts["test"] = measured(student(), model(), corpus=corpus)
            for name, value in facts["test"].items():
                LOGGER.info(f"{name.replace('_', ' ')}: {value:.4f}")
        model.release()
        answers = next_token_log_probs(student(), block)
        finish_folder(directory, teacher)
        origin = Origin.of({config.teacher: teacher.directory}, config.corpus)
        write_cut_card(directory, facts, origin=origin)
        (directory / CUT_FACTS).write_text(json.dumps(facts, indent=2) + "\n")
        student.release()
        differing = require_written(directory, block, measured=answers, loaded=student)
        LOGGER.info(written_line("the student", differing))
        return facts

    def planned_text(self) -> CorpusPlan:
        """The text in blocks. Raises PruningError or DistillError where it cannot be used."""
        config, teacher = self.config, self.teacher
        block = min(LONGEST_BLOCK, teacher.positions) if config.block is None else config.block
        if not SHORTEST_BLOCK <= block <= teacher.positions:
            raise PruningError(
                f"--block is {block}; it must be between {SHORTEST_BLOCK} and the teacher's "
                f"{teacher.positions}"
            )
        return planned_text(config, teacher, block=block)

    def _corpus(self, scratch: Path, text: CorpusPlan) -> Corpus:
        """The text, packed into `scratch`."""
        config, teacher = self.config, self.teacher
        sources = Sources(
            teacher=teacher,
            text=text,
            device=self.device,
            teacher_precision=config.teacher_precision,
        )
        teacher.check()
        for line in (precision_note(sources.teacher_dtype, self.device), *notes_of(teacher)):
            LOGGER.info(line)
        return sources.pack(
            config.calibration * sources.block,
            scratch,
            vocabulary=teacher.config.vocab_size,
            known_to="the teacher",
        )

    def _model(self, scratch: Path) -> LoadedModel:
        """The teacher, on the device or spread."""
        placement: dict[str, Any] = {}
        if self.config.spread:
            folder = tempfile.mkdtemp(prefix="offload-", dir=scratch)
            placement = {"device_map": "auto", "offload_folder": folder}
        dtype = self.teacher.dtype_in(self.config.teacher_precision)
        return LoadedModel(self.teacher, self.device, dtype, placement)

    def _cut(self, model: LoadedModel, corpus: Corpus, *, directory: Path) -> Pruned:
        """Score the parts of the teacher and write the student into `directory`."""
        config, blocks = self.config, corpus.calibration(self.config.calibration)
        LOGGER.info(
            f"importance: {len(blocks):,} sequences of {corpus.block} tokens, {config.cut.score}"
        )
        pruner = Pruner(self.teacher.directory, config.cut, model(), config.serve_with)
        pruned = pruner.prune(
            self.architecture,
            CalibrationBatches(blocks, config.batch),
            output=directory,
            kept_layers=config.keep_layers,
        )
        whole = architecture_of(self.teacher.config)
        left = architecture_of(Checkpoint(directory).config)
        axes = [axis for axis in AXES if getattr(left, axis)]
        for line in kept_lines(pruned, self.architecture, whole=whole, axes=axes):
            LOGGER.info(line)
        return pruned

    def _facts(self, pruned: Pruned, directory: Path) -> dict[str, Any]:
        """What prune.json says of the written student, before it is measured."""
        student = Checkpoint(directory).config
        engines = engines_of(student)
        LOGGER.info(engines_line(engines))
        kept = range(student.num_hidden_layers)
        return {
            "teacher": self.config.teacher,
            "architecture": self.architecture.to_dict(),
            "parameters": parameter_count(student, architecture_of(student), kept=kept),
            "kept_layers": pruned.kept_layers,
            "kept_channels": pruned.ordering.hidden[: self.architecture.hidden].tolist(),
            "cut": asdict(self.config.cut),
            "engines": [asdict(verdict) for verdict in engines],
        }


@contextmanager
def _text_model_of(cut: PlannedCut, *, beside: Path) -> Iterator[PlannedCut]:
    """The cut out of a folder that transformers loads: of a multimodal teacher, out of its text
    model, which lies on the disk of the output meanwhile."""
    if cut.teacher.part is None:
        yield cut
        return
    with tempfile.TemporaryDirectory(prefix=".text-", suffix=".tmp", dir=beside.parent) as folder:
        yield replace(cut, teacher=cut.teacher.placed(Workspace(Path(folder), "--output")))


def kept_lines(
    pruned: Pruned, architecture: Architecture, *, whole: Architecture, axes: Collection[str]
) -> list[str]:
    """What is kept per axis of the `whole` teacher, and its share of the importance; means over the
    layers where these differ. `axes` are those of which the student has a layer."""
    kept = ", ".join(map(str, pruned.kept_layers))
    lines = [f"kept: layers {architecture.layers} of {whole.layers}: {kept}"]
    for axis in AXES[1:]:
        full = getattr(whole, axis)
        if not full:
            continue
        if axis not in axes:
            lines.append(f"kept: no layer with {axis}")
            continue
        sizes = [getattr(architecture.layer_sizes(n), axis) for n in range(architecture.layers)]
        size = sum(sizes) / len(sizes)
        line = f"kept: {axis} {size:,.6g} of {full:,} ({size / full:.0%})"
        if len(set(sizes)) > 1:
            line += f", from {min(sizes):,} to {max(sizes):,}"
        if axis in ("hidden", "ffn"):
            line += f", {_share_of_importance(pruned, axis, sizes=sizes):.0%} of their importance"
        lines.append(line)
    return lines


def _share_of_importance(pruned: Pruned, axis: str, *, sizes: Sequence[int]) -> float:
    """Share of the importance of all units that those have which are kept; `sizes` are of each
    layer."""
    scores, order = getattr(pruned.importance, axis), getattr(pruned.ordering, axis)
    if axis == "hidden":
        kept = scores[order[: sizes[0]]].sum()
    else:
        layers = torch.tensor(pruned.kept_layers)
        scores, order = scores[layers], order[layers]
        ranked = scores.gather(-1, order)
        kept = torch.stack([r[:size].sum() for r, size in zip(ranked, sizes, strict=True)]).sum()
    return float(kept / scores.sum().clamp_min(1e-30))


def measured(student: Any, teacher: Any, *, corpus: Corpus) -> dict[str, float]:
    """The student before any training, against the teacher on the test split."""
    precision = resolve_precision("auto", next(student.parameters()).device)
    scores, teacher_ce = evaluate_live(
        student, teacher, blocks=corpus.blocks(TEST), precision=precision
    )
    means = scores.means()
    return {
        "zero_shot_kl": means["kl"],
        "perplexity": perplexity(means["ce"]),
        "teacher_perplexity": perplexity(float(teacher_ce.mean())),
        "top1_agreement": means["top1_agreement"],
    }
