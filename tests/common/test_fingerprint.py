"""What differs between two sets of settings, also where one version knows more of them."""

from typing import Any

import pytest

from common.fingerprint import differences


@pytest.mark.parametrize(
    ("recorded", "now", "names"),
    [
        ({"limits": {"flops": 1}}, {"limits": {"flops": 1, "joules": None}}, []),
        ({"limits": {"flops": 1}}, {"limits": {"flops": 1, "joules": 2.0}}, ["limits.joules"]),
        ({"limits": {"flops": 1, "gone": 3}}, {"limits": {"flops": 1}}, ["limits.gone"]),
        ({"limits": {"flops": {"a": 1}}}, {"limits": {"flops": {"a": 1, "b": None}}}, []),
        ({"seed": 1}, {"seed": 2, "device": "cpu"}, ["device", "seed"]),
        ({"limits": None}, {"limits": {"flops": None}}, ["limits"]),
    ],
)
def test_a_setting_that_an_earlier_version_did_not_know_was_none(
    recorded: dict[str, Any], now: dict[str, Any], names: list[str]
) -> None:
    assert [line.partition(" ")[0] for line in differences(recorded, now)] == names


def test_of_a_group_what_differs_is_named_and_not_all_of_it() -> None:
    group = {"tokens": 5, "batch": 2, "cuts": {"least": 1, "most": 3}}
    other = {**group, "tokens": 6, "cuts": {"least": 1, "most": None}}
    assert differences({"blocks": group}, {"blocks": other}) == [
        "blocks.cuts.most (was 3, is not given)",
        "blocks.tokens (was 5, is 6)",
    ]
    assert differences({}, {"blocks": group}) == ["blocks (was not given, is given)"]
