"""What is said of the winner: by intervals that are paired, of every baseline, whoever won."""

import json
from pathlib import Path

import numpy as np
import pytest

from distill import Evaluation
from distill.train.limits import RunLimits
from search.cluster.resources import Resources
from search.cluster.room import Room
from search.config.names import CANDIDATE, RANDOM_ARCHITECTURE, RANDOM_INITIALISATION
from search.finals.comparison import Comparison
from search.finals.measure import Measured, MeasuredStudents
from search.finals.selection import FinalSelection
from search.report.verdicts import searched_verdicts, verdicts
from search.results.results import Searched
from search.space.anchors import UNIFORM
from search.workers.full_runs import FullPlan, FullRun
from tests.search.assets import assets_in
from tests.search.finals.test_selection import DRAWN, EVEN, FIRST, SECOND, result, selection

NOISE = np.random.default_rng(0).normal(size=200) * 0.2
"""Common to all students, as the difficulty of the sequences is."""
JITTER = np.random.default_rng(1).normal(size=(2, 200)) * 0.02


def measured(run: FullRun, kl: float, tokens: int = 8000) -> Measured:
    values = Evaluation(kl=kl + NOISE, ce=kl + NOISE, top1_agreement=NOISE)
    runs = [result(run, values, tokens)]
    return Measured(run.role, run.architecture, 1000, runs, [values])


@pytest.fixture
def plan(tmp_path: Path) -> FullPlan:
    return FullPlan(
        assets=assets_in(tmp_path),
        limits=RunLimits(8000),
        directory=tmp_path,
        checkpoints=tmp_path,
        dtype="float32",
        room=Room(Resources(1, 1, 0.0)),
    )


def finished(plan: FullPlan, run: FullRun, kl: np.ndarray) -> None:
    directory = plan.directory / run.directory_name(plan.tokens)
    directory.mkdir()
    rows = {name: kl.tolist() for name in ("kl", "ce", "top1_agreement")}
    summary = {"selection": rows, "curve": [], "tokens": 896, "seconds": 1.0, "resumed_tokens": 0}
    (directory / "done.json").write_text(json.dumps(summary))


def in_full(plan: FullPlan, kls: dict[str, float], winner: str = CANDIDATE) -> list[str]:
    """Verdicts where every baseline was distilled in full and `winner` was chosen."""
    found = selection(evidence="full")
    runs = {
        UNIFORM: found.run(UNIFORM, EVEN),
        RANDOM_ARCHITECTURE: found.run(RANDOM_ARCHITECTURE, DRAWN),
        RANDOM_INITIALISATION: found.scratch(FIRST),
        CANDIDATE: found.run(CANDIDATE, FIRST),
    }
    every = {name: measured(run, kls[name]) for name, run in runs.items()}
    winners = [every[winner]] if winner == CANDIDATE else [every[winner], every[CANDIDATE]]
    baselines = {name: each for name, each in every.items() if name != CANDIDATE}
    return verdicts(Comparison.of(found, MeasuredStudents(winners, baselines), plan=plan))


def test_every_baseline_is_held_against_the_winner(plan: FullPlan) -> None:
    kls = {CANDIDATE: 0.5, UNIFORM: 0.7, RANDOM_ARCHITECTURE: 0.5, RANDOM_INITIALISATION: 3.0}
    lines = in_full(plan, kls)
    assert len(lines) == 3
    assert "is better than the uniform shrink: difference in test KL -0.2000" in lines[0]
    assert "cannot be told apart from the random architecture" in lines[1]
    assert "is better than the same shape from random weights" in lines[2]


def test_a_baseline_that_is_better_on_test_is_named_whoever_was_chosen(plan: FullPlan) -> None:
    kls = {CANDIDATE: 0.9, UNIFORM: 0.6, RANDOM_ARCHITECTURE: 0.255, RANDOM_INITIALISATION: 3.0}
    lines = in_full(plan, kls, winner=UNIFORM)
    assert lines[0].startswith("The winner is the uniform shrink: nothing that the search proposed")
    assert lines[1].startswith("The winner is worse than the random architecture: ")
    assert "0.3450 [" in lines[1]
    assert "the test split chooses nothing" in lines[1]
    assert "is better than the runner-up" in lines[3]


@pytest.mark.parametrize(
    ("winner", "said"),
    [
        (RANDOM_ARCHITECTURE, "The winner is the random architecture, which the search did not"),
        (RANDOM_INITIALISATION, "The winner was trained from random weights"),
    ],
)
def test_a_baseline_that_was_chosen_is_called_so(plan: FullPlan, winner: str, said: str) -> None:
    kls = {CANDIDATE: 0.9, UNIFORM: 0.6, RANDOM_ARCHITECTURE: 0.5, RANDOM_INITIALISATION: 0.5}
    lines = in_full(plan, kls, winner)
    assert lines[0].startswith(said)
    assert sum("the winner is" in line.lower() for line in lines) >= 2
    assert not any("diverged" in line for line in lines)


def test_a_baseline_of_more_tokens_says_so(plan: FullPlan) -> None:
    found = selection(evidence="full", scratch_tokens=16_000)
    winner = measured(found.run(CANDIDATE, FIRST), 0.5)
    longer = measured(found.scratch(FIRST), 0.4, tokens=16_000)
    lines = verdicts(
        Comparison.of(found, MeasuredStudents([winner], {RANDOM_INITIALISATION: longer}), plan=plan)
    )
    assert "random weights after 16,000 tokens (the winner had 8,000)" in lines[0]
    assert "The uniform shrink has no finished full run" in lines[1]


