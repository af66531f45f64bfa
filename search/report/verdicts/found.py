"""Everything that verdicts are made of, and how the winner stands to what it is held against."""

from collections.abc import Iterator
from dataclasses import dataclass

from common.intervals import Interval
from search.config.names import RANDOM_ARCHITECTURE, RANDOM_INITIALISATION
from search.config.units import COSTS, shown_quantity
from search.finals.comparison import RUNNER_UP, Comparison
from search.finals.measure import Measured
from search.results.results import ServingCosts, TeacherResult
from search.space.anchors import UNIFORM

NOUNS = {
    UNIFORM: "the uniform shrink",
    RANDOM_ARCHITECTURE: "the random architecture",
    RANDOM_INITIALISATION: "random initialisation",
    RUNNER_UP: "candidate 2",
}
"""What is compared, as sentences have it; other candidates are called by their names."""
BASELINES = (UNIFORM, RANDOM_ARCHITECTURE, RANDOM_INITIALISATION)
"""In the order in which they are spoken of."""
DEARER = 1.01
"""Times the winner's cost from which another student costs more than it."""


@dataclass(frozen=True)
class Found:
    """What was measured of the students of a finished search."""

    comparison: Comparison
    """The winner against its baselines and the other candidates."""
    teacher: TeacherResult
    """With its scores on the test split."""
    costs: list[ServingCosts]
    """Of each winner."""
    other_costs: dict[str, ServingCosts]
    """Of the teacher and of each baseline, by name."""
    objectives: tuple[str, ...]
    """What was looked for, the KL first."""
    exhausted: bool = False
    """Whether no architecture was left to try."""

    @property
    def winner(self) -> Measured:
        """The best student."""
        return self.comparison.students.best

    @property
    def rivals(self) -> dict[str, Measured]:
        """What was distilled in full beside the winner, each once: baselines by their names, then
        the other candidates, by the names that their differences have."""
        comparison = self.comparison
        students = comparison.students
        found = {n: students.baselines[n] for n in BASELINES if n in students.baselines}
        if not comparison.selection.along_a_front:
            found |= comparison.candidates
        first = {id(one): name for name, one in reversed(found.items())}
        names = [name for name, one in found.items() if first[id(one)] == name]
        return {name: found[name] for name in names if found[name] is not self.winner}

    def is_longer(self, name: str) -> bool:
        """Whether a rival was trained on more tokens than the winner."""
        return self.rivals[name].runs[0].tokens > self.winner.runs[0].tokens

    def dearer(self, name: str) -> list[str]:
        """The costs that are traded and higher for a baseline than for the winner, in words;
        inside a band none is."""
        return [words for words, ratio in self._traded(name) if ratio > DEARER]

    def cheaper(self, name: str) -> list[str]:
        """Those that are lower, likewise."""
        return [words for words, ratio in self._traded(name) if ratio < 1 / DEARER]

    def _traded(self, name: str) -> Iterator[tuple[str, float]]:
        """Each such cost in words, and how many times the winner's it is."""
        costs = [each for each in self.objectives if each in COSTS]
        for cost in costs if name in self.other_costs else []:
            own, other = self.costs[0].amount(cost), self.other_costs[name].amount(cost)
            if own is not None and other is not None:
                words = f"{shown_quantity(cost, other)} against {shown_quantity(cost, own)}"
                yield words, other / own

    @property
    def search_on(self) -> str:
        """What to do for a better student."""
        if self.exhausted:
            return "No architecture of this space is left to try: a wider --space has more."
        return "More --trials, with the same --workspace, go on from here."

    @property
    def better(self) -> list[str]:
        """Rivals that are better on the test split beyond chance, after no more tokens and at no
        higher cost."""
        full = self.comparison.full
        return [
            name
            for name in self.rivals
            if full[name].low > 0 and not self.is_longer(name) and not self.dearer(name)
        ]

    @property
    def worth_keeping(self) -> list[str]:
        """Baselines that are better on the test split at no higher cost, and no winners, so that
        nobody has written them yet; those of more tokens are among them."""
        students, full = self.comparison.students, self.comparison.full
        others = {n: one for n, one in self.rivals.items() if n in students.baselines}
        return [
            name
            for name, one in others.items()
            if full[name].low > 0
            and not self.dearer(name)
            and all(one is not winner for winner in students.winners)
        ]

    @property
    def tied(self) -> list[str]:
        """Rivals that the test split cannot tell from the winner."""
        full = self.comparison.full
        return [name for name in self.rivals if full[name].low <= 0 <= full[name].high]


def noun(name: str) -> str:
    """What a rival is called."""
    return NOUNS.get(name, name)


def listed(names: list[str]) -> str:
    """Rivals in a row, with `and` before the last."""
    nouns = [noun(name) for name in names]
    return " and ".join(part for part in (", ".join(nouns[:-1]), nouns[-1]) if part)


def apart(difference: Interval) -> str:
    """How far a KL is below or above the other's, such as `lower by 0.2000 [0.1900, 0.2100]`."""
    low, high = sorted((abs(difference.low), abs(difference.high)))
    side = "lower" if difference.mean < 0 else "higher"
    return f"{side} by {abs(difference.mean):.4f} [{low:.4f}, {high:.4f}]"


def between(interval: Interval) -> str:
    """A mean with its interval; `one_seed` says once what is not in it."""
    return f"{interval.mean:.4f} [{interval.low:.4f}, {interval.high:.4f}]"


def sentence(text: str) -> str:
    """With a capital letter."""
    return text[0].upper() + text[1:]
