"""Sorting by importance: of the teacher, and of the students that a family cuts from."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor

from common.files import write_file_atomically
from common.fingerprint import fingerprint
from distill import Corpus
from pruning import (
    Ordering,
    PruneSettings,
    Served,
    architecture_of,
    layers_alike,
    write_sorted_teacher,
)
from pruning.families import expert_groups
from pruning.importance import OUTPUT_NORM, LayerMix
from pruning.inference import inferred_row_proofs
from workspace.importance import ImportanceFiles
from workspace.layout import Workspace
from workspace.models.loaded_model import LoadedModel
from workspace.models.model_source import ModelSource
from workspace.pieces import Compute, compute_here
from workspace.proof import SliceProof
from workspace.sorted_teacher import SortedTeacher

LOGGER = logging.getLogger(__name__)
ENERGY_SEQUENCES = 64
"""Sequences that the size of the norms' inputs is measured on, at most."""
PROOF = "proof.txt"
"""In a sorted teacher that was proven to be the teacher."""


@dataclass(frozen=True)
class Sorter:
    """Measures importance and writes sorted models into the workspace, each once."""

    settings: PruneSettings
    """The scores, and whether norms are given the size that they had."""
    corpus: Corpus
    """Text that importance is measured on."""
    calibration: int
    """Training sequences that importance is measured on, at most."""
    spans: bool
    """Whether contiguous layers are scored too."""
    seed: int
    """Seeds the `random` score."""
    serve_with: tuple[str, ...]
    """Engines whose patterns of layers students keep."""
    workspace: Workspace
    """Where sorted models and importance are kept."""
    precision: Mapping[str, str] = field(default_factory=dict)
    """What the model computes in, where it is not fp32."""

    def sorted(
        self, model: LoadedModel, name: str, compute: Compute = compute_here
    ) -> SortedTeacher:
        """The source of `model` sorted, now or before; printed lines call it `name`.

        With proof before its importance is measured, by `compute`, and after it was written. Raises
        SearchError where it cannot be cut, PruningError where its scores are not finite.
        """
        proof = SliceProof(model, self.corpus.calibration(1)[0], self.workspace.root)
        directory = self.workspace.sorted_teacher(self._fingerprint(model.source))
        sorted_teacher = SortedTeacher(directory)
        if directory.exists():
            LOGGER.info(f"sorted {name}: found {directory.name}")
        else:
            for line in inferred_row_proofs(model.source.checkpoint):
                LOGGER.info(line)
            LOGGER.info(proof.shuffled())
            files = self._importance(model.source)
            compute(model, files.missing(moments=self.settings.rms_rescale))
            self._write(sorted_teacher, model.source, files=files)
            files.forget_pieces()
            order = ", ".join(str(layer) for layer in sorted_teacher.ordering.layers.tolist())
            LOGGER.info(f"sorted {name}: {directory.name}; layers by importance: {order}")
        if not (directory / PROOF).exists():
            line = proof.sorted(sorted_teacher)
            write_file_atomically(directory / PROOF, line + "\n")
            LOGGER.info(line)
        return sorted_teacher

    def _write(self, goal: SortedTeacher, source: ModelSource, *, files: ImportanceFiles) -> None:
        ordering = Ordering.from_importance(
            files.importance(),
            architecture_of(source.config),
            places=self._places(source),
            mix=LayerMix.of(source.config, self.settings.shares),
            expert_groups=expert_groups(source.config),
        )
        mean_squares = files.moments().mean_squares if self.settings.rms_rescale else None
        write_sorted_teacher(source.checkpoint, ordering, goal.directory, mean_squares=mean_squares)

    def _fingerprint(self, source: ModelSource) -> str:
        settings, places = self.settings, self._places(source)
        scores = {
            "score": settings.score,
            "layers": settings.layer_score,
            "rms_rescale": settings.rms_rescale,
        }
        how = [scores, *["spans"] * self.spans, *self.precision.values()]
        how += [] if places is None else [places.tolist()]
        if not layers_alike(source.config):
            how += ["kinds", self.settings.least_layers]
        if architecture_of(source.config).ssm_heads:
            how += [self.settings.ssm_score]
        if architecture_of(source.config).experts:
            how += [self.settings.expert_score] * (self.settings.expert_score != OUTPUT_NORM)
        weights, text = source.weights_fingerprint(), self.corpus.digest
        return fingerprint(weights, text, self.calibration, *how)

    def _places(self, source: ModelSource) -> Tensor | None:
        """Where its layers may stand in a student; None: anywhere."""
        return Served(source.config, self.serve_with).places

    def _importance(self, source: ModelSource) -> ImportanceFiles:
        name = self._fingerprint(source)
        return ImportanceFiles(
            path=self.workspace.importance(name),
            parts=self.workspace.importance_parts(name),
            blocks=self.corpus.calibration(self.calibration),
            few_blocks=self.corpus.calibration(min(self.calibration, ENERGY_SEQUENCES)),
            scoring=replace(self.settings.scoring, spans=self.spans, seed=self.seed),
            checkpoint=source.checkpoint,
        )
