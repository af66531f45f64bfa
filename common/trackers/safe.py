"""Runs at several trackers at once, none of which can end the work."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from common.errors import reason_of
from common.trackers.names import TrackedRun, Tracker, Values

LOGGER = logging.getLogger(__name__)


class SafeTrackers:
    """Runs at several trackers at once, none of which can end the work: one that fails takes
    nothing more, which is said once."""

    def __init__(self, trackers: Mapping[str, Tracker]):
        self._trackers = dict(trackers)
        self._runs: dict[str, dict[str, TrackedRun]] = {}

    def __bool__(self) -> bool:
        return bool(self._trackers)

    def begin(self, identity: str, *, name: str, facts: Values) -> None:
        """Begin a run everywhere, or go on with it; one that was begun stays as it is."""
        if identity in self._runs:
            return
        runs = self._runs[identity] = {}
        for place, tracker in list(self._trackers.items()):
            with self._given_up(place):
                runs[place] = tracker.run(name, identity=identity, facts=facts)

    def log(self, identity: str, tokens: int, figures: Mapping[str, float]) -> None:
        """Note figures of a run that was begun."""
        for place, run in self._runs_of(identity):
            with self._given_up(place):
                run.log(tokens, figures)

    def finish(
        self, identity: str, summary: Values, *, files: Sequence[Path] = (), failed: bool = False
    ) -> None:
        """End a run that was begun."""
        for place, run in self._runs_of(identity):
            with self._given_up(place):
                run.finish(summary, files=files, failed=failed)
        self._runs.pop(identity, None)

    def leave(self) -> None:
        """Put down all runs that have not ended."""
        for identity in list(self._runs):
            for place, run in self._runs_of(identity):
                with self._given_up(place):
                    run.leave()
        self._runs.clear()

    def _runs_of(self, identity: str) -> list[tuple[str, TrackedRun]]:
        runs = self._runs.get(identity, {})
        return [(place, run) for place, run in runs.items() if place in self._trackers]

    @contextmanager
    def _given_up(self, place: str) -> Iterator[None]:
        """Whatever a tracker raises inside is said, and it is asked no more."""
        try:
            yield
        except Exception as problem:
            self._trackers.pop(place, None)
            LOGGER.info(
                f"warning: {place} takes nothing more: {reason_of(problem)}; the work goes on"
            )
