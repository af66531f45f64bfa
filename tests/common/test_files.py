"""Files and directories that are written whole or not at all."""

from pathlib import Path

import pytest

from common.files import (
    append_rows,
    free_bytes,
    fresh_directory,
    read_rows,
    require_space,
    write_directory_atomically,
    write_file_atomically,
)


def test_failed_writing_leaves_what_was_there(tmp_path: Path) -> None:
    def fill(directory: Path) -> None:
        (directory / "file").write_text("old")

    def fail(directory: Path) -> None:
        (directory / "file").write_text("half")
        raise OSError("disk full")

    write_directory_atomically(tmp_path / "deep" / "d", fill)
    with pytest.raises(OSError, match="disk full"):
        write_directory_atomically(tmp_path / "deep" / "d", fail)
    assert (tmp_path / "deep" / "d" / "file").read_text() == "old"
    assert [file.name for file in (tmp_path / "deep").iterdir()] == ["d"]


def test_file_is_replaced_in_one_go(tmp_path: Path) -> None:
    write_file_atomically(tmp_path / "f", "one")
    write_file_atomically(tmp_path / "f", "zwei ü")
    assert (tmp_path / "f").read_text(encoding="utf-8") == "zwei ü"
    assert [file.name for file in tmp_path.iterdir()] == ["f"]


def test_a_row_that_a_kill_cut_off_takes_no_other_with_it(tmp_path: Path) -> None:
    assert read_rows(tmp_path / "rows") == []
    append_rows(tmp_path / "rows", [{"kl": 1.5, "name": "ü"}, {"kl": float("inf")}])
    with (tmp_path / "rows").open("a") as file:
        file.write('{"kl": 2')
    append_rows(tmp_path / "rows", [{"kl": 3}])
    assert read_rows(tmp_path / "rows") == [
        {"kl": 1.5, "name": "ü"},
        {"kl": float("inf")},
        {"kl": 3},
    ]


class Refused(Exception):
    pass


def test_a_fresh_directory_appears_whole_or_leaves_nothing(tmp_path: Path) -> None:
    with fresh_directory(tmp_path / "a" / "b", error=Refused) as aside:
        (aside / "file").write_text("whole")
        assert not (tmp_path / "a" / "b").exists()
    assert (tmp_path / "a" / "b" / "file").read_text() == "whole"
    with (
        pytest.raises(Refused, match="exists and is not empty"),
        fresh_directory(tmp_path / "a" / "b", error=Refused),
    ):
        pass
    with pytest.raises(ZeroDivisionError), fresh_directory(tmp_path / "c" / "d", error=Refused):
        _ = 1 / 0
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_disk_without_room_is_named(tmp_path: Path) -> None:
    target = tmp_path / "not" / "yet"
    require_space(target, 0, error=Refused)
    with pytest.raises(Refused, match="needs .* GB of disk"):
        require_space(target, 2 * free_bytes(tmp_path) + 1, error=Refused)
