"""Early stopping of a study's trials, by rungs or by the pruner that the user gave."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import optuna
from optuna.pruners import BasePruner
from optuna.trial import FrozenTrial

from distill.recipes import CurvePoint
from search.config.plugins import made_from
from search.database.attributes import ANCHOR
from search.database.optuna_internals import handle_of
from search.database.trial_facts import latest_by_origin, origin_of, progress_of
from search.space.anchors import UNIFORM
from search.study.early_stopping import Rungs

BEST_SHARES = {2: "half", 3: "third", 4: "quarter"}
"""Words for the share of trials that a comparison keeps."""


@dataclass(frozen=True)
class EarlyStopping:
    """Decides which trials end before the last of their tokens."""

    rungs: Rungs = Rungs((), 2)
    """Where trials are compared with one another."""
    pruned_study: optuna.Study | None = None
    """The study, where its pruner, which the user gave, stops trials instead of the rungs."""

    @property
    def why(self) -> str:
        """Why a trial ends early, in words."""
        if self.pruned_study is not None:
            return "by the pruner of --halving.stopper"
        share = BEST_SHARES.get(self.rungs.reduction, f"1 in {self.rungs.reduction}")
        return f"not among the best {share} there"

    def stops(
        self,
        trial: FrozenTrial,
        point: CurvePoint,
        *,
        rivals: Callable[[], Iterable[FrozenTrial]],
    ) -> bool:
        """Whether a trial ends with this point of its curve.

        `rivals` gives all trials of the student; it is asked only where they are compared.
        """
        if not math.isfinite(point.kl):
            return False
        if trial.user_attrs.get(ANCHOR) == UNIFORM:  # what every winner is held against
            return False
        if self.pruned_study is not None:
            return handle_of(self.pruned_study, trial).should_prune()
        origin = origin_of(trial)
        if not self.rungs.applies(origin, point.tokens):
            return False
        others = [
            measured.kl
            for other, rival in latest_by_origin(rivals()).items()
            if other != origin and (progress := progress_of(rival)) is not None
            for measured in progress.curve
            if measured.tokens == point.tokens and math.isfinite(measured.kl)
        ]
        return self.rungs.stops(point.kl, others)


def load_pruner(path: str) -> BasePruner:
    """The user's pruner. Raises SearchError where there is none."""
    pruner: BasePruner = made_from(path, BasePruner, setting="--halving.stopper")
    return pruner
