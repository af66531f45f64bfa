"""Rounds as the study has them: all its drivers, and all its starts, try the same combinations."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from search.database.attributes import PER_LAYER
from search.database.coordination import Coordination
from search.per_layer.combinations import Combination, Round


def recorded_trials(
    coordination: Coordination, number: int, *, key: str
) -> tuple[Combination, ...] | None:
    """The combinations of a round that become trials, as the study has them; None before they are
    chosen.

    `key` is the fingerprint of the study's settings, which may change before its first trial.
    """
    known = coordination.study.user_attrs
    head: dict[str, Any] | None = known.get(f"{PER_LAYER}{number}")
    if head is None or head["key"] != key:
        return None
    names = (f"{PER_LAYER}{number}:{place}" for place in range(head["count"]))
    return tuple(Combination.from_dict(known[name]) for name in names)


def record_trials(
    coordination: Coordination, number: int, *, key: str, chosen: Sequence[Combination]
) -> tuple[Combination, ...]:
    """Record what becomes trials, unless another driver was first; returns what is recorded.

    One attribute for each, since databases bound their length; the count comes last, so that a
    driver that is killed in between leaves nothing that counts.
    """
    with coordination.exclusive():
        known = recorded_trials(coordination, number, key=key)
        if known is not None:
            return known
        study = coordination.study
        for place, one in enumerate(chosen):
            study.set_user_attr(f"{PER_LAYER}{number}:{place}", one.to_dict())
        study.set_user_attr(f"{PER_LAYER}{number}", {"key": key, "count": len(chosen)})
        return tuple(chosen)


def with_trials(found: Round | None, number: int, trials: Sequence[Combination]) -> Round:
    """A round that this start `found`, or did not, with the trials that the study has; of its own
    only the figures of others are kept."""
    if found is None:
        return Round(number, tuple(trials))
    taken = {(one.architecture, one.control) for one in trials}
    others = [
        replace(one, name=None)
        for one in found.combinations
        if (one.architecture, one.control) not in taken
    ]
    return replace(found, combinations=(*trials, *others))
