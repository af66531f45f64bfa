"""What differs between two sets of settings, also where one version knows more of them."""

from typing import Any

import pytest

from common.fingerprint import differences


@pytest.mark.parametrize(
    ("recorded", "now", "names"),
    [
        ({"limits": {"flops": 1}}, {"limits": {"flops": 1, "joules": None}}, []),
        ({"limits": {"flops": 1}}, {"limits": {"flops": 1, "joules": 2.0}}, ["limits"]),
        ({"limits": {"flops": 1, "gone": 3}}, {"limits": {"flops": 1}}, ["limits"]),
        ({"limits": {"flops": {"a": 1}}}, {"limits": {"flops": {"a": 1, "b": None}}}, []),
        ({"seed": 1}, {"seed": 2, "device": "cpu"}, ["device", "seed"]),
        ({"limits": None}, {"limits": {"flops": None}}, ["limits"]),
    ],
)
def test_a_setting_that_an_earlier_version_did_not_know_was_none(
    recorded: dict[str, Any], now: dict[str, Any], names: list[str]
) -> None:
    assert [line.partition(" ")[0] for line in differences(recorded, now)] == names
