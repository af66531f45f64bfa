"""Made-up results of a finished study, with names that need escaping."""

from dataclasses import replace

from common.intervals import Interval
from distill.recipes.reports import CurvePoint
from pruning import Architecture, Verdict
from search.results.ledger import TOTAL, TRIALS, Cost
from search.results.results import (
    Asked,
    Results,
    ScoreIntervals,
    Scores,
    Searched,
    ServingCosts,
    ShortRuns,
    StudentResult,
    TaskResults,
    TeacherResult,
    TeacherScores,
    TrainingResult,
)
from search.results.statements import BAD, NOTE, Statement

NASTY = "a<b>&\"'</script><script>alert(1)</script>$title|{{ title }}"
SHAPE = Architecture(3, 32, 4, 2, 48)
COST = Cost(2000, 1e9, 2e9, 3e9, 60.0)
ASKED = Asked(
    fingerprint={"seeds": 3},
    study="study",
    finished_trials=4,
    winners=3,
    evidence="full",
    seeds=3,
    full_tokens=100,
    scratch_tokens=None,
    ties=0,
    finalist_seeds=1,
    tasks="None",
    task_questions=200,
)


def interval(mean: float, seeds: int = 1) -> Interval:
    return Interval(mean, mean - 0.1, mean + 0.1, seeds)


STUDENT = StudentResult(
    role="candidate",
    architecture=SHAPE,
    parameters=1234,
    tokens=4000,
    cut_from="teacher",
    selection_kl=0.5,
    curve=[CurvePoint(4000, 0.5, 0.5, 0.5, 0.5)],
    checkpoint=Scores(0.5, 0.5, 0.5),
    test=ScoreIntervals(*[interval(0.5, seeds=3)] * 3),
)
RESULTS = Results(
    asked=ASKED,
    exhausted=False,
    member=None,
    teacher=TeacherResult(NASTY, SHAPE, 5678, TeacherScores(interval(0.4))),
    budget="2,000 parameters",
    winners=[STUDENT, replace(STUDENT, test=ScoreIntervals(*[interval(0.5)] * 3))],
    baselines={"uniform shrink": STUDENT, "random initialisation": STUDENT},
    differences={},
    short=ShortRuns(
        tokens=100,
        selection_kl={"winner": interval(0.6), NASTY: interval(0.7)},
        differences={NASTY: interval(-0.1)},
    ),
    searched=Searched(500, 500, 24, 11, 24, False),
    sorted_teacher="sorted",
    correction=None,
    ledger={TRIALS: COST, TOTAL: COST},
    winner_ledgers=[{TOTAL: COST}] * 2,
    training_share=0.9,
    scratch=None,
    chances={NASTY: 0.75},
    fidelity=[],
    fidelity_rows=[],
    fidelity_warnings=[],
    front=None,
    costs=[ServingCosts(1234, 1000, 1234, 2468, 2468)] * 2,
    engines=[Verdict("mlx", "mlx-lm 1", False, NASTY)],
    tasks=TaskResults(winner={NASTY: {"acc": 0.5}}, teacher={NASTY: {"acc": 0.75}}),
    training=TrainingResult(2, 64, "fp32", "forward-kl"),
    verdicts=[
        Statement(BAD, f"The winner is worse than {NASTY}."),
        Statement(NOTE, "Few trials."),
    ],
)
