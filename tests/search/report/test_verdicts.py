"""What is said of the winner: by intervals that are paired, of every baseline, whoever won."""

import html
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pytest

from distill import Evaluation
from distill.train.limits import RunLimits
from search.cluster.resources import Resources
from search.cluster.room import Room
from search.config.names import CANDIDATE, RANDOM_ARCHITECTURE, RANDOM_INITIALISATION
from search.finals.comparison import Comparison
from search.finals.measure import Measured, MeasuredStudents
from search.finals.selection import FinalSelection
from search.page import StudyFacts, StudyPage
from search.report.console import log_outcome
from search.report.outcome import Outcome
from search.report.verdicts import Found, cut_verdicts, searched_verdicts, verdicts
from search.results.cards import Origin, write_card
from search.results.results import Searched, ServingCosts, TeacherResult, TeacherScores
from search.results.statements import BAD, GOOD, NOTE, Statement
from search.space.anchors import UNIFORM
from search.workers.full_runs import FullPlan, FullRun
from tests.search.assets import assets_in
from tests.search.finals.test_selection import DRAWN, EVEN, FIRST, SECOND, result, selection
from tests.search.finished import RESULTS, interval
from workspace.layout import Workspace

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


TEACHER = TeacherResult("T", FIRST, 2000, TeacherScores(interval(0.4)))
"""Of a study without trials, as far as figures read it."""
COSTS = ServingCosts(1000, 800, 1000, 2e6, 2e6)


def found(comparison: Comparison, flops: float = 2e6) -> Found:
    """`flops` are those of every baseline, and count where they are an objective."""
    others = dict.fromkeys(comparison.students.baselines, replace(COSTS, flops=flops))
    objectives = ("kl", "flops") if comparison.selection.along_a_front else ("kl",)
    winners = [COSTS] * len(comparison.students.winners)
    return Found(comparison, TEACHER, winners, others, objectives)


def said(comparison: Comparison) -> list[str]:
    return [statement.text for statement in verdicts(found(comparison))]


def in_full(plan: FullPlan, kls: dict[str, float], winner: str = CANDIDATE) -> Comparison:
    """Every baseline was distilled in full and `winner` was chosen."""
    chosen = selection(evidence="full")
    runs = {
        UNIFORM: chosen.run(UNIFORM, EVEN),
        RANDOM_ARCHITECTURE: chosen.run(RANDOM_ARCHITECTURE, DRAWN),
        RANDOM_INITIALISATION: chosen.scratch(FIRST),
        CANDIDATE: chosen.run(CANDIDATE, FIRST),
    }
    every = {name: measured(run, kls[name]) for name, run in runs.items()}
    winners = [every[winner]] if winner == CANDIDATE else [every[winner], every[CANDIDATE]]
    baselines = {name: each for name, each in every.items() if name != CANDIDATE}
    return Comparison.of(chosen, MeasuredStudents(winners, baselines), plan=plan)


def test_the_headline_says_what_the_student_keeps_and_how_it_was_chosen(plan: FullPlan) -> None:
    kls = {CANDIDATE: 0.5, UNIFORM: 0.7, RANDOM_ARCHITECTURE: 0.9, RANDOM_INITIALISATION: 3.0}
    headline, *rest = verdicts(found(in_full(plan, kls)))
    *rest, seeds = rest
    assert headline.tone == GOOD and all(each.tone == GOOD for each in rest)
    assert seeds.tone == NOTE and "these differences are over sequences, of one" in seeds.text
    assert headline.text.startswith(f"{FIRST}, 1,000 parameters (50.0% of the teacher's 2,000)")
    assert f"on the likeliest next token of {NOISE.mean():.1%} of the test text" in headline.text
    assert "a perplexity of 1.65 against the teacher's 1.49" in headline.text
    assert "chosen on the selection split (KL to the teacher 0.5" in headline.text
    assert "read once afterwards, the KL is 0.5" in headline.text
    worse = "the uniform shrink, the random architecture and random initialisation"
    assert headline.text.endswith(f"All that it was held against is worse: {worse}.")


