"""Workshop of the benchmark: block libraries, scores of blocks, and KL before training, on Ray."""

import argparse
import contextlib
from collections.abc import Iterator, Sequence

from experiments.benchmarks.per_layer.setting import NESTED, SCORED, SOURCES, per_layer_of
from pruning import Architecture
from search.cluster import Resources, Room, ray_cluster
from search.inputs import Inputs
from search.library import BlockScores, Library, LibraryBuilder, Slots
from search.trials import ZeroShotPlan, score_zero_shot
from search.workers import SearchAssets, Slot, SlotPool
from workspace.layout import RAY_ERRORS, Workspace

CHECKPOINT_SECONDS = 15.0


class Workshop:
    """Inside its context Ray is up; all that it makes is kept in the output folder."""

    def __init__(self, options: argparse.Namespace, inputs: Inputs, assets: SearchAssets):
        """Of the benchmark's options, a study of any of its limits, and what that prepared."""
        self.options, self.inputs, self.assets = options, inputs, assets
        gpus = 1 / options.processes if options.device == "cuda" else 0.0
        self.resources = Resources(options.processes, 1, gpus)
        self.slots = SlotPool(Room(self.resources), Slot)
        self.libraries: dict[str, Library] = {}

    @contextlib.contextmanager
    def open(self) -> Iterator["Workshop"]:
        """Bring up Ray and train the blocks of every source."""
        with ray_cluster("per-layer", self.resources):
            for source in SOURCES:
                self.libraries[source] = self._builder(source).trained()
            self._scorer = self._builder(NESTED)
            yield self

    def scores(self) -> BlockScores:
        """Of the blocks that were trained nested, one at a time in the teacher."""
        return self._scorer.scores(self.libraries[NESTED])

    def zero_shot(self, shapes: Sequence[Architecture]) -> dict[Architecture, float]:
        """KL before training of students that are cut from blocks that were trained nested."""
        plan = ZeroShotPlan(
            assets=self.libraries[NESTED].assets,
            sequences=SCORED,
            access=None,
            directory=self.options.output,
        )
        return score_zero_shot(list(shapes), plan, slots=self.slots).scores

    def _builder(self, source: str) -> LibraryBuilder:
        plan = self.inputs.per_layer
        assert plan is not None, "the benchmark's studies have layers that differ"
        return LibraryBuilder(
            assets=self.assets,
            variants=plan.variants,
            settings=per_layer_of(self.options, source),
            slots=Slots(
                slots=self.slots,
                access=None,
                errors=self.options.output / RAY_ERRORS,
            ),
            workspace=Workspace(self.options.output.absolute()),
            checkpoint_seconds=CHECKPOINT_SECONDS,
        )