def short(plan: FullPlan, random_kl: float) -> tuple[Comparison, list[str]]:
    """Two winners in full, baselines after short runs; trials as made up."""
    found = selection()
    trials = {FIRST: 0.6 + NOISE, SECOND: 0.6 + NOISE, EVEN: 0.6 + NOISE + JITTER[0]}
    found = FinalSelection(found.stage, [FIRST, SECOND], EVEN, DRAWN, [], trials)
    finished(plan, found.short_run(RANDOM_ARCHITECTURE, DRAWN), random_kl + NOISE + JITTER[1])
    finished(plan, found.scratch(FIRST), 3.0 + NOISE)
    winners = [measured(found.run(CANDIDATE, shape), 0.5) for shape in (FIRST, SECOND)]
    comparison = Comparison.of(found, MeasuredStudents(winners, {}), plan=plan)
    return comparison, verdicts(comparison)


@pytest.mark.parametrize(
    ("random_kl", "said"),
    [(0.7, "is better than"), (0.6, "cannot be told apart from"), (0.5, "is worse than")],
)
def test_short_runs_are_compared_in_pairs_and_called_short(
    plan: FullPlan, random_kl: float, said: str
) -> None:
    found, lines = short(plan, random_kl)
    assert len(lines) == 5
    assert "After short runs of 896 tokens" in lines[0]
    assert "cannot be told apart from the uniform shrink" in lines[0]
    assert f"{said} the random architecture: difference in selection KL" in lines[1]
    assert "is better than the same shape from random weights" in lines[2]
    assert lines[3].startswith("Not known: how the uniform shrink, the random architecture and ")
    assert "--evidence full" in lines[3]
    assert "the runner-up" in lines[4] and "test KL" in lines[4]
    # paired: the sequences differ by far more than these intervals are wide
    assert found.short[UNIFORM].high - found.short[UNIFORM].low < 0.01
    assert found.short_runs().tokens == 896


def test_a_baseline_that_won_is_not_held_against_itself(plan: FullPlan) -> None:
    trials = dict.fromkeys((FIRST, EVEN), 0.6 + NOISE)
    found = FinalSelection(selection().stage, [FIRST], EVEN, DRAWN, [], trials)
    finished(plan, found.short_run(RANDOM_ARCHITECTURE, DRAWN), 0.5 + NOISE)
    winner = measured(found.run(RANDOM_ARCHITECTURE, DRAWN), 0.5)
    comparison = Comparison.of(
        found, MeasuredStudents([winner], {RANDOM_ARCHITECTURE: winner}), plan=plan
    )
    assert comparison.winner_is == RANDOM_ARCHITECTURE
    assert comparison.short.keys() == {UNIFORM}
    even = Comparison.of(
        found, MeasuredStudents([measured(found.run(CANDIDATE, EVEN), 0.5)], {}), plan=plan
    )
    assert even.short.keys() == {RANDOM_ARCHITECTURE}
    assert verdicts(even)[0].startswith("The winner is the uniform shrink")


def test_a_winner_without_a_short_run_is_not_compared_by_another_length(plan: FullPlan) -> None:
    found = selection()
    stopped = FinalSelection(found.stage, [FIRST], EVEN, DRAWN, [], {EVEN: 0.6 + NOISE})
    winner = measured(stopped.run(CANDIDATE, FIRST), 0.5)
    lines = verdicts(Comparison.of(stopped, MeasuredStudents([winner], {}), plan=plan))
    assert len(lines) == 3
    assert all("has no finished short run to hold against" in line for line in lines)


def test_no_evidence_says_that_nothing_was_compared(plan: FullPlan) -> None:
    found = selection(evidence="none")
    winner = measured(found.run(CANDIDATE, FIRST), 0.5)
    (line,) = verdicts(Comparison.of(found, MeasuredStudents([winner], {}), plan=plan))
    assert line.startswith("Nothing was run to be compared (--evidence none)")


def test_a_space_without_another_architecture_has_no_random_one(plan: FullPlan) -> None:
    found = selection()
    alone = FinalSelection(
        found.stage, [FIRST], EVEN, None, [], {FIRST: 0.6 + NOISE, EVEN: 0.7 + NOISE}
    )
    winner = measured(alone.run(CANDIDATE, FIRST), 0.5)
    lines = verdicts(Comparison.of(alone, MeasuredStudents([winner], {}), plan=plan))
    assert any("There is no random architecture" in line for line in lines)


@pytest.mark.parametrize(
    ("searched", "said", "unsaid"),
    [
        (Searched(500, 500, 2, 0, 24, False), ["Only 2 of 24 trials", "So few"], []),
        (
            Searched(500, 500, 24, 11, 24, False),
            ["500 architectures; tried: 24, of which 11"],
            ["Only", "So few"],
        ),
        (Searched(6, 6, 6, 1, 24, True), ["6 architectures; tried: 6"], ["Only", "So few"]),
        (Searched(500, 250, 24, 0, 24, False), ["(250 of them left in"], ["So few"]),
    ],
)
def test_what_was_not_searched_is_said(
    searched: Searched, said: list[str], unsaid: list[str]
) -> None:
    text = " ".join(searched_verdicts(searched))
    assert all(part in text for part in said)
    assert not any(part in text for part in unsaid)
