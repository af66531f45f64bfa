"""Comparison of the models: a figure of each, and paired differences from the reference.

Differences are paired on the same questions and the same pieces of text. Bits per byte, KL and
agreement are sums over sums, so that their intervals are those of a ratio (linearised).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from common.intervals import difference_interval, mean_interval
from distill.evaluation import perplexity
from experiments.evaluation.measuring.measured import Measured
from search.statistics import holm

LEVEL = 0.05
"""Chance that any difference of a table is called clear and is none."""
GB = 1e9
PARAMETERS = "parameters"
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Difference:
    """A figure minus that of the reference, paired."""

    mean: float
    """Above zero where the model has more."""
    standard_error: float
    """Of the mean of the paired differences."""
    low: float
    """Lower end of its 95 % interval."""
    high: float
    """Upper end of it."""
    pairs: int
    """Questions, or pieces of text."""
    chance: float
    """Of a difference at least so large where there is none (paired t-test)."""
    clear: bool = False
    """Whether it is told from zero, all differences of the table together at 95 % (Holm)."""


@dataclass(frozen=True)
class Figure:
    """One figure of one model."""

    value: float
    """In the measure's unit."""
    low: float | None = None
    """Lower end of its 95 % interval where it is a mean, of half of the turns where it is a
    speed."""
    high: float | None = None
    """Upper end of it."""
    difference: Difference | None = None
    """From the reference; None of the reference, and where nothing is paired."""


@dataclass(frozen=True)
class Measure:
    """One figure of all models that have it."""

    name: str
    """What it is."""
    group: str
    """model, text, tasks or speed."""
    unit: str = ""
    """Of its values; empty for a share or a number."""
    more_is_better: bool | None = None
    """None where neither is."""
    figures: dict[str, Figure] = field(default_factory=dict)
    """By label of the model."""


def measures(every: Sequence[Measured]) -> list[Measure]:
    """Every figure that is there, of the models in their order, the reference first."""
    found = [*_of_models(every), *_of_text(every), *_of_tasks(every), *_of_speed(every)]
    return _told_apart([measure for measure in found if measure.figures])


def _of_models(every: Sequence[Measured]) -> Iterator[Measure]:
    parameters = {m.contender.label: float(m.contender.source.parameters) for m in every}
    yield _plain(Measure(PARAMETERS, "model"), parameters)


def _of_text(every: Sequence[Measured]) -> Iterator[Measure]:
    texts = {m.contender.label: m.text for m in every if m.text is not None}
    first = every[0].contender.label
    bits = {
        label: ratio(np.array(text.nats) / math.log(2), np.array(text.bytes, float))
        for label, text in texts.items()
    }
    yield _sampled(Measure("bits per byte", "text", "", False), bits, first=first)
    losses = {label: sum(text.nats) / sum(text.tokens) for label, text in texts.items()}
    perplexities = {label: perplexity(ce) for label, ce in losses.items()}
    yield _plain(Measure("perplexity", "text", "per token", False), perplexities)
    for measure, sums in (
        (Measure("KL from the reference", "text", "nats per token", False), "kl"),
        (Measure("top-1 agreement with the reference", "text", "", True), "agreed"),
    ):
        compared = {
            label: ratio(np.array(getattr(text, sums)), np.array(text.tokens, float))
            for label, text in texts.items()
            if getattr(text, sums) is not None
        }
        yield _sampled(measure, compared, first=None)


def _of_tasks(every: Sequence[Measured]) -> Iterator[Measure]:
    first = every[0].contender.label
    tasks = {m.contender.label: m.tasks for m in every}
    wanted = dict.fromkeys(
        (task, metric)
        for found in tasks.values()
        for task, scores in found.items()
        for metric in scores.metrics
    )
    for task, metric in wanted:
        scores = {label: found[task] for label, found in tasks.items() if task in found}
        better = [s.higher_is_better.get(metric) for s in scores.values()]
        measure = Measure(f"{task}: {metric}", "tasks", "", better[0])
        values = {label: s.metrics[metric] for label, s in scores.items() if metric in s.metrics}
        samples = {
            label: np.array(s.questions[metric], float)
            for label, s in scores.items()
            if metric in s.questions
        }
        figures = _plain(measure, values).figures | _sampled(measure, samples, first=first).figures
        yield replace(measure, figures=figures)


def _of_speed(every: Sequence[Measured]) -> Iterator[Measure]:
    speeds = {m.contender.label: m.speed for m in every if m.speed is not None}
    for name in ("prefill", "decode"):
        figures = {
            label: Figure(getattr(speed, name), *getattr(speed, f"{name}_quartiles"))
            for label, speed in speeds.items()
        }
        yield Measure(name, "speed", "tokens/s", True, figures)
    for name, size in (
        ("weights", "weights_bytes"),
        ("cache", "cache_bytes"),
        ("peak memory", "peak_bytes"),
    ):
        sizes = {label: getattr(speed, size) for label, speed in speeds.items()}
        known = {label: bytes_of / GB for label, bytes_of in sizes.items() if bytes_of is not None}
        yield _plain(Measure(name, "speed", "GB", False), known)


def ratio(sums: Values, sizes: Values) -> Values:
    """Values whose mean is the ratio of the totals, and whose spread is that of the ratio."""
    whole = sums.sum() / sizes.sum()
    values: Values = whole + (sums - whole * sizes) / sizes.mean()
    return values


def _plain(measure: Measure, values: Mapping[str, float]) -> Measure:
    """With single numbers."""
    return replace(measure, figures={label: Figure(value) for label, value in values.items()})


def _sampled(measure: Measure, samples: Mapping[str, Values], *, first: str | None) -> Measure:
    """With means of values [questions or pieces], and their differences from those of `first`."""
    figures = {label: _mean(values) for label, values in samples.items()}
    known = None if first is None else samples.get(first)
    for label, values in samples.items():
        if known is not None and label != first and len(values) == len(known) > 1:
            figures[label] = replace(figures[label], difference=_difference(values, known))
    return replace(measure, figures=figures)


def _mean(values: Values) -> Figure:
    if len(values) < 2:
        return Figure(float(values.mean()))
    interval = mean_interval([values])
    return Figure(interval.mean, interval.low, interval.high)


def _difference(values: Values, known: Values) -> Difference:
    apart = values - known
    interval = difference_interval([values], [known])
    spread = float(apart.std(ddof=1))
    if spread > 0:
        chance = float(stats.ttest_1samp(apart, 0.0).pvalue)
    else:
        chance = 1.0 if apart[0] == 0 else 0.0
    return Difference(
        mean=interval.mean,
        standard_error=spread / math.sqrt(len(apart)),
        low=interval.low,
        high=interval.high,
        pairs=len(apart),
        chance=chance,
    )


def _told_apart(found: Sequence[Measure]) -> list[Measure]:
    """The same, with what is clear of all differences together."""
    places = [
        (measure.name, label, figure.difference)
        for measure in found
        for label, figure in measure.figures.items()
        if figure.difference is not None
    ]
    chances = np.array([difference.chance for _, _, difference in places])
    rejected = holm(np.nan_to_num(chances, nan=1.0), LEVEL)
    clear = {
        (name, label): bool(told) for (name, label, _), told in zip(places, rejected, strict=True)
    }
    return [
        replace(
            measure,
            figures={
                label: figure
                if figure.difference is None
                else replace(
                    figure,
                    difference=replace(figure.difference, clear=clear[measure.name, label]),
                )
                for label, figure in measure.figures.items()
            },
        )
        for measure in found
    ]
