"""Measuring of all models, part by part; what was measured before is taken from the disk."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property

import torch
from transformers import PreTrainedModel

from common.errors import SearchError, reason_of
from common.progress import Throttle, tell
from experiments.evaluation.measuring.contenders import Contender
from experiments.evaluation.measuring.measured import Measured, Result, Store
from experiments.evaluation.measuring.parts import SPEED, TEXT, Asked, Part, Reference, parts_of

LOGGER = logging.getLogger(__name__)
NOT_TIMED = (TypeError, AttributeError, ValueError, NotImplementedError)
"""What models raise that have another kind of cache than the others, or none, and what is raised
where one does not fit the memory (SearchError)."""
LINE_SECONDS = 10.0


@dataclass
class Pace:
    """Time that the parts still to measure take, by those of their kind that were measured.

    A part takes as long as it is large, which is as its model has parameters; kinds of which none
    was measured yet are not counted, and the time is then said to be at least so long.
    """

    left: list[tuple[str, int]] = field(default_factory=list)
    """(kind, size) of every part still to measure, the running one first."""
    taken: dict[str, tuple[float, int]] = field(default_factory=dict)
    """Seconds and sizes of the parts that were measured, by kind."""
    line_due: Throttle = field(default_factory=lambda: Throttle(LINE_SECONDS))
    """When the next line may be said."""
    began: float = 0.0
    """When the running part did."""

    @contextmanager
    def part(self) -> Iterator[None]:
        """Inside, the first part of what is left is measured."""
        self.began = time.monotonic()
        yield
        kind, size = self.left.pop(0)
        self.took(kind, self.seconds, size)

    @property
    def seconds(self) -> float:
        """That the running part has taken."""
        return time.monotonic() - self.began

    def took(self, kind: str, seconds: float, size: int) -> None:
        """That a part of this kind and size took so long."""
        before, sizes = self.taken.get(kind, (0.0, 0))
        self.taken[kind] = before + seconds, sizes + size

    def left_in_words(self, share: float = 0.0) -> str:
        """How long everything still takes, with `share` of the running part done."""
        rates = {kind: seconds / max(1, size) for kind, (seconds, size) in self.taken.items()}
        running, unknown = 0.0, False
        waiting = list(self.left)
        if share > 0 and waiting:
            kind, size = waiting.pop(0)
            running = self.seconds * (1 / share - 1)
            rates.setdefault(kind, self.seconds / share / max(1, size))
        for kind, size in waiting:
            unknown |= kind not in rates
            running += rates.get(kind, 0.0) * size
        if unknown and not running:
            return "how long is not known yet"
        return f"{'at least' if unknown else 'about'} {_in_words(running)} left"


def _in_words(seconds: float) -> str:
    """Rounded, so that nothing is promised to the second."""
    return f"{max(1, round(seconds))} s" if seconds < 90 else f"{round(seconds / 60)} min"


@dataclass
class Measuring:
    """What is measured, and what is there of it."""

    asked: Asked
    """All that is wanted of every model."""
    contenders: list[Contender]
    """The models, the one that others are compared with first."""
    store: Store
    """Where results are kept."""
    after: Callable[[list[Measured]], object]
    """Called with all figures that are there, after each part."""
    every: list[Measured] = field(init=False)
    """The figures of each model."""

    def __post_init__(self) -> None:
        self.every = [Measured(contender) for contender in self.contenders]

    @cached_property
    def reference(self) -> Reference:
        """The first of the models."""
        return Reference(self.contenders[0], self.asked.device)

    def run(self) -> None:
        """Measure what is missing, and fill in the figures.

        Raises SearchError where a model cannot be loaded or does not fit the memory; what is
        measured stays.
        """
        pace = Pace()
        missing = [(measured, self._missing(measured, pace)) for measured in self.every]
        self.after(self.every)
        if not pace.left:
            LOGGER.info("all of it was measured before; nothing is measured again")
        for number, (measured, parts) in enumerate(missing):
            if parts:
                self._measure(measured, parts, pace)
            later = [part for _, parts in missing[number + 1 :] for part in parts]
            if not any(part.kind == TEXT for part in later):
                self.reference.release()

    def _missing(self, measured: Measured, pace: Pace) -> list[Part]:
        """The parts that are not on the disk; the figures of the others are filled in."""
        missing, parameters = [], measured.contender.source.parameters
        for part in parts_of(self.asked, measured.contender, self.reference):
            size = 1 if part.kind == SPEED else parameters  # which takes a time that is set
            found = self.store.known(part.kind, part.depends)
            if found is None:
                missing.append(part)
                pace.left.append((part.kind, size))
            else:
                part.keep(measured, found.figures)
                pace.took(part.kind, found.seconds, size)
        return missing

    def _measure(self, measured: Measured, parts: list[Part], pace: Pace) -> None:
        label = measured.contender.label
        tell(LOGGER, work=f"{label}: loading")
        LOGGER.info(f"{label}: loading")
        model = self._loaded(measured.contender)
        for part in parts:
            tell(LOGGER, work=f"{label}: {part.kind}")
            LOGGER.info(f"{label}: {part.kind}; {pace.left_in_words()}")
            with pace.part():
                self._measure_part(measured, part, model, pace=pace)
            self.after(self.every)
        del model
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _measure_part(
        self, measured: Measured, part: Part, model: PreTrainedModel, *, pace: Pace
    ) -> None:
        label = measured.contender.label

        def told(done: int, total: int) -> None:
            tell(LOGGER, work=f"{label}: {part.kind}", done=float(done), total=float(total))
            if pace.line_due():
                left = pace.left_in_words(done / max(1, total))
                LOGGER.info(f"{label}: {part.kind}: {done:,} of {total:,}, {left}")

        try:
            figures = part.measure(model, told)
        except (MemoryError, torch.OutOfMemoryError) as problem:
            raise SearchError(
                f"{label} with its {part.kind} does not fit the memory of {self.asked.device}; "
                "lower --block, or take a smaller --reference"
            ) from problem
        except NOT_TIMED as problem:
            if part.kind != SPEED:
                raise
            measured.notes.append(f"{label} cannot be timed: {reason_of(problem)}")
            LOGGER.info(measured.notes[-1])
            return
        self.store.keep(part.kind, part.depends, Result(figures, pace.seconds))
        part.keep(measured, figures)

    def _loaded(self, contender: Contender) -> PreTrainedModel:
        if contender is self.reference.contender:
            return self.reference.model
        return contender.load(self.asked.device)
