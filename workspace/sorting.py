"""Sorting by importance: of the teacher, and of the students that a family cuts from."""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor

from common.files import replacing, write_file_atomically
from common.fingerprint import fingerprint
from distill import Corpus
from pruning import (
    Importance,
    Ordering,
    PruneSettings,
    Served,
    architecture_of,
    layers_alike,
    measure_importance,
    write_sorted_teacher,
)
from pruning.families import expert_groups
from pruning.importance import DEFAULT_EXPERT_SCORE, LayerMix, measure_moments
from workspace.calibration import CalibrationBatches
from workspace.layout import Workspace
from workspace.models.loaded_model import LoadedModel
from workspace.models.model_source import ModelSource
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

    def sorted(self, model: LoadedModel, name: str) -> SortedTeacher:
        """The source of `model` sorted, now or before; printed lines call it `name`.

        With proof before its importance is measured and after it was written. Raises SearchError
        where it cannot be cut.
        """
        proof = SliceProof(model, self.corpus.calibration(1)[0])
        directory = self.workspace.sorted_teacher(self._fingerprint(model.source))
        sorted_teacher = SortedTeacher(directory)
        if directory.exists():
            LOGGER.info(f"sorted {name}: found {directory.name}")
        else:
            LOGGER.info(proof.shuffled())
            self._write(sorted_teacher, model, name=name)
        if not (directory / PROOF).exists():
            line = proof.sorted(sorted_teacher)
            write_file_atomically(directory / PROOF, line + "\n")
            LOGGER.info(line)
        return sorted_teacher

    def _write(self, goal: SortedTeacher, model: LoadedModel, *, name: str) -> None:
        source, importance = model.source, self._importance(model)
        whole, places = architecture_of(source.config), self._places(source)
        mix = LayerMix.of(source.config, self.settings.shares)
        ordering = Ordering.from_importance(
            importance, whole, places=places, mix=mix, expert_groups=expert_groups(source.config)
        )
        mean_squares = None
        if self.settings.rms_rescale:
            few = self.corpus.calibration(min(self.calibration, ENERGY_SEQUENCES))
            mean_squares = measure_moments(model(), CalibrationBatches(few)).mean_squares
        write_sorted_teacher(source.checkpoint, ordering, goal.directory, mean_squares=mean_squares)
        order = ", ".join(str(layer) for layer in ordering.layers.tolist())
        LOGGER.info(f"sorted {name}: {goal.directory.name}; layers by importance: {order}")

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
            how += [self.settings.expert_score] * (
                self.settings.expert_score != DEFAULT_EXPERT_SCORE
            )
        weights, text = source.weights_fingerprint(), self.corpus.digest
        return fingerprint(weights, text, self.calibration, *how)

    def _places(self, source: ModelSource) -> Tensor | None:
        """Where its layers may stand in a student; None: anywhere."""
        return Served(source.config, self.serve_with).places

    def _importance(self, model: LoadedModel) -> Importance:
        path = self.workspace.importance(self._fingerprint(model.source))
        if path.exists():
            return Importance.load(path)
        blocks = self.corpus.calibration(self.calibration)
        started = time.monotonic()
        importance = measure_importance(
            model(),
            CalibrationBatches(blocks),
            scoring=replace(self.settings.scoring, spans=self.spans, seed=self.seed),
            checkpoint=model.source.checkpoint,
        )
        with replacing(path) as aside:
            importance.save(aside)
        LOGGER.info(f"importance: {len(blocks):,} sequences in {time.monotonic() - started:.0f} s")
        return importance
