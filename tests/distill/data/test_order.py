import numpy as np
import pytest

from distill.data.order import SlotSequence, slot_blocks


def test_slots_hold_every_block_once() -> None:
    order = slot_blocks(50, 3)
    assert sorted(order) == list(range(50))
    assert np.array_equal(order, slot_blocks(50, 3))
    assert not np.array_equal(order, slot_blocks(50, 4))


def test_every_run_reads_the_same_prefix() -> None:
    longest = SlotSequence(170, 50, seed=3, shuffle=0)[:]
    assert len(longest) == 170
    assert np.array_equal(longest[:50], np.arange(50))
    for count in (1, 20, 50, 51, 99, 150):
        assert np.array_equal(SlotSequence(count, 50, seed=3, shuffle=0)[:], longest[:count])


@pytest.mark.parametrize("count", [20, 50, 70, 125])
def test_replicates_read_the_same_slots_in_another_order(count: int) -> None:
    first = SlotSequence(count, 50, seed=3, shuffle=0)[:]
    orders = [SlotSequence(count, 50, seed=3, shuffle=shuffle)[:] for shuffle in (1, 2)]
    for order in orders:
        assert sorted(order) == sorted(first)
        assert not np.array_equal(order, first)
    assert not np.array_equal(orders[0], orders[1])
    assert np.array_equal(orders[0], SlotSequence(count, 50, seed=3, shuffle=1)[:])


@pytest.mark.parametrize("shuffle", [0, 1])
def test_every_pass_reads_every_block_in_an_order_of_its_own(shuffle: int) -> None:
    order = SlotSequence(150, 50, seed=3, shuffle=shuffle)[:].reshape(3, 50)
    for passed in order:
        assert sorted(passed) == list(range(50))
    assert not np.array_equal(order[1], order[2])
    assert not np.array_equal(order[0], order[1])


@pytest.mark.parametrize("shuffle", [0, 1])
def test_any_part_is_read_without_the_rest(shuffle: int) -> None:
    whole = SlotSequence(170, 50, seed=3, shuffle=shuffle)[:]
    for start, stop in [(0, 7), (48, 52), (95, 160), (160, 170), (165, 300), (170, 180), (9, 9)]:
        part = SlotSequence(170, 50, seed=3, shuffle=shuffle)[start:stop]
        assert np.array_equal(part, whole[start:stop])
    endless = SlotSequence(10**18, 50, seed=3, shuffle=shuffle)
    far = endless[10**17 : 10**17 + 50]
    assert sorted(far) == list(range(50))