def test_every_baseline_is_held_against_the_winner(plan: FullPlan) -> None:
    kls = {CANDIDATE: 0.5, UNIFORM: 0.7, RANDOM_ARCHITECTURE: 0.5, RANDOM_INITIALISATION: 3.0}
    headline, *lines = verdicts(found(in_full(plan, kls)))
    assert [line.tone for line in lines] == [GOOD, NOTE, GOOD, NOTE]
    assert "better than the uniform shrink (pruned baseline, L3 H64 A8/2 F96)" in lines[0].text
    assert "its test KL is lower by 0.2000 [0.2000, 0.2000]" in lines[0].text
    assert "cannot be told apart from the random architecture (L4" in lines[1].text
    assert "is better than random initialisation" in lines[2].text
    assert headline.tone == NOTE
    assert headline.text.endswith("As good, as far as can be told: the random architecture.")


def test_a_baseline_that_is_better_comes_first_and_is_kept(plan: FullPlan) -> None:
    kls = {CANDIDATE: 0.6, UNIFORM: 0.7, RANDOM_ARCHITECTURE: 0.255, RANDOM_INITIALISATION: 3.0}
    better = found(in_full(plan, kls))
    headline, first, *rest, _ = verdicts(better)
    assert headline.tone == first.tone == BAD and all(each.tone == GOOD for each in rest)
    assert headline.text.endswith("Better than it on the test split: the random architecture.")
    assert first.text.startswith("The random architecture (L4 H64 A8/2 F96) is better than the win")
    assert "the winner's test KL is higher by 0.3450 [0.3450, 0.3450]" in first.text
    assert "Its checkpoint is in baselines/random-architecture: hold both against" in first.text
    assert better.worth_keeping == [RANDOM_ARCHITECTURE]
    assert "More --trials, with the same --workspace" in first.text
    assert "a wider --space has more" in verdicts(replace(better, exhausted=True))[1].text


def test_a_candidate_that_is_better_on_test_is_said_with_what_chose(plan: FullPlan) -> None:
    chosen = selection(evidence="full")
    own, other = (measured(chosen.run(CANDIDATE, shape), 0.5) for shape in (FIRST, SECOND))
    other.test[0].kl[:] -= 0.1
    for one, shift in ((own, 0.0), (other, 0.02)):
        one.runs[0] = replace(one.runs[0], selection=replace(one.test[0], kl=NOISE + 0.5 + shift))
    lines = verdicts(found(Comparison.of(chosen, MeasuredStudents([own, other], {}), plan=plan)))
    assert "Better than it on the test split: candidate 2." in lines[0].text
    assert lines[1].tone == BAD and "Candidate 2 (L2 H64 A8/2 F96) is better" in lines[1].text
    assert "which chooses, the winner had 0.5031 against 0.5231" in lines[1].text
    assert "winners/2" in lines[1].text


def test_a_tie_says_which_is_smaller_and_what_the_splits_say(plan: FullPlan) -> None:
    chosen = selection(evidence="full")
    own, other = (measured(chosen.run(CANDIDATE, shape), 0.5) for shape in (FIRST, SECOND))
    other.test[0].kl[:] += JITTER[0] - JITTER[0].mean() - 1e-4
    students = MeasuredStudents([own, replace(other, parameters=900)], {})
    line = said(Comparison.of(chosen, students, plan=plan))[1]
    assert "cannot be told apart from candidate 2" in line
    assert "The other's is the lower, by no more than chance explains" in line
    assert "10.0% fewer parameters" in line


