"""Verdicts on the winner: comparisons with its baselines, in the words that intervals allow."""

from optuna.trial import TrialState

from common.intervals import Interval
from search.config.names import (
    EVIDENCE_FULL,
    EVIDENCE_NONE,
    RANDOM_ARCHITECTURE,
    RANDOM_INITIALISATION,
)
from search.database.trial_facts import FINISHED_STATES, architecture_of
from search.finals.comparison import RUNNER_UP, WINNER, Comparison
from search.finals.measure import Measured
from search.results.results import CorrectionResult, Searched
from search.results.scratch_comparison import ScratchComparison
from search.space.anchors import UNIFORM
from search.study.record import Record

FEW_TRIALS = 8
"""Trials below which a search has hardly begun."""
NAMED = {
    UNIFORM: "the uniform shrink",
    RANDOM_ARCHITECTURE: "the random architecture",
    RANDOM_INITIALISATION: "the same shape from random weights",
    RUNNER_UP: "the runner-up",
}
ITSELF = {
    UNIFORM: "the winner is the uniform shrink: nothing that the search proposed came out better "
    "on the selection split",
    RANDOM_ARCHITECTURE: "the winner is the random architecture, which the search did not choose: "
    "on the selection split it is better than every candidate",
    RANDOM_INITIALISATION: "the winner was trained from random weights: on the selection split it "
    "is better than every student that was cut from the teacher",
}


def verdicts(compared: Comparison) -> list[str]:
    """The winner against each baseline and the runner-up, as the intervals allow."""
    itself = compared.winner_is
    lines = [] if itself is None else [f"{_sentence(ITSELF[itself])}."]
    if itself is not None and compared.selection.along_a_front:
        lines = [f"The winner is {NAMED[itself]} of its size."]
    for name in (UNIFORM, RANDOM_ARCHITECTURE, RANDOM_INITIALISATION):
        if name in compared.full:
            lines.append(_in_full(compared, name))
    short = compared.short
    lines += [
        _after_short(compared, name, difference=short[name]) for name in NAMED if name in short
    ]
    if compared.selection.stage.evidence == EVIDENCE_NONE:
        lines.append(
            "Nothing was run to be compared (--evidence none): whether the winner is better than a "
            "uniform shrink or a random architecture of its size is not known."
        )
    else:
        lines += [
            _missing(compared, name)
            for name in (UNIFORM, RANDOM_ARCHITECTURE, RANDOM_INITIALISATION)
            if name not in {*compared.full, *short, itself}
        ]
    if short:
        lines.append(_not_known(list(short)))
    if RUNNER_UP in compared.full:
        lines.append(_in_full(compared, RUNNER_UP))
    return lines


def searched_part(record: Record, asked: int) -> Searched:
    """The part of the space that was tried, of `asked` trials."""
    count = len(record.space.feasible)
    finished = record.trials(*FINISHED_STATES)
    return Searched(
        architectures=count,
        allowed=count if record.policy.allowed is None else len(record.policy.allowed),
        tried=len(finished),
        stopped=len(record.trials(TrialState.PRUNED)),
        asked=asked,
        exhausted=record.exhausted,
        per_layer=sum(architecture_of(trial).per_layer for trial in finished),
    )


def searched_verdicts(searched: Searched) -> list[str]:
    """The part of the space that was tried, the part that was not, and whether that says much."""
    left_in = ""
    if searched.allowed < searched.architectures:
        left_in = f" ({searched.allowed:,} of them left in by the scores before training)"
    lines = []
    if searched.tried < searched.asked and not searched.exhausted:
        lines.append(f"Only {searched.tried} of {searched.asked} trials fitted into the time.")
    lines.append(
        f"The space has {searched.architectures:,} architectures{left_in}; tried: "
        f"{searched.tried}{_beside(searched)}, of which {searched.stopped} stopped early."
    )
    if searched.tried < min(FEW_TRIALS, searched.allowed):
        lines.append(
            "So few trials say little: there may well be better architectures among those that "
            "were not tried."
        )
    return lines


