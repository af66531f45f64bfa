"""Watchers of a student's trials: who is told of every change besides the database."""

from collections.abc import Sequence

from optuna.trial import FrozenTrial


class TrialWatcher:
    """Told of trials after the study has recorded it; does nothing unless overridden.

    Trials must not be changed.
    """

    def began(self, trial: FrozenTrial) -> None:
        """A trial runs: a new one, or one that goes on with an interrupted one."""

    def reported(self, trial: FrozenTrial) -> None:
        """A running trial came to an evaluation, which its progress ends with."""

    def interrupted(self, trial: FrozenTrial) -> None:
        """A trial was put back: it has failed under this number, and waits under another."""

    def ended(self, trial: FrozenTrial) -> None:
        """A trial is complete, stopped early, or failed for good."""


class Watchers(TrialWatcher):
    """Several as one."""

    def __init__(self, watchers: Sequence[TrialWatcher] = ()):
        self.watchers = tuple(watchers)

    def began(self, trial: FrozenTrial) -> None:
        """Tell all."""
        for watcher in self.watchers:
            watcher.began(trial)

    def reported(self, trial: FrozenTrial) -> None:
        """Tell all."""
        for watcher in self.watchers:
            watcher.reported(trial)

    def interrupted(self, trial: FrozenTrial) -> None:
        """Tell all."""
        for watcher in self.watchers:
            watcher.interrupted(trial)

    def ended(self, trial: FrozenTrial) -> None:
        """Tell all."""
        for watcher in self.watchers:
            watcher.ended(trial)
