"""Policy of one student's trials: anchors first, then a sampler's proposals."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from optuna.trial import FrozenTrial, TrialState, create_trial

from pruning import Architecture
from search.config.objectives import Objectives
from search.database.attributes import ANCHOR, ARCHITECTURE, PARAMETERS, ZERO_SHOT
from search.database.trial_facts import tried
from search.space.space import Space
from search.study.distributions import distributions_of
from search.study.observation import Observation, observations_of
from search.study.stopping import EarlyStopping

Anchors = Mapping[str, Architecture | None]
"""Architectures to try before any proposal, by name; None where the band has none."""
Propose = Callable[[Sequence[Observation]], Architecture | None]
"""The next architecture by the observations so far, or None where none is left."""


@dataclass(frozen=True)
class TrialPolicy:
    """Everything that decides what is tried and who goes on; fixed before the first trial."""

    space: Space
    """Architectures inside the budget."""
    propose: Propose
    """The sampler."""
    seed: int
    """Seed of what is drawn besides proposals: the baseline of a random architecture."""
    objectives: Objectives = field(default_factory=Objectives)
    """What the trials minimise."""
    stopping: EarlyStopping = field(default_factory=EarlyStopping)
    """Which trials end early."""
    anchors: Anchors = field(default_factory=dict)
    """Architectures to try before any proposal."""
    solutions: Anchors = field(default_factory=dict)
    """Architectures to try after the anchors, whether or not others were proposed before they were
    found."""
    zero_shot: Mapping[Architecture, float] = field(default_factory=dict)
    """KL before training, of those that were scored so."""
    allowed: Collection[Architecture] | None = None
    """Architectures that may be proposed; None: all."""

    @property
    def named(self) -> int:
        """How many different architectures are tried before any proposal."""
        every = (*self.anchors.values(), *self.solutions.values())
        return len({shape for shape in every if shape is not None})

    def next_template(self, trials: Iterable[FrozenTrial]) -> FrozenTrial | None:
        """A running trial of the next anchor, solution or proposal; None when there is none.

        `trials` are all of the student so far.
        """
        known = list(trials)
        anchor = _next_anchor(self.anchors, known) or _next_untried(self.solutions, known)
        if anchor is not None:
            name, shape = anchor
            return self._template(shape, {ANCHOR: name})
        proposal = self.propose(self.observations(known))
        return None if proposal is None else self._template(proposal, {})

    def observations(self, trials: Iterable[FrozenTrial]) -> list[Observation]:
        """What is known of every architecture tried, in the order of their origins."""
        return observations_of(trials, self.objectives, costs=self.space.costs)

    def _template(self, shape: Architecture, attributes: Mapping[str, str]) -> FrozenTrial:
        known: dict[str, object] = {
            ARCHITECTURE: shape.to_dict(),
            PARAMETERS: self.space.parameter_count(shape),
        }
        if shape in self.zero_shot:
            known[ZERO_SHOT] = self.zero_shot[shape]
        # What layers chose of their own has no place on the axes that samplers propose sizes on.
        inside = shape in self.space.parameters_of
        return create_trial(
            state=TrialState.RUNNING,
            params=self.space.params(shape) if inside else {},
            distributions=distributions_of(self.space) if inside else {},
            user_attrs={**known, **attributes},
        )


def anchor_lines(anchors: Anchors, trials: Sequence[FrozenTrial]) -> list[str]:
    """Lines about the anchors, printed before the trials."""
    known, late = tried(trials), _has_proposed(trials)
    lines = []
    for name, shape in anchors.items():
        shown = f"{name} {shape}" if shape else f"no {name} in the band"
        if shape and late and shape not in known:
            shown += ", left out: the study was begun without it"
        lines.append(f"anchor: {shown}")
    return lines


def _next_anchor(
    anchors: Anchors, trials: Sequence[FrozenTrial]
) -> tuple[str, Architecture] | None:
    """The first anchor whose architecture no trial has tried yet; none after a proposal, so
    that a study goes on as it was begun, whatever its anchors were."""
    return None if _has_proposed(trials) else _next_untried(anchors, trials)


def _next_untried(
    anchors: Anchors, trials: Sequence[FrozenTrial]
) -> tuple[str, Architecture] | None:
    """The first whose architecture no trial has tried yet."""
    known = tried(trials)
    for name, shape in anchors.items():
        if shape and shape not in known:
            return name, shape
    return None


def _has_proposed(trials: Sequence[FrozenTrial]) -> bool:
    """Whether a trial is there that is no anchor."""
    return any(ANCHOR not in trial.user_attrs for trial in trials)
