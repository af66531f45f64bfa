"""Early stopping of a study's trials, by rungs or by the pruner that the user gave."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from search.anchors import UNIFORM
from search.attributes import ANCHOR, PROGRESS
from search.halving import Rungs
from search.optuna_internals import handle_of
from search.trial_facts import latest_by_origin, origin_of


@dataclass(frozen=True)
class EarlyStopping:
    """Decides which trials end before the last of their tokens."""

    rungs: Rungs = Rungs((), 2)
    """Where trials are compared with one another."""
    pruned: optuna.Study | None = None
    """The study, where its pruner, which the user gave, stops trials instead of the rungs."""

    def stops(
        self, trial: FrozenTrial, point: dict[str, Any], rivals: Callable[[], Iterable[FrozenTrial]]
    ) -> bool:
        """Whether a trial ends with this measurement (tokens, kl) of its curve.

        `rivals` gives all trials of the student; it is asked only where they are compared.
        """
        if not math.isfinite(point["kl"]):
            return False
        if trial.user_attrs.get(ANCHOR) == UNIFORM:  # what every winner is held against
            return False
        if self.pruned is not None:
            return handle_of(self.pruned, trial).should_prune()
        origin = origin_of(trial)
        if not self.rungs.applies(origin, point["tokens"]):
            return False
        others = [
            measured["kl"]
            for other, rival in latest_by_origin(rivals()).items()
            if other != origin
            for measured in rival.user_attrs.get(PROGRESS, {}).get("curve", [])
            if measured["tokens"] == point["tokens"] and math.isfinite(measured["kl"])
        ]
        return self.rungs.stops(point["kl"], others)
