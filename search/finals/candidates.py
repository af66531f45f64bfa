"""Candidates for full runs and their baselines, chosen from the scored trials of a record."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.trial import TrialState

from pruning import Architecture
from search.database.attributes import SEQUENCES
from search.database.trial_facts import architecture_of
from search.statistics.pareto import spread
from search.statistics.significance import indistinguishable, probability_best
from search.study.record import Record


def random_architecture(record: Record, taken: Collection[Architecture]) -> Architecture | None:
    """An architecture of the band by the seed alone, but none of those `taken`."""
    feasible = record.space.feasible
    if all(shape in taken for shape in feasible):
        return None
    generator = np.random.default_rng([record.policy.seed, 3])
    while True:
        shape = feasible[int(generator.integers(len(feasible)))]
        if shape not in taken:
            return shape


def best_candidates(record: Record, winners: int) -> list[Architecture]:
    """The best by the short run, best first."""
    return [architecture_of(trial) for trial in record.ranked()[:winners]]


def best_of_other_kind(record: Record, candidates: Sequence[Architecture]) -> list[Architecture]:
    """The best whose layers differ where those of all `candidates` are alike, and the other way
    round; none where there are both, or no other was tried."""
    kinds = {shape.per_layer for shape in candidates}
    others = [s for s in map(architecture_of, record.ranked()) if s.per_layer not in kinds]
    return others[:1]


def tied_candidates(record: Record, winners: int, *, most: int) -> list[Architecture]:
    """Scored candidates beyond the winners that cannot be told from the last of them."""
    scores = _by_name(sequence_scores(record))
    if len(scores) <= winners:
        return []
    shapes = {str(shape): shape for shape in map(architecture_of, record.ranked())}
    return [shapes[name] for name in indistinguishable(scores, winners)[:most]]


def chances(record: Record) -> dict[str, float]:
    """How likely each candidate is the best, by its short run and the noise of that; the likeliest
    first, by the architecture's name."""
    scores = _by_name(sequence_scores(record))
    return probability_best(scores) if scores else {}


def _by_name(scores: Mapping[Architecture, Any]) -> dict[str, Any]:
    return {str(shape): values for shape, values in scores.items()}


def sequence_scores(record: Record) -> dict[Architecture, NDArray[np.float64]]:
    """Selection KL of each sequence after the short run, of the candidates that came to its end."""
    return {
        architecture_of(trial): np.array(trial.user_attrs[SEQUENCES])
        for trial in record.ranked()
        if trial.state == TrialState.COMPLETE and trial.user_attrs.get(SEQUENCES)
    }


def front_candidates(record: Record, count: int) -> list[Architecture]:
    """The knee of the front, and others that take in most of its hypervolume with it."""
    scored = [t for t in record.ranked() if t.state == TrialState.COMPLETE]
    values = np.array([record.objectives.minimised(t.values) for t in scored])
    if not len(scored):
        return best_candidates(record, count)
    return [architecture_of(scored[index]) for index in spread(values, count)]


def even_shrink_of(record: Record, winner: Architecture) -> Architecture:
    """The uniform shrink of about the winner's parameters: its baseline where the search has no
    band; of a per-layer winner, the one that comes nearest."""
    parameters = record.space.parameters_of
    wanted = record.space.parameter_count(winner)
    near = [a for a in parameters if 0.95 * wanted <= parameters[a] <= wanted]
    if not near and winner.per_layer:
        near = [min(parameters, key=lambda shape: abs(parameters[shape] - wanted))]
    return record.space.most_even(near or [winner])
