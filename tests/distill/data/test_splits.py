import pytest

from distill.data.splits import HELD_OUT_SHARE, is_held_out, split_of

NAMES = [f"folder/file_{i}.py" for i in range(4000)]


@pytest.mark.parametrize("shares", [(0.05, 0.05), (0.01, 0.05), (0.05, 0.02), (0.2, 0.9)])
def test_what_is_held_out_by_any_share_is_held_out_for_the_teacher(
    shares: tuple[float, float],
) -> None:
    for name in NAMES:
        if split_of(name, *shares) != "train":
            assert is_held_out(name)


def test_shares_are_kept() -> None:
    splits = [split_of(name, 0.05, 0.03) for name in NAMES]
    assert splits.count("selection") / len(NAMES) == pytest.approx(0.05, abs=0.012)
    assert splits.count("test") / len(NAMES) == pytest.approx(0.03, abs=0.01)
    held_out = sum(map(is_held_out, NAMES)) / len(NAMES)
    assert held_out == pytest.approx(HELD_OUT_SHARE, abs=0.015)


def test_another_share_moves_no_document_between_the_held_out_splits() -> None:
    for name in NAMES:
        wide, narrow = split_of(name, 0.05, 0.05), split_of(name, 0.02, 0.01)
        assert narrow in (wide, "train")


def test_a_name_has_one_split_on_every_machine() -> None:
    assert [name for name in NAMES[:100] if is_held_out(name)] == [
        name for name in NAMES[:100] if split_of(name, 0.05, 0.05) != "train"
    ]
    assert is_held_out("argparse.py") is False
    assert split_of("\udcff broken name", 0.05, 0.05) in ("train", "selection", "test")
