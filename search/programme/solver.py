"""The best combinations of blocks inside a budget, far enough from each other."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from common.errors import SearchError
from search.programme.integer_programme import Answer, Ended, minimise, nearest
from search.programme.programme import Apart, Choice, Programme, Solution
from search.programme.settings import SolverSettings
from search.programme.swaps import greedy

logger = logging.getLogger(__name__)

MOST_CUTS = 20
"""Choices that break a limit within the solver's tolerance and are cut off one by one; then the
limits that they break are tightened by the tolerance."""


@dataclass(frozen=True)
class Solved:
    """The combinations that were found."""

    solutions: tuple[Solution, ...]
    """In the order of finding: the best first, within the gap."""
    ended: str | None = None
    """Why there are fewer than were asked for."""


def _ignore(solution: Solution) -> None:
    """Keep nothing."""


def solve(
    programme: Programme,
    settings: SolverSettings,
    *,
    earlier: Sequence[Solution] = (),
    keep: Callable[[Solution], None] = _ignore,
) -> Solved:
    """Combinations of the least summed score that meet the budget.

    Each differs from every one before in the settings' distance of layers or more. A solution
    follows from those before it alone, so that work that was interrupted goes on from the `earlier`
    ones and ends equal (as long as no time limit strikes).

    Args:
        programme: Variants and budget.
        settings: How many, how far apart, how exactly.
        earlier: Solutions of a run that was interrupted, in their order.
        keep: Called with each new solution as it is found.

    Raises:
        SearchError: No combination meets the budget.
    """
    apart = settings.distance_of(programme.layers)
    found = list(earlier[: settings.solutions])
    while len(found) < settings.solutions:
        solution, ended = _best(programme, settings, [Apart(each.choice, apart) for each in found])
        if solution is None:
            if not found:
                raise _nothing(programme, settings, proven=ended is Ended.INFEASIBLE)
            return Solved(tuple(found), _why_no_more(len(found), settings, apart=apart, how=ended))
        found.append(solution)
        keep(solution)
        logger.info("programme: %s", _line(len(found), settings, solution))
    return Solved(tuple(found))


def best(programme: Programme, settings: SolverSettings) -> Solution:
    """The combination of the least summed score that meets the budget.

    Raises SearchError, with the nearest, where none meets it.
    """
    solution, ended = _best(programme, settings, ())
    if solution is None:
        raise _nothing(programme, settings, proven=ended is Ended.INFEASIBLE)
    return solution


def _best(
    programme: Programme, settings: SolverSettings, others: Sequence[Apart]
) -> tuple[Solution | None, Ended]:
    """The best solution that is apart from the `others`, and how the solver ended.

    Where the time limit ended it, the greedy choice is taken if that is better.
    """
    answer = _truly_inside(programme, settings, others)
    if answer.ended is Ended.INFEASIBLE:
        return None, answer.ended
    choices = [] if answer.choice is None else [answer.choice]
    if answer.ended is not Ended.OPTIMAL:
        choices += [choice for choice in [greedy(programme, others)] if choice is not None]
    if not choices:
        return None, answer.ended
    choice = min(choices, key=programme.score_of)
    gap = _gap(programme, choice, answer.bound)
    proven = answer.ended is Ended.OPTIMAL or (gap is not None and gap <= settings.gap)
    return programme.solution(choice, proven=proven, gap=gap), answer.ended


def _truly_inside(
    programme: Programme, settings: SolverSettings, others: Sequence[Apart]
) -> Answer:
    """The solver's answer, whose choice meets the limits with no tolerance.

    A choice that breaks one by a hair is cut off, and the solver asked again; after many of them
    the limits that they break are tightened by the tolerance. The bound is that without tightening.
    """
    until = time.monotonic() + settings.time_limit
    cuts: list[Apart] = []
    broken: frozenset[str] = frozenset()
    answer = Answer(Ended.TIME_LIMIT, None, None)
    while len(cuts) < MOST_CUTS:
        left = until - time.monotonic()
        answer = minimise(programme, apart=[*others, *cuts], gap=settings.gap, seconds=left)
        if answer.choice is None or programme.holds(answer.choice):
            return answer
        cuts.append(Apart(answer.choice, 1))
        broken |= programme.broken_by(answer.choice) or frozenset(programme.costs)
    left = until - time.monotonic()
    tight = minimise(programme, apart=others, gap=settings.gap, seconds=left, tight=broken)
    inside = tight.choice is not None and programme.holds(tight.choice)
    return Answer(Ended.FAILED, tight.choice if inside else None, answer.bound)


def _gap(programme: Programme, choice: Choice, bound: float | None) -> float | None:
    """By how much the score of a choice may be above the optimum's, as a share of its rise above
    that of the best variants everywhere.
    """
    if bound is None:
        return None
    score = programme.score_of(choice)
    rise = score - programme.score_of(programme.best_everywhere)
    return 0.0 if score <= bound or rise <= 0 else min(1.0, (score - bound) / rise)


def _nothing(programme: Programme, settings: SolverSettings, *, proven: bool) -> SearchError:
    """The error for a budget that no combination meets, with the nearest.

    `proven` False: none was found, and the time limit or the solver's failure ended it.
    """
    seconds = f"{settings.time_limit:g} s"
    said = "meets" if proven else f"was found in {seconds} that meets"
    text = f"no combination of blocks {said} the budget of {programme.budget}"
    answer = nearest(programme, gap=settings.gap, seconds=settings.time_limit)
    if answer.choice is not None:
        found = "" if answer.ended is Ended.OPTIMAL else f"found in {seconds} "
        text += f"; the nearest {found}has {programme.shown(answer.choice)}"
    more = "" if proven else ", or give --per_layer.time_limit more"
    return SearchError(f"{text}; change --budget or widen --space.per_layer{more}")


def _why_no_more(count: int, settings: SolverSettings, *, apart: int, how: Ended) -> str:
    wanted = f"{count} of {settings.solutions} combinations"
    if how is Ended.INFEASIBLE:
        return f"{wanted}: no other inside the budget differs from each in {apart} layers or more"
    return f"{wanted}: no other was found in {settings.time_limit:g} s"


def _line(number: int, settings: SolverSettings, solution: Solution) -> str:
    within = "no bound known" if solution.gap is None else f"within {solution.gap:.2%}"
    ended = within if solution.proven else f"not proven, {within}"
    layers = len(solution.choice)
    return (
        f"combination {number} of {settings.solutions} of {layers} layers: summed score "
        f"{solution.score:.4g} ({ended})"
    )