def _beside(searched: Searched) -> str:
    """How many of those that were tried are of the space, where others were tried, too."""
    if not searched.per_layer:
        return ""
    alike = searched.tried - searched.per_layer
    return f" ({alike} of these, and {searched.per_layer} whose layers differ)"


def correction_verdicts(correction: CorrectionResult | None) -> list[str]:
    """Gain of teacher and winner by correcting the teacher; nothing where it was not corrected."""
    if correction is None:
        return []
    teacher, student = correction.teacher, correction.student
    lines = [
        f"Teacher correction took the teacher's selection cross-entropy from "
        f"{teacher.before.mean:.4f} to {teacher.after.mean:.4f}."
    ]
    if student is None:
        return [*lines, "What the student gained is not known: its run without it diverged."]
    gap = student.difference
    said = "is better" if gap.high < 0 else "is worse" if gap.low > 0 else "is no different"
    return [
        *lines,
        f"The winner {said} on test text for it: cross-entropy {student.ce:.4f} against "
        f"{student.ce_uncorrected:.4f} of the same shape from the teacher as it was, difference "
        f"{gap.mean:.4f} [{gap.low:.4f}, {gap.high:.4f}].",
    ]


def scratch_verdicts(scratch: ScratchComparison | None) -> list[str]:
    """Tokens that random weights need to come as far as the winner, where the run was long enough
    to tell."""
    if scratch is None or not (scratch.reached or scratch.tokens_ratio > 1):
        return []
    return [f"{_sentence(str(scratch))}."]


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def _said(difference: Interval) -> str:
    if difference.high < 0:
        return "is better than"
    if difference.low > 0:
        return "is worse than"
    return "cannot be told apart from"


def _in_full(compared: Comparison, name: str) -> str:
    difference = compared.full[name]
    line = f"The winner {_said(difference)} {NAMED[name]}"
    own, other = compared.students.winners[0].runs[0].tokens, _other(compared, name).runs[0].tokens
    if other != own:
        line += f" after {other:,} tokens (the winner had {own:,})"
    line += f": difference in test KL {difference}."
    if difference.low > 0:
        line += " It was chosen on the selection split; the test split chooses nothing."
    return line


def _other(compared: Comparison, name: str) -> Measured:
    return compared.students.winners[1] if name == RUNNER_UP else compared.students.baselines[name]


def _after_short(compared: Comparison, name: str, *, difference: Interval) -> str:
    bounds = f"{difference.mean:.4f} [{difference.low:.4f}, {difference.high:.4f}]"
    return (
        f"After short runs of {compared.selection.stage.short_tokens:,} tokens the winner's "
        f"architecture {_said(difference)} {NAMED[name]}: difference in selection KL {bounds}."
    )


def _missing(compared: Comparison, name: str) -> str:
    if name == RANDOM_ARCHITECTURE and compared.selection.random is None:
        return (
            "There is no random architecture to hold the winner against: the space has none beside "
            "the candidates and the uniform shrink."
        )
    run = "full" if compared.selection.stage.evidence == EVIDENCE_FULL else "short"
    if run == "short" and WINNER not in compared.short_kl:
        return (
            f"The winner's architecture has no finished short run to hold against {NAMED[name]}: "
            "its loss diverged."
        )
    return (
        f"{_sentence(NAMED[name])} has no finished {run} run to hold the winner "
        "against: its loss diverged."
    )


def _not_known(names: list[str]) -> str:
    others = " and ".join([", ".join(map(NAMED.__getitem__, names[:-1])), NAMED[names[-1]]])
    others = others.removeprefix(" and ")
    return (
        f"Not known: how {others} would do after a full run, and how much training seeds move the "
        "figures of short runs, which are of one seed and of the text that the winner was chosen "
        "by (--evidence full)."
    )
