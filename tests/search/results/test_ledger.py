"""The books balance."""

from dataclasses import replace

import pytest

from common.errors import SearchError
from pruning import Architecture
from search.results.ledger import (
    FULL,
    HEADER,
    PREPARATION,
    TEST,
    TOTAL,
    TRIALS,
    ZERO_SHOT,
    Cost,
    Ledger,
    LedgerEntry,
    RunCosts,
    table_rows,
    winner_ledger,
)

TEACHER = Architecture(layers=10, hidden=8, heads=2, kv_heads=1, ffn=16)
STUDENT = replace(TEACHER, layers=4)


def forward_flops(architecture: Architecture) -> float:
    return 100.0 * architecture.layers


COSTS = RunCosts(forward_flops, TEACHER)


def study() -> Ledger:
    later = COSTS.student(STUDENT, trained=30, evaluated=10, taught=40, seconds=4)
    return Ledger(
        (
            LedgerEntry(TRIALS, COSTS.student(STUDENT, trained=50, seconds=3)),
            LedgerEntry(PREPARATION, COSTS.of_teacher(read=80, trained=20)),
            LedgerEntry(ZERO_SHOT, COSTS.student(STUDENT, evaluated=10, seconds=1)),
            LedgerEntry(TRIALS, later),
        )
    )


def test_each_entry_by_hand() -> None:
    first, teacher, zero_shot, second = (entry.cost for entry in study().entries)
    assert first == Cost(50, student_flops=3 * 400 * 50, seconds=3)
    assert teacher == Cost(100, teacher_flops=1000 * (80 + 3 * 20))
    assert zero_shot == Cost(10, evaluation_flops=400 * 10, seconds=1)
    assert second == Cost(30, 3 * 400 * 30, 1000 * 40, 400 * 10, 4)
    assert second.flops == 36_000 + 40_000 + 4_000


def test_stages_and_totals() -> None:
    ledger = study()
    assert list(ledger.by_stage()) == [PREPARATION, ZERO_SHOT, TRIALS]
    assert ledger.by_stage()[TRIALS] == Cost(80, 96_000, 40_000, 4_000, 7)
    assert ledger.total.flops == 140_000 + 4_000 + 140_000
    assert ledger.total.seconds == 8
    costs = ledger.costs()
    for name in ("tokens", "student_flops", "flops", "seconds"):
        stages = [getattr(cost, name) for stage, cost in costs.items() if stage != TOTAL]
        assert getattr(costs[TOTAL], name) == sum(stages) == getattr(ledger.total, name)
    assert Ledger().costs() == {TOTAL: Cost()}


def test_rows_fit_the_header_and_end_with_the_total() -> None:
    rows = table_rows(study().costs())
    assert [row[0] for row in rows] == [PREPARATION, ZERO_SHOT, TRIALS, TOTAL]
    assert all(len(row) == len(HEADER) for row in rows)
    assert rows[2] == [TRIALS, "80", "9.6e+04", "4e+04", "4e+03", "1.4e+05", "7"]


def test_the_winners_together_owe_what_the_study_cost() -> None:
    own = [
        Ledger((LedgerEntry(FULL, COSTS.student(STUDENT, trained=tokens)),))
        for tokens in (100, 200, 300)
    ]
    owed = [winner_ledger(study(), ledger, winners=len(own)) for ledger in own]
    whole = sum(own, study()).total
    for name in ("tokens", "flops", "seconds"):
        parts = [getattr(ledger.total, name) for ledger in owed]
        assert sum(parts) == pytest.approx(getattr(whole, name))
    assert owed[0].only(FULL).total.tokens == 100


def test_only_the_search_is_shared() -> None:
    everything = sum(
        (Ledger((LedgerEntry(stage, Cost(6)),)) for stage in (TRIALS, FULL, TEST)), Ledger()
    )
    assert winner_ledger(everything, Ledger(), winners=3).total.tokens == 2


def test_wrong_entries_are_named() -> None:
    with pytest.raises(SearchError, match="'training' is not a stage"):
        LedgerEntry("training", Cost())
    with pytest.raises(SearchError, match="seconds is -1"):
        Cost(seconds=-1)
    with pytest.raises(SearchError, match="teacher_flops is nan"):
        Cost(teacher_flops=float("nan"))
    with pytest.raises(SearchError, match="at least 1"):
        study().shared(0)
