"""Verdicts on what the winner is held against: each with its paired difference and interval."""

from pruning import Architecture
from search.config.names import (
    EVIDENCE_FULL,
    EVIDENCE_NONE,
    RANDOM_ARCHITECTURE,
    RANDOM_INITIALISATION,
)
from search.finals.comparison import RUNNER_UP, WINNER
from search.report.verdicts.found import BASELINES, Found, apart, between, listed, noun, sentence
from search.results.statements import BAD, GOOD, NOTE, Statement
from search.space.anchors import UNIFORM

ITSELF = {
    UNIFORM: "is the uniform shrink (the pruned baseline, all widths by one ratio): nothing that "
    "the search proposed came out better on the selection split",
    RANDOM_ARCHITECTURE: "is the random architecture, which the search did not choose: on the "
    "selection split it is better than every candidate",
    RANDOM_INITIALISATION: "was trained from random weights: on the selection split it is better "
    "than every student that was cut from the teacher",
}


def rival_verdicts(found: Found) -> list[Statement]:
    """What the winner is itself, then every baseline and candidate, after full runs or short."""
    comparison = found.comparison
    itself, short = comparison.winner_is, comparison.short
    lines = [] if itself is None else [_itself(found, itself)]
    lines += [_in_full(found, name) for name in found.rivals]
    lines += _one_seed(found)
    lines += [_after_short(found, name) for name in BASELINES if name in short]
    if comparison.selection.stage.evidence == EVIDENCE_NONE:
        lines.append(
            Statement(
                NOTE,
                "No baseline was run (evidence none): whether the winner is better than a "
                "uniform shrink or a random architecture of its size is not known.",
            )
        )
    else:
        known = {*comparison.full, *short, itself}
        lines += [_missing(found, name) for name in BASELINES if name not in known]
    if short:
        lines.append(_not_known(list(short)))
    return lines


def _itself(found: Found, name: str) -> Statement:
    """The winner is a baseline: the search brought nothing, as far as the best of its own can be
    told from it."""
    comparison = found.comparison
    if comparison.selection.along_a_front:
        return Statement(NOTE, f"The winner is {noun(name)} of its size.")
    text = f"The winner {ITSELF[name]}."
    gap = comparison.full.get(RUNNER_UP)
    beaten = gap is not None and gap.high < 0
    return Statement(BAD if beaten else NOTE, f"{text} {found.search_on}")


def _in_full(found: Found, name: str) -> Statement:
    """A rival after its full run."""
    gap, called = found.comparison.full[name], _called(found, name)
    longer = ""
    if found.is_longer(name):
        longer = f" after {found.rivals[name].runs[0].tokens:,} tokens"
        longer += f" (the winner had {found.winner.runs[0].tokens:,})"
    dearer, cheaper = ("; ".join(costs) for costs in (found.dearer(name), found.cheaper(name)))
    if gap.high < 0:
        line = f"The winner is better than {called}{longer}: its test KL is {apart(gap)}."
        if cheaper:
            return Statement(NOTE, f"{line} The other costs less ({cheaper}): another trade-off.")
        return Statement(GOOD, line)
    if gap.low <= 0:
        line = f"The winner cannot be told apart from {called}{longer}: difference in test KL "
        return Statement(NOTE, f"{line}{between(gap)}.{_tie(found, name)}")
    line = f"{sentence(called)} is better than the winner{longer}: the winner's test KL is "
    line += apart(gap)
    if dearer:
        return Statement(NOTE, f"{line}. It costs more ({dearer}): another trade-off.")
    where = f"Its checkpoint is in {folder_of(found, name)}"
    if longer:
        return Statement(NOTE, f"{line}, which more tokens may explain. {where}.")
    return Statement(BAD, f"{line}. {_surprise(found, name)} {where}: {_advice(found, name)}")


def folder_of(found: Found, name: str) -> str:
    """Of a rival's checkpoint, in the workspace."""
    winners = found.comparison.students.winners
    one = found.rivals[name]
    if any(one is winner for winner in winners):
        return f"winners/{[id(w) for w in winners].index(id(one)) + 1}"
    return f"baselines/{name.replace(' ', '-')}"


def _called(found: Found, name: str) -> str:
    return _with_shape(name, found.rivals[name].architecture)


