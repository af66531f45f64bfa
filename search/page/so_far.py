"""What can be said of a study by its database alone."""

from search.page.study_facts import StudyFacts, TrialFacts
from search.page.tables import count
from search.results.statements import NOTE, Statement
from search.space.anchors import UNIFORM


def statements_so_far(facts: StudyFacts) -> list[Statement]:
    """How far it is, the best trial, and the uniform shrink beside it."""
    states = ", ".join(f"{number} {state}" for state, number in facts.states.items())
    best = facts.best
    if best is None:
        return [Statement(NOTE, f"No trial has finished yet: {states or 'no trial has begun'}.")]
    lines = [
        f"Not decided yet: which student to take is known after full runs, on text that no trial "
        f"has seen. The best of the trials so far is {_said(best)}."
    ]
    uniform = next((trial for trial in facts.scored if trial.origin == UNIFORM), None)
    if uniform is not None and uniform.number == best.number:
        lines.append("That is the uniform shrink: nothing that was proposed is better so far.")
    elif uniform is not None:
        lines.append(f"The uniform shrink, which it has to beat, is {_said(uniform)}.")
    lines.append(f"Trials: {states}.")
    return [Statement(NOTE, line) for line in lines]


def _said(trial: TrialFacts) -> str:
    last = trial.last
    assert last is not None, "a scored trial was evaluated"
    return (
        f"trial {trial.number}, {trial.architecture}, {count(trial.parameters)} parameters, with a "
        f"selection KL of {last.kl:.4f} nats per token after {last.tokens:,} tokens"
    )
