"""The books balance, and comparisons with scratch say what was measured."""

import json
from dataclasses import replace

import pytest

from pruning import Architecture
from search.errors import SearchError
from search.ledger import (
    FULL,
    HEADER,
    PREPARATION,
    TEST,
    TRIALS,
    ZERO_SHOT,
    Entry,
    Ledger,
    against_scratch,
    family_ratio,
    student_entry,
    table_rows,
    teacher_entry,
    tokens_to_reach,
    winner_ledger,
)

TEACHER = Architecture(layers=10, hidden=8, heads=2, kv_heads=1, ffn=16)
STUDENT = replace(TEACHER, layers=4)


def forward_flops(architecture: Architecture) -> float:
    return 100.0 * architecture.layers


def study() -> Ledger:
    return Ledger(
        (
            student_entry(TRIALS, STUDENT, forward_flops, trained_tokens=50, seconds=3),
            teacher_entry(PREPARATION, TEACHER, forward_flops, read_tokens=80, trained_tokens=20),
            student_entry(ZERO_SHOT, STUDENT, forward_flops, evaluated_tokens=10, seconds=1),
            student_entry(
                TRIALS,
                STUDENT,
                forward_flops,
                trained_tokens=30,
                evaluated_tokens=10,
                taught_tokens=40,
                teacher=TEACHER,
                seconds=4,
            ),
        )
    )


def test_each_entry_by_hand() -> None:
    first, teacher, zero_shot, second = study().entries
    assert first == Entry(TRIALS, 50, student_flops=3 * 400 * 50, seconds=3)
    assert teacher == Entry(PREPARATION, 100, teacher_flops=1000 * (80 + 3 * 20))
    assert zero_shot == Entry(ZERO_SHOT, 10, evaluation_flops=400 * 10, seconds=1)
    assert second == Entry(TRIALS, 30, 3 * 400 * 30, 1000 * 40, 400 * 10, 4)
    assert second.flops == 36_000 + 40_000 + 4_000


def test_stages_and_totals() -> None:
    ledger = study()
    assert [entry.stage for entry in ledger.by_stage()] == [PREPARATION, ZERO_SHOT, TRIALS]
    assert ledger.by_stage()[-1] == Entry(TRIALS, 80, 96_000, 40_000, 4_000, 7)
    assert ledger.total("flops") == 140_000 + 4_000 + 140_000
    assert ledger.total("seconds") == 8
    books = json.loads(json.dumps(ledger.to_dict()))
    for name in ("tokens", "student_flops", "flops", "seconds"):
        stages = [amounts[name] for stage, amounts in books.items() if stage != "total"]
        assert books["total"][name] == sum(stages) == ledger.total(name)
    assert Ledger().to_dict()["total"]["flops"] == 0


def test_rows_fit_the_header_and_end_with_the_total() -> None:
    rows = table_rows(json.loads(json.dumps(study().to_dict())))
    assert [row[0] for row in rows] == [PREPARATION, ZERO_SHOT, TRIALS, "total"]
    assert all(len(row) == len(HEADER) for row in rows)
    assert rows[2] == [TRIALS, "80", "9.6e+04", "4e+04", "4e+03", "1.4e+05", "7"]


def test_the_winners_together_owe_what_the_study_cost() -> None:
    own = [
        Ledger((student_entry(FULL, STUDENT, forward_flops, trained_tokens=tokens),))
        for tokens in (100, 200, 300)
    ]
    owed = [winner_ledger(study(), ledger, len(own)) for ledger in own]
    whole = sum(own, study())
    for name in ("tokens", "flops", "seconds"):
        assert sum(ledger.total(name) for ledger in owed) == pytest.approx(whole.total(name))
    assert owed[0].only(FULL).total("tokens") == 100


def test_only_the_search_is_shared() -> None:
    everything = sum(
        (Ledger((Entry(stage, tokens=6),)) for stage in (TRIALS, FULL, TEST)), Ledger()
    )
    assert winner_ledger(everything, Ledger(), 3).total("tokens") == 2


def test_wrong_entries_are_named() -> None:
    with pytest.raises(SearchError, match="'training' is not a stage"):
        Entry("training")
    with pytest.raises(SearchError, match="seconds is -1"):
        Entry(TRIALS, seconds=-1)
    with pytest.raises(SearchError, match="teacher_flops is nan"):
        Entry(TRIALS, teacher_flops=float("nan"))
    with pytest.raises(SearchError, match="which architecture"):
        student_entry(TRIALS, STUDENT, forward_flops, taught_tokens=1)
    with pytest.raises(SearchError, match="at least 1"):
        study().shared(0)


CURVE = [(100, 4.0), (400, 2.0), (1600, 1.0), (6400, 1.2)]