def test_along_a_front_a_cheaper_baseline_is_another_trade_off(plan: FullPlan) -> None:
    chosen = replace(selection(evidence="full"), along_a_front=True)
    winner = measured(chosen.run(CANDIDATE, FIRST), 0.3)
    drawn = measured(chosen.run(RANDOM_ARCHITECTURE, DRAWN), 0.5)
    students = MeasuredStudents([winner], {RANDOM_ARCHITECTURE: drawn})
    headline, line, *_ = verdicts(found(Comparison.of(chosen, students, plan=plan), flops=1e6))
    assert headline.tone == NOTE and "is better after as many tokens at its" in headline.text
    assert line.tone == NOTE and "lower by 0.2000" in line.text
    assert "costs less (1 MFLOP per token against 2 MFLOP per token)" in line.text


@pytest.mark.parametrize(("flops", "tone"), [(4e6, NOTE), (2e6, BAD)])
def test_along_a_front_a_baseline_is_better_only_at_no_higher_cost(
    plan: FullPlan, flops: float, tone: str
) -> None:
    chosen = replace(selection(evidence="full"), along_a_front=True)
    winner = measured(chosen.run(CANDIDATE, FIRST), 0.5)
    drawn = measured(chosen.run(RANDOM_ARCHITECTURE, DRAWN), 0.3)
    students = MeasuredStudents([winner], {RANDOM_ARCHITECTURE: drawn})
    traded = found(Comparison.of(chosen, students, plan=plan), flops)
    headline, *lines = verdicts(traded)
    (line,) = [line for line in lines if "random architecture (" in line.text]
    assert line.tone == tone and headline.tone == tone
    assert ("4 MFLOP per token against 2 MFLOP" in line.text) == (tone == NOTE)
    assert traded.worth_keeping == ([RANDOM_ARCHITECTURE] if tone == BAD else [])
    assert "chosen as the knee of the front of kl, flops on the selection split" in headline.text


@pytest.mark.parametrize(
    ("winner", "begins"),
    [
        (UNIFORM, "The winner is the uniform shrink (the pruned baseline"),
        (RANDOM_ARCHITECTURE, "The winner is the random architecture, which the search did not"),
        (RANDOM_INITIALISATION, "The winner was trained from random weights"),
    ],
)
def test_a_baseline_that_was_chosen_is_called_so(plan: FullPlan, winner: str, begins: str) -> None:
    kls = {CANDIDATE: 0.9, UNIFORM: 0.6, RANDOM_ARCHITECTURE: 0.6, RANDOM_INITIALISATION: 0.6}
    lines = verdicts(found(in_full(plan, kls, winner)))
    assert lines[1].text.startswith(begins) and lines[1].tone == BAD
    assert lines[0].tone == NOTE
    assert "More --trials" in lines[1].text
    assert not any("diverged" in line.text for line in lines)
    assert any("is better than candidate 2" in line.text for line in lines)


def test_a_baseline_of_more_tokens_says_so_and_is_kept(plan: FullPlan) -> None:
    chosen = selection(evidence="full", scratch_tokens=16_000)
    winner = measured(chosen.run(CANDIDATE, FIRST), 0.5)
    longer = measured(chosen.scratch(FIRST), 0.4, tokens=16_000)
    students = MeasuredStudents([winner], {RANDOM_INITIALISATION: longer})
    more = found(Comparison.of(chosen, students, plan=plan))
    headline, line, _, missing, *_ = verdicts(more)
    assert "better than the winner after 16,000 tokens (the winner had 8,000)" in line.text
    assert line.tone == headline.tone == NOTE and "better after as many tokens" in headline.text
    assert more.worth_keeping == [RANDOM_INITIALISATION]
    assert "baselines/random-initialisation" in line.text
    assert "The uniform shrink has no finished full run" in missing.text


def short(plan: FullPlan, random_kl: float) -> Comparison:
    """Two winners in full, baselines after short runs; trials as made up."""
    chosen = selection()
    trials = {FIRST: 0.6 + NOISE, SECOND: 0.6 + NOISE, EVEN: 0.6 + NOISE + JITTER[0]}
    chosen = FinalSelection(chosen.stage, [FIRST, SECOND], EVEN, DRAWN, [], trials)
    finished(plan, chosen.short_run(RANDOM_ARCHITECTURE, DRAWN), random_kl + NOISE + JITTER[1])
    finished(plan, chosen.scratch(FIRST), 3.0 + NOISE)
    winners = [measured(chosen.run(CANDIDATE, shape), 0.5) for shape in (FIRST, SECOND)]
    return Comparison.of(chosen, MeasuredStudents(winners, {}), plan=plan)


