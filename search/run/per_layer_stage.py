"""Students whose layers differ: the rounds of scores and solutions that give a study its trials."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path

from pruning import Architecture
from search.per_layer.combinations import Combination, Round, write_round
from search.per_layer.planning import PerLayerPlan
from search.per_layer.recorded import record_trials, recorded_trials, with_trials
from search.per_layer.solving import Solving
from search.run.context import PreparedStudy
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
        depths = self.plan.chosen(self._kept(), self._scores(around))
        solving = Solving(self.settings, self.context.workspace.root, self.context.config.seed)
        solutions: list[Combination] = []
        ended: list[str] = []
        for depth in depths:
            found, why = solving.solved(depth)
            solutions += found
            ended += why
        zero_shot = self._zero_shot([one.architecture for one in solutions])
        controls: list[Combination] = []
        if number == 1:
            best = min(zero_shot, key=zero_shot.__getitem__)
            (depth,) = (d for d in depths if len(d.kept) == best.layers)
            controls, why = solving.controls(depth)
            ended += why
            zero_shot |= self._zero_shot([one.architecture for one in controls])
        every = Round(number, (*solutions, *controls), tuple(ended))
        return every.named(zero_shot, count=self.settings.solutions)

    def _kept(self) -> dict[int, list[int]]:
        """The layers of the teacher that students keep, by their number."""
        source = self.study.assets.source
        return {count: source.kept_layers(self.plan.shape(count)) for count in self.plan.depths}

    def _zero_shot(self, shapes: Sequence[Architecture]) -> dict[Architecture, float]:
        """KL before training: sums of scores do not rank students of several depths."""
        config = self.context.config
        scored = score_zero_shot(
            list(dict.fromkeys(shapes)),
            ZeroShotPlan(
                assets=self.study.assets,
                sequences=config.funnel.sequences,
                resources=self.context.resources,
                access=self.study.access,
                directory=self.context.workspace.root,
            ),
            room=self.study.room,
        )
        return scored.scores


def _read(path: Path) -> Round | None:
    """A round of an earlier start."""
    try:
        return Round.from_dict(json.loads(path.read_text()))
    except (OSError, ValueError, KeyError):
        return None