def _with_shape(name: str, shape: Architecture | None) -> str:
    if name == RANDOM_INITIALISATION:
        return f"{noun(name)} (its shape from random weights)"
    return f"{noun(name)} ({'pruned baseline, ' if name == UNIFORM else ''}{shape})"


def _tie(found: Found, name: str) -> str:
    """What can be said of two that are as good."""
    other, winner = found.rivals[name], found.winner
    said = ""
    if found.comparison.full[name].mean > 0:
        said = " The other's is the lower, by no more than chance explains"
        said += f"; {_on_selection(found, name)}."
    fewer = 1 - other.parameters / winner.parameters
    if fewer > 0:
        said += f" It has {fewer:.1%} fewer parameters."
    if found.comparison.full[name].seeds == 1 and name in (RUNNER_UP, UNIFORM):
        said += " --evidence full, which runs three seeds, may tell them apart."
    return said


def _on_selection(found: Found, name: str) -> str:
    """How the two stood where one was chosen."""
    own, other = (one.runs[0].selection.means()["kl"] for one in (found.winner, found.rivals[name]))
    return f"on the selection split, which chooses, the winner had {own:.4f} against {other:.4f}"


def _surprise(found: Found, name: str) -> str:
    """Why it was not chosen."""
    if found.comparison.selection.along_a_front:
        return "It was no candidate: the search chose along the front of its own trials."
    return f"It was not chosen, since the test split chooses nothing: {_on_selection(found, name)}."


def _advice(found: Found, name: str) -> str:
    """What to do about a rival that is better."""
    hold = "hold both against text of your own, and take the better"
    if name == RANDOM_INITIALISATION:
        return f"{hold}; what was cut out of the teacher brought nothing at this length."
    return f"{hold}. {found.search_on}" if name in BASELINES else f"{hold}."


def _one_seed(found: Found) -> list[Statement]:
    """What is not in the intervals above."""
    single = [name for name in found.rivals if found.comparison.full[name].seeds == 1]
    if not single:
        return []
    every = "these differences" if len(single) > 1 else f"the difference to {listed(single)}"
    if len(single) < len(found.rivals):
        every = f"the differences to {listed(single)}"
    return [
        Statement(
            NOTE,
            f"The intervals of {every} are over sequences, of one training seed: how much seeds "
            "move a KL is not in them.",
        )
    ]


def _after_short(found: Found, name: str) -> Statement:
    """A baseline after its short run, on the selection split."""
    gap, called = found.comparison.short[name], _short_name(found, name)
    begins = f"After short runs of {found.comparison.selection.stage.short_tokens:,} tokens"
    if gap.high < 0:
        return Statement(
            GOOD,
            f"{begins} the winner's architecture is better than {called}: its selection KL is "
            f"{apart(gap)}.",
        )
    if gap.low <= 0:
        return Statement(
            NOTE,
            f"{begins} the winner's architecture cannot be told apart from {called}: difference in "
            f"selection KL {between(gap)}.",
        )
    return Statement(
        BAD,
        f"{begins} {called} is better than the winner's architecture, whose selection KL is "
        f"{apart(gap)}. It was not distilled in full: --evidence full does that, with the same "
        "--workspace.",
    )


def _short_name(found: Found, name: str) -> str:
    selection = found.comparison.selection
    return _with_shape(name, selection.uniform if name == UNIFORM else selection.random)


def _missing(found: Found, name: str) -> Statement:
    comparison = found.comparison
    if name == RANDOM_ARCHITECTURE and comparison.selection.random is None:
        return Statement(
            NOTE,
            "There is no random architecture to hold the winner against: the space has none beside "
            "the candidates and the uniform shrink.",
        )
    run = "full" if comparison.selection.stage.evidence == EVIDENCE_FULL else "short"
    if run == "short" and WINNER not in comparison.short_kl:
        return Statement(
            NOTE,
            f"The winner's architecture has no finished short run to hold against {noun(name)}: "
            "its loss diverged.",
        )
    return Statement(
        NOTE,
        f"{sentence(noun(name))} has no finished {run} run to hold the winner against: its loss "
        "diverged.",
    )


def _not_known(names: list[str]) -> Statement:
    return Statement(
        NOTE,
        f"Not known: how {listed(names)} would do after a full run, and how much training seeds "
        "move the figures of short runs, which are of one seed and of the text that the winner was "
        "chosen by (--evidence full).",
    )