@pytest.mark.parametrize(
    ("random_kl", "begins", "tone"),
    [
        (0.7, "the winner's architecture is better than the random architecture (L4", GOOD),
        (0.6, "the winner's architecture cannot be told apart from the random", NOTE),
        (0.5, "the random architecture (L4 H64 A8/2 F96) is better than the winner's", BAD),
    ],
)
def test_short_runs_are_compared_in_pairs_and_called_short(
    plan: FullPlan, random_kl: float, begins: str, tone: str
) -> None:
    compared = short(plan, random_kl)
    lines = verdicts(found(compared))
    (line,) = [line for line in lines if f"short runs of 896 tokens {begins}" in line.text]
    assert line.tone == tone and "selection KL" in line.text
    assert (lines[1] == line) == ("--evidence full does that" in line.text) == (tone == BAD)
    texts = [each.text for each in lines]
    assert any("cannot be told apart from the uniform shrink (pruned" in text for text in texts)
    assert any("is better than random initialisation" in text for text in texts)
    assert texts[-1].startswith("Not known: how the uniform shrink, the random architecture and ")
    assert "candidate 2, the uniform shrink (after short runs)" in texts[0] or tone == BAD
    # paired: the sequences differ by far more than these intervals are wide
    assert compared.short[UNIFORM].high - compared.short[UNIFORM].low < 0.01
    assert compared.short_runs().tokens == 896


def test_a_baseline_that_won_is_not_held_against_itself(plan: FullPlan) -> None:
    trials = dict.fromkeys((FIRST, EVEN), 0.6 + NOISE)
    chosen = FinalSelection(selection().stage, [FIRST], EVEN, DRAWN, [], trials)
    finished(plan, chosen.short_run(RANDOM_ARCHITECTURE, DRAWN), 0.5 + NOISE)
    winner = measured(chosen.run(RANDOM_ARCHITECTURE, DRAWN), 0.5)
    comparison = Comparison.of(
        chosen, MeasuredStudents([winner], {RANDOM_ARCHITECTURE: winner}), plan=plan
    )
    assert comparison.winner_is == RANDOM_ARCHITECTURE
    assert comparison.short.keys() == {UNIFORM}
    even = Comparison.of(
        chosen, MeasuredStudents([measured(chosen.run(CANDIDATE, EVEN), 0.5)], {}), plan=plan
    )
    assert even.short.keys() == {RANDOM_ARCHITECTURE}
    assert any(line.startswith("The winner is the uniform shrink") for line in said(even))


def test_a_winner_without_a_short_run_is_not_compared_by_another_length(plan: FullPlan) -> None:
    chosen = selection()
    stopped = FinalSelection(chosen.stage, [FIRST], EVEN, DRAWN, [], {EVEN: 0.6 + NOISE})
    winner = measured(stopped.run(CANDIDATE, FIRST), 0.5)
    headline, *lines = said(Comparison.of(stopped, MeasuredStudents([winner], {}), plan=plan))
    assert len(lines) == 3 and headline.endswith("It was held against nothing.")
    assert all("has no finished short run to hold against" in line for line in lines)


def test_no_evidence_says_that_nothing_was_compared(plan: FullPlan) -> None:
    chosen = selection(evidence="none")
    winner = measured(chosen.run(CANDIDATE, FIRST), 0.5)
    headline, line = said(Comparison.of(chosen, MeasuredStudents([winner], {}), plan=plan))
    assert line.startswith("No baseline was run (evidence none)")
    assert headline.endswith("It was held against nothing.")


