"""Students whose layers differ: the rounds of scores and solutions that give a study its trials."""

import contextlib
import json
import logging
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from pruning import Architecture, Block
from search.database.attributes import LIBRARY_SECONDS
from search.library import LibraryBuilder, Parent, Slots
from search.per_layer.combinations import Combination, Round, write_round
from search.per_layer.depths import ScoreOf
from search.per_layer.planning import PerLayerPlan
from search.per_layer.recorded import record_trials, recorded_trials, with_trials
from search.per_layer.solving import Solving
from search.run.context import PreparedStudy, StudyContext
from search.trials.zero_shot import ZeroShotPlan, score_zero_shot

LOGGER = logging.getLogger(__name__)


class PerLayerStage:
    """Finds the combinations of each round, or reads those that an earlier start found."""

    def __init__(self, study: PreparedStudy, plan: PerLayerPlan):
        """`plan` says what layers may be."""
        self.study, self.plan = study, plan
        self.context = study.context
        self.settings = self.context.config.per_layer

    def round(self, number: int, around: Architecture | None = None) -> Round:
        """Round `number` of scores and solutions, the same for all drivers of the study.

        Blocks are scored in the teacher, from the second round on in the student `around`. Raises
        SearchError, with the nearest combination, where none meets the budget.
        """
        key, coordination = self.context.key, self.context.coordination
        path = self.context.workspace.combinations(key, number)
        trials, found = recorded_trials(coordination, number, key=key), _read(path)
        if trials is None and found is None:
            found = self._found(number, around)
            write_round(path, found)
        if trials is None:
            assert found is not None, "it was found or recorded"
            chosen = [one for one in found.combinations if one.name is not None]
            trials = record_trials(coordination, number, key=key, chosen=chosen)
        complete = with_trials(found, number, trials)
        if complete != found:
            write_round(path, complete)
        for line in complete.lines():
            LOGGER.info(line)
        return complete

    def _found(self, number: int, around: Architecture | None) -> Round:
        kept = kept_by_depth(self.study, self.plan)
        if around is not None:  # no other layers are scored in it
            kept = {around.layers: self.study.assets.source.kept_layers(around)}
        depths = self.plan.chosen(kept, self._scores(around))
        solving = Solving(self.settings, self.context.workspace.root, self.context.config.seed)
        solutions: list[Combination] = []
        ended: list[str] = []
        for depth in depths:
            found, why = solving.solved(depth, around)
            solutions += found
            ended += why
        zero_shot = self._zero_shot([one.architecture for one in solutions])
        controls: list[Combination] = []
        if number == 1:  # of the depth that is best before training
            best = Round(number, tuple(solutions)).named(zero_shot, count=1).combinations[0]
            (depth,) = (d for d in depths if len(d.kept) == best.architecture.layers)
            controls, why = solving.controls(depth)
            ended += why
            zero_shot |= self._zero_shot([one.architecture for one in controls])
        every = Round(number, (*solutions, *controls), tuple(ended))
        return every.named(zero_shot, count=self.settings.solutions)

    def _scores(self, around: Architecture | None) -> ScoreOf:
        """Scores of the library's blocks in the teacher, or in the student `around`."""
        library = self.study.library
        assert library is not None, "the study is prepared with a library"
        parent = None
        if around is not None:
            parent = Parent(around, tuple(self.study.assets.source.kept_layers(around)))
        with noted_seconds(self.context):
            scores = builder_of(self.study, self.plan).scores(library, parent)

        def score_of(layer: int, block: Block) -> float:
            try:
                return scores.of(layer, block)
            except KeyError:  # a block that would leave nothing of the layer
                return math.inf

        return score_of

    def _zero_shot(self, shapes: Sequence[Architecture]) -> dict[Architecture, float]:
        """KL before training: sums of scores do not rank students of several depths."""
        plan = ZeroShotPlan(
            assets=self.study.assets,
            sequences=self.context.config.funnel.sequences,
            access=self.study.access,
            directory=self.context.workspace.root,
        )
        different = list(dict.fromkeys(shapes))
        with noted_seconds(self.context):
            return score_zero_shot(different, plan, slots=self.study.single_slots).scores


def with_library(study: PreparedStudy, plan: PerLayerPlan) -> PreparedStudy:
    """The study with a library of trained blocks, which students whose layers differ are cut from.

    Raises SearchError where no combination meets the budget, which is known before any training,
    and where the disk is too small; SearchStopped where tasks keep failing.
    """
    plan.chosen(kept_by_depth(study, plan))
    with noted_seconds(study.context):
        library = builder_of(study, plan).trained()
    return replace(study, assets=library.assets, library=library)


def kept_by_depth(study: PreparedStudy, plan: PerLayerPlan) -> dict[int, list[int]]:
    """The layers of the teacher that students keep, by their number."""
    source = study.assets.source
    return {count: source.kept_layers(plan.shape(count)) for count in plan.depths}


def builder_of(study: PreparedStudy, plan: PerLayerPlan) -> LibraryBuilder:
    """What trains and scores the blocks of a study."""
    context = study.context
    return LibraryBuilder(
        assets=study.assets,
        variants=plan.variants,
        settings=context.config.per_layer,
        slots=Slots(
            slots=study.single_slots,
            access=study.access,
            errors=context.workspace.ray_errors,
        ),
        workspace=context.workspace,
        checkpoint_seconds=context.config.checkpoint_seconds,
    )


@contextlib.contextmanager
def noted_seconds(context: StudyContext) -> Iterator[None]:
    """Keep the seconds inside, times the slots, that all starts spent on blocks, for the ledger."""
    began = time.monotonic()
    try:
        yield
    finally:
        given = context.resources
        seconds = (time.monotonic() - began) * given.concurrent * given.workers
        before = context.study.user_attrs.get(LIBRARY_SECONDS, 0.0)
        context.study.set_user_attr(LIBRARY_SECONDS, before + seconds)


def _read(path: Path) -> Round | None:
    """A round of an earlier start."""
    try:
        return Round.from_dict(json.loads(path.read_text()))
    except (OSError, ValueError, KeyError, TypeError):
        return None
