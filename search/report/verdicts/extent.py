"""Verdicts on how far the search went, and on what its other parts brought."""

from collections.abc import Sequence

from optuna.trial import TrialState

from search.database.trial_facts import FINISHED_STATES, architecture_of
from search.report.verdicts.found import sentence
from search.results.results import CorrectionResult, Searched
from search.results.scratch_comparison import ScratchComparison
from search.results.statements import BAD, GOOD, NOTE, Statement, Tone
from search.study.record import Record

FEW_TRIALS = 8
"""Trials below which a search has hardly begun."""


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


def searched_verdicts(searched: Searched) -> list[Statement]:
    """The part of the space that was tried, the part that was not, and whether that says much."""
    left_in = ""
    if searched.allowed < searched.architectures:
        left_in = f" ({searched.allowed:,} of them left in by the scores before training)"
    lines = []
    if searched.tried < searched.asked and not searched.exhausted:
        lines.append(
            Statement(
                BAD,
                f"The time ran out: only {searched.tried} of {searched.asked} trials fitted into "
                "it. The same command, with a longer --time_budget or none, goes on from here.",
            )
        )
    if searched.tried < min(FEW_TRIALS, searched.allowed) and not searched.exhausted:
        lines.append(
            Statement(
                BAD,
                f"So few trials ({searched.tried}) say little: there may well be better "
                "architectures among those that were not tried. More --trials go on from here.",
            )
        )
    lines.append(
        Statement(
            NOTE,
            f"The space has {searched.architectures:,} architectures{left_in}; tried: "
            f"{searched.tried}{_beside(searched)}, of which {searched.stopped} stopped early.",
        )
    )
    return lines


def cut_verdicts(left_out: Sequence[str]) -> list[Statement]:
    """What of the last stage there was no time for; nothing where all of it was run."""
    if not left_out:
        return []
    return [
        Statement(
            BAD,
            f"The time ran out before the last stage was run as it was asked for; left out: "
            f"{', '.join(left_out)}. The same command goes on with these.",
        )
    ]


def _beside(searched: Searched) -> str:
    """How many of those that were tried are of the space, where others were tried, too."""
    if not searched.per_layer:
        return ""
    alike = searched.tried - searched.per_layer
    return f" ({alike} of these, and {searched.per_layer} whose layers differ)"


def correction_verdicts(correction: CorrectionResult | None) -> list[Statement]:
    """Gain of teacher and winner by correcting the teacher; nothing where it was not corrected."""
    if correction is None:
        return []
    teacher, student = correction.teacher, correction.student
    gained = Statement(
        NOTE,
        f"Teacher correction took the teacher's selection cross-entropy from "
        f"{teacher.before.mean:.4f} to {teacher.after.mean:.4f}.",
    )
    if student is None:
        lost = "What the student gained by it is not known: its run without it diverged."
        return [gained, Statement(NOTE, lost)]
    gap = student.difference
    tone: Tone = NOTE
    said, advice = "is no different", ""
    if gap.high < 0:
        tone, said = GOOD, "is better"
    elif gap.low > 0:
        tone, said, advice = BAD, "is worse", " Leave --correction.tokens out."
    return [
        gained,
        Statement(
            tone,
            f"The winner {said} on test text for it: cross-entropy {student.ce:.4f} against "
            f"{student.ce_uncorrected:.4f} of the same shape from the teacher as it was, "
            f"difference {gap.mean:.4f} [{gap.low:.4f}, {gap.high:.4f}].{advice}",
        ),
    ]


def fidelity_verdicts(warnings: list[str]) -> list[Statement]:
    """Early scores that are not shown to predict later ones."""
    return [Statement(NOTE, f"{sentence(line)}.") for line in warnings]


def scratch_verdicts(scratch: ScratchComparison | None) -> list[Statement]:
    """Tokens that random weights need to come as far as the winner, where the run was long enough
    to tell."""
    if scratch is None or not (scratch.reached or scratch.tokens_ratio > 1):
        return []
    tone = GOOD if scratch.tokens_ratio > 1 else NOTE
    return [Statement(tone, f"{sentence(str(scratch))}.")]