def test_a_space_without_another_architecture_has_no_random_one(plan: FullPlan) -> None:
    chosen = selection()
    alone = FinalSelection(
        chosen.stage, [FIRST], EVEN, None, [], {FIRST: 0.6 + NOISE, EVEN: 0.7 + NOISE}
    )
    winner = measured(alone.run(CANDIDATE, FIRST), 0.5)
    lines = said(Comparison.of(alone, MeasuredStudents([winner], {}), plan=plan))
    assert any("There is no random architecture" in line for line in lines)


@pytest.mark.parametrize(
    ("searched", "said", "unsaid"),
    [
        (Searched(500, 500, 2, 0, 24, False), ["only 2 of 24 trials", "So few"], []),
        (
            Searched(500, 500, 24, 11, 24, False),
            ["500 architectures; tried: 24, of which 11"],
            ["only", "So few"],
        ),
        (Searched(6, 6, 6, 1, 24, True), ["6 architectures; tried: 6"], ["only", "So few"]),
        (Searched(500, 250, 24, 0, 24, False), ["(250 of them left in"], ["So few"]),
    ],
)
def test_what_was_not_searched_is_said(
    searched: Searched, said: list[str], unsaid: list[str]
) -> None:
    lines = searched_verdicts(searched)
    text = " ".join(line.text for line in lines)
    assert all(part in text for part in said)
    assert not any(part in text for part in unsaid)
    assert [line.tone for line in lines] == [BAD] * (len(lines) - 1) + [NOTE]


def test_what_there_was_no_time_for_speaks_against_the_winner() -> None:
    assert cut_verdicts(()) == []
    (line,) = cut_verdicts(("further training seeds", "the baselines"))
    assert line.tone == BAD and "left out: further training seeds, the baselines." in line.text


def wins(plan: FullPlan) -> list[Statement]:
    kls = {CANDIDATE: 0.6, UNIFORM: 0.7, RANDOM_ARCHITECTURE: 0.255, RANDOM_INITIALISATION: 3.0}
    return verdicts(found(in_full(plan, kls)))


def ties(plan: FullPlan) -> list[Statement]:
    return verdicts(found(short(plan, 0.6)))


def few_trials(plan: FullPlan) -> list[Statement]:
    return verdicts(found(short(plan, 0.7)), searched_verdicts(Searched(99, 99, 3, 0, 3, False)))


def time_over(plan: FullPlan) -> list[Statement]:
    return verdicts(found(short(plan, 0.7)), searched_verdicts(Searched(99, 99, 9, 0, 24, False)))


@pytest.mark.parametrize(
    ("ended", "first"),
    [
        (wins, "The random architecture ("),
        (ties, "The winner cannot be told apart from candidate 2"),
        (few_trials, "So few trials (3)"),
        (time_over, "The time ran out: only 9 of 24 trials"),
    ],
)
def test_terminal_report_and_card_say_the_same(
    ended: Callable[[FullPlan], list[Statement]],
    first: str,
    plan: FullPlan,
    lines: list[str],
    tmp_path: Path,
) -> None:
    statements = ended(plan)
    assert statements[1].text.startswith(first)
    results = replace(RESULTS, verdicts=statements)
    log_outcome(Outcome(Workspace(tmp_path), results))
    page = html.unescape(StudyPage(StudyFacts(optuna.create_study()), results).html())
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    write_card(tmp_path, results, origin=Origin("T", None, {}, "C", ()))
    card = (tmp_path / "README.md").read_text()
    printed = [line.removeprefix("result: ").removeprefix("warning: ") for line in lines]
    assert printed[: len(statements)] == [statement.text for statement in statements]
    places = [[text.index(each.text) for each in statements] for text in (page, card)]
    assert places == [sorted(found) for found in places]
    warned = sum(each.tone == BAD for each in statements[1:])
    assert sum(line.startswith("warning: ") for line in lines) == warned
    assert card.count("**Warning:** ") == warned + (statements[0].tone == BAD)
