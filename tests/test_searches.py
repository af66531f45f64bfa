"""Searches for more than the closest student of one size: families, trade-offs, little time.

What happens to the studies is told in tests/stories.py.
"""

import json
import re
from typing import Any

import pytest
from transformers import AutoModelForCausalLM

from pruning import Architecture
from tests.driver import Driver, progress_within
from tests.surface import files_of, require_recorded

pytestmark = pytest.mark.process


def results_of(driver: Driver, member: str = "") -> dict[str, Any]:
    folder = driver.workspace / "family" / member if member else driver.workspace
    found: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return found


def test_a_family_has_a_stock_checkpoint_in_every_band(family: Driver) -> None:
    found = json.loads((family.workspace / "family.json").read_text())
    assert [member["name"] for member in found["members"]] == ["0.75", "0.4"]
    for member in found["members"]:
        best = family.workspace / "family" / member["name"] / "best"
        count = AutoModelForCausalLM.from_pretrained(best).num_parameters()
        largest = int(float(member["name"]) * 3_344_832)
        assert 0.8 * largest <= count <= largest
        assert member["parameters"] == count
    larger, smaller = found["members"]
    assert larger["kl"]["mean"] < smaller["kl"]["mean"]
    assert larger["cut_from"] == "teacher"


def test_a_familys_costs_add_up(family: Driver) -> None:
    found = json.loads((family.workspace / "family.json").read_text())
    for name in ("tokens", "flops", "teacher_flops"):
        parts = [results_of(family, m)["ledger"]["total"][name] for m in ("0.75", "0.4")]
        assert abs(sum(parts) - found["total"][name]) <= 1e-9 * found["total"][name]
    assert " tokens for all 2 members" in family.output(0)


def test_a_stopped_family_went_on_without_losing_a_trial(family: Driver) -> None:
    by_member: dict[str, list[str]] = {"0.75": [], "0.4": []}
    for trial in family.finished_trials():
        by_member[trial.user_attrs["member"]].append(str(trial.user_attrs["architecture"]))
    assert all(len(shapes) == len(set(shapes)) == 2 for shapes in by_member.values())
    assert family.states()["RUNNING"] == family.states()["WAITING"] == 0
    (stopped,) = (
        t for t in family.trials() if "driver was stopped" in t.user_attrs.get("error", "")
    )
    (again,) = (t for t in family.trials() if t.user_attrs.get("continues") == stopped.number)
    assert progress_within(again).resumed_tokens > 0


def test_a_smaller_member_is_also_cut_from_the_larger(family: Driver) -> None:
    said = family.output()
    smaller = results_of(family, "0.4")["winners"][0]
    if "staged: selection KL" in said:
        kept = "the first is kept" in said
        assert smaller["cut_from"] == ("0.75" if kept else "teacher")
    else:
        assert "is not inside a larger member" in said


def test_a_longer_run_from_random_weights_says_what_it_needs(family: Driver) -> None:
    for member in ("0.75", "0.4"):
        found = results_of(family, member)
        assert found["baselines"]["random initialisation"]["tokens"] == 8192
        assert found["scratch"]["measured_tokens"] == 8192
        assert found["scratch"]["tokens_ratio"] <= 2


def test_a_front_is_not_dominated_and_the_knee_is_on_it(traded: Driver) -> None:
    found = results_of(traded)["front"]
    assert found["objectives"] == ["kl", "flops"]
    points = [(p["values"]["kl"], p["values"]["flops"]) for p in found["front"]]
    for one in points:
        assert not any(a <= one[0] and b <= one[1] and (a, b) != one for a, b in points)
    assert found["knee"] in found["front"]
    assert found["hypervolume"] == sorted(found["hypervolume"])
    complete = [t for t in traded.finished_trials() if t.state.name == "COMPLETE"]
    assert len(found["hypervolume"]) == len(complete)
    knee = Architecture.from_dict(found["knee"]["architecture"])
    assert Architecture.from_dict(results_of(traded)["winners"][0]["architecture"]) == knee
    assert "Trade-off of KL and flops" in (traded.workspace / "report.html").read_text()


def test_what_was_stopped_has_no_objectives_and_what_was_not_has_both(traded: Driver) -> None:
    for trial in traded.finished_trials():
        if trial.state.name == "COMPLETE":
            assert len(trial.values) == 2
        else:
            assert trial.values is None
    assert len(traded.finished_trials()) == 4


def test_only_survivors_of_the_zero_shot_scores_are_proposed(traded: Driver) -> None:
    (path,) = traded.workspace.glob("zero-shot-*.jsonl")
    scores = [json.loads(line)["kl"] for line in path.read_text().splitlines()]
    assert len(scores) == 12
    worst = sorted(scores)[-3:]
    for trial in traded.finished_trials():
        if not trial.user_attrs.get("anchor"):
            assert trial.user_attrs.get("zero_shot", 0.0) not in worst
    ledger = results_of(traded)["ledger"]
    assert ledger["zero-shot"]["evaluation_flops"] > 0 == ledger["zero-shot"]["student_flops"]


def test_little_time_still_gives_a_winner(hurried: Driver) -> None:
    said, finished = hurried.output(-2), len(hurried.finished_trials())
    assert "the winners are chosen from these" in said
    assert 1 <= finished < 6
    assert f"only {finished} of 100 trials fitted into" in said and "So few trials" in said


def test_what_there_is_no_time_for_is_said_and_done_by_the_same_command(hurried: Driver) -> None:
    said = hurried.output(-2)
    (left_out,) = re.findall("what there is time for; left out: (.*); the same command", said)
    assert "the baselines" in left_out
    assert said.splitlines()[-1].endswith(left_out), "the last line says what to do next"
    full = results_of(hurried)["ledger"]["full distillation"]["tokens"]
    assert "(evidence none)" not in hurried.output() and full > 2048
    assert "The time ran out before the last stage was run as it was asked for" in said


def test_what_did_not_win_is_compared_by_short_runs(hurried: Driver) -> None:
    results = results_of(hurried)
    short, full = results["short"], results["ledger"]["full distillation"]["tokens"]
    assert short["tokens"] == 2048
    assert full <= 2 * 4096
    baselines = {*short["differences"], *results["baselines"]}
    assert baselines >= {"random architecture", "random initialisation"}
    assert short["differences"]["random initialisation"]["high"] < 0
    assert any("Not known: how " in each["text"] for each in results["verdicts"])
    assert "Short runs against baselines" in (hurried.workspace / "report.html").read_text()
    assert hurried.states()["RUNNING"] == 0


def test_workspaces_have_the_files_that_they_had(family: Driver, traded: Driver) -> None:
    found = files_of(family.workspace, 1)
    # a second winner is there where the two cannot be told apart
    require_recorded("family", (name for name in found if "/winners/" not in name))
    require_recorded("traded", files_of(traded.workspace, 1))