def test_tokens_are_interpolated_in_their_logarithm() -> None:
    assert tokens_to_reach(CURVE, 3.0) == pytest.approx(200)  # half way from 100 to 400
    assert tokens_to_reach(CURVE, 1.25) == pytest.approx(400 * 4**0.75)
    assert tokens_to_reach(CURVE, 2.0) == 400
    assert tokens_to_reach(CURVE, 1.0) == 1600
    assert tokens_to_reach(CURVE, 0.99) is None
    assert tokens_to_reach(CURVE, 5.0) == 100
    assert tokens_to_reach([(0, 8.0), (100, 4.0)], 5.0) == pytest.approx(75)


def test_a_lower_loss_never_takes_fewer_tokens() -> None:
    found = [tokens_to_reach(CURVE, 4.0 - 0.1 * step) for step in range(31)]
    values = [tokens for tokens in found if tokens is not None]
    assert len(values) == 31
    assert values == sorted(values)


def test_the_first_crossing_counts_and_a_curve_has_an_order() -> None:
    assert tokens_to_reach([(1, 3.0), (2, 1.0), (4, 3.0), (8, 1.0)], 1.0) == 2
    with pytest.raises(SearchError, match="order of its tokens"):
        tokens_to_reach([(2, 1.0), (1, 2.0)], 0.5)
    with pytest.raises(SearchError, match="without points"):
        tokens_to_reach([], 0.5)


def test_scratch_that_gets_there_is_measured() -> None:
    found = against_scratch(3.0, 50, 60_000, CURVE, 1200)
    assert (found.scratch_tokens, found.tokens_ratio) == pytest.approx((200, 4.0))
    assert found.flops_ratio == pytest.approx(200 * 1200 / 60_000)
    assert str(found) == (
        "from scratch the same loss takes 4.0 times the tokens (measured) and 4.0 times the "
        "compute, search and teacher included"
    )
    dearer = against_scratch(3.0, 50, 600_000, CURVE, 1200)
    assert dearer.tokens_ratio == found.tokens_ratio
    assert dearer.flops_ratio == pytest.approx(found.flops_ratio / 10)


def test_scratch_that_does_not_get_there_is_a_bound_rounded_down() -> None:
    found = against_scratch(0.5, 641, 60_000, CURVE, 1200)
    assert found.scratch_tokens is None
    assert found.tokens_ratio == pytest.approx(6400 / 641)
    assert "more than 9.9 times the tokens (it had not reached it after 6,400)" in str(found)
    assert "more than 128 times the compute" in str(found)
    assert found.to_dict()["reached"] is False
    short = against_scratch(0.5, 6400, 60_000, CURVE, 1200)
    assert "it is not known" in str(short)
    assert "more than 1" not in str(short)


def test_a_curve_that_begins_below_is_an_upper_bound() -> None:
    found = against_scratch(4.5, 50, 60_000, CURVE, 1200)
    assert found.earliest
    assert "takes at most 2.0 times the tokens" in str(found)
    assert json.loads(json.dumps(found.to_dict()))["text"] == str(found)


def test_a_student_that_cost_nothing_is_a_mistake() -> None:
    with pytest.raises(SearchError, match="above 0"):
        against_scratch(3.0, 0, 60_000, CURVE, 1200)


def test_the_family_of_minitron() -> None:
    free = family_ratio(
        [4.4, 2.5, 1.2], [40, 40], teacher_flops=0, evaluation_flops=0, search_flops=0
    )
    assert free.training_only == pytest.approx(1.803, abs=1e-3)
    assert free.complete == free.training_only
    paid = family_ratio(
        [4.4, 2.5, 1.2], [40, 40], teacher_flops=0.1, evaluation_flops=0.02, search_flops=0.5
    )
    assert paid.training_only == free.training_only
    assert paid.complete == pytest.approx(8.1 / (4.4925 + 0.62))
    assert paid.to_dict()["complete"] < paid.to_dict()["training_only"]


def test_each_member_has_its_own_ratio() -> None:
    found = family_ratio([8, 4, 2], [4, 2], teacher_flops=0, evaluation_flops=0, search_flops=0)
    assert found.training_only == 14 / 10
    for sizes, ratios in (([8], []), ([8, 4], [4, 2])):
        with pytest.raises(SearchError, match="each member after the largest"):
            family_ratio(sizes, ratios, teacher_flops=0, evaluation_flops=0, search_flops=0)
    with pytest.raises(SearchError, match="above 0"):
        family_ratio([8, 4], [0], teacher_flops=0, evaluation_flops=0, search_flops=0)
    with pytest.raises(SearchError, match="below 0"):
        family_ratio([8, 4], [2], teacher_flops=-1, evaluation_flops=0, search_flops=0)
