"""Library of a study: blocks that were trained at several sizes, and the score of each.

from search.library import LibraryBuilder

builder = LibraryBuilder(assets=..., variants=..., settings=..., slots=..., workspace=...)
library = builder.trained()
scores = builder.scores(library)
scores.of(layer, block)
"""

import logging
from dataclasses import asdict, dataclass, replace
from functools import cached_property

from common.fingerprint import fingerprint
from distill import Corpus
from distill.recipes import BlockwiseSettings, block_rate
from pruning import Checkpoint, architecture_of, parameter_count
from pruning.families import text_of_blocks
from search.config.per_layer import SEPARATE, PerLayerConfig
from search.library.block_scores import Parent, ScoringPlan
from search.library.nested_training import TrainingPlan
from search.library.scoring import BlockScores, score_blocks
from search.library.slots import Slots
from search.library.training import BlockError, train_library
from search.space.variants import LayerVariants
from search.workers.candidate import SearchAssets
from workspace.layout import Workspace

LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Library:
    """Blocks that students whose layers differ are cut out of."""

    assets: SearchAssets
    """Those of the study; of a trained library they say where it is."""
    errors: tuple[BlockError, ...] = ()
    """Of what was trained; () where blocks are as they are in the sorted teacher."""


@dataclass(frozen=True, kw_only=True)
class LibraryBuilder:
    """Makes what students whose layers differ are cut and chosen from, each once.

    Whatever is killed, the same builder goes on where it was and ends with the same.
    """

    assets: SearchAssets
    """What runs of the study read."""
    variants: tuple[LayerVariants, ...]
    """Attentions and FFNs of each of the teacher's layers."""
    settings: PerLayerConfig
    """How blocks are trained and scored."""
    slots: Slots
    """Where tasks run."""
    workspace: Workspace
    """Where library and scores are kept."""
    checkpoint_seconds: float
    """Least seconds between two checkpoints of a task."""

    def trained(self) -> Library:
        """The library, trained now or before; without training where --per_layer.tokens is 0.

        Ray must be up. Raises SearchError where the disk is too small, SearchStopped where tasks
        keep failing.
        """
        plan = self._training
        if not self.settings.tokens or not plan.schedules:
            return Library(self.assets)
        directory = self.workspace.library(self._fingerprint(plan))
        found = directory.exists()
        errors = train_library(plan, directory, slots=self.slots)
        if found:
            LOGGER.info(f"block library: found {directory.name}")
        unused = sum(not error.used for error in errors)
        if unused:
            LOGGER.info(
                f"block library: {unused} of {len(errors)} blocks did not come closer to the "
                "teacher; they stay as the sorted teacher has them"
            )
        return Library(replace(self.assets, library=directory), tuple(errors))

    def scores(self, library: Library, parent: Parent | None = None) -> BlockScores:
        """What the teacher, or the student `parent`, loses with each block of the library in place
        of its own, on sequences of the selection split.

        The selection split stops and ranks trials too, and blocks are not trained on it; the test
        split is not read. Ray must be up. Raises SearchStopped where tasks keep failing.
        """
        plan = ScoringPlan(
            assets=library.assets,
            variants=self.variants,
            sequences=self.settings.sequences,
            measure=self.settings.score,
            parent=parent,
        )
        trained = "" if library.assets.library is None else library.assets.library.name
        around = None if parent is None else [str(parent.architecture), parent.kept_layers]
        name = fingerprint(
            self.assets.sorted_teacher.name,
            trained,
            self._corpus.digest,
            self._sizes,
            plan.sequences,
            plan.measure,
            around,
            *self._precision,
        )
        return score_blocks(plan, self.workspace.block_scores(name), slots=self.slots)

    @property
    def _training(self) -> TrainingPlan:
        given = self.settings
        config = Checkpoint(self.assets.sorted_teacher).config
        size = parameter_count(config, architecture_of(config))
        settings = BlockwiseSettings(
            tokens=max(1, given.tokens),
            learning_rate=given.learning_rate or block_rate(size),
            batch=given.batch,
            absorb_dropped=False,
            precision=self.assets.training.precision,
        )
        return TrainingPlan(
            assets=self.assets,
            variants=self.variants,
            settings=settings,
            separate=given.distillation == SEPARATE,
            plateau=given.plateau,
            checkpoint_seconds=self.checkpoint_seconds,
        )

    def _fingerprint(self, plan: TrainingPlan) -> str:
        return fingerprint(
            self.assets.sorted_teacher.name,
            self._corpus.digest,
            self._sizes,
            asdict(plan.settings),
            plan.separate,
            plan.plateau,
            self.assets.seed,
            *self._precision,
        )

    @cached_property
    def _corpus(self) -> Corpus:
        return Corpus(self.assets.corpus)

    @property
    def _sizes(self) -> list[list[str]]:
        """The variants, in words."""
        return [
            [text_of_blocks([part]) for part in (*variants.attention, *variants.ffn)]
            for variants in self.variants
        ]

    @property
    def _precision(self) -> tuple[str, str]:
        return self.assets.training.precision, self.assets.teacher_dtype
