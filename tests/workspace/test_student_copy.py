"""Copies beside a student: written once, again where the student is new, or not, with a line."""

import logging
import os
from pathlib import Path

import pytest

from pruning import Architecture, Checkpoint, write_student
from tests.pruning.models import build_teacher
from workspace.models import copy_folder, write_copies


def student(variant: str, text: str, folder: Path) -> Path:
    build_teacher(variant).save_pretrained(folder / "teacher")
    teacher = Checkpoint(folder / "teacher")
    shape = Architecture.parse(f"L3 H{teacher.config.hidden_size} {text}")
    write_student(teacher, shape, range(3), folder / "best")
    return folder / "best"


def no_card(directory: Path, form: str) -> None:
    (directory / "README.md").write_text(form)


def test_a_copy_is_written_once_and_again_where_the_student_is_new(tmp_path: Path) -> None:
    best = student("mistral-gqa-tied", "A[- 9/3 -] F[40 - 17]", tmp_path)
    write_copies(best, ["padded"], no_card)
    copy = copy_folder(best, "padded")
    assert copy == tmp_path / "best-padded"
    assert (copy / "README.md").read_text() == "padded"
    first = (copy / "config.json").stat()
    write_copies(best, ["padded"], no_card)
    assert (copy / "config.json").stat().st_ino == first.st_ino
    os.utime(best / "config.json", (first.st_mtime + 9, first.st_mtime + 9))
    write_copies(best, ["padded"], no_card)
    assert (copy / "config.json").stat().st_ino != first.st_ino


@pytest.mark.parametrize(
    ("variant", "text", "said"),
    [
        ("llama-mha", "A6/6 F40", "its layers are all alike, so that any software takes it"),
        ("olmo2", "A[9/3 6/2 -] F40", "no padded copy of "),
        ("mixtral", "A[9/3*2 -] E[5x40 4x40 5x40]", "no padded copy of "),
    ],
)
def test_where_there_is_none_a_line_says_why(
    variant: str, text: str, said: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    best = student(variant, text, tmp_path)
    with caplog.at_level(logging.INFO):
        write_copies(best, ["padded"], no_card)
        write_copies(best, [], no_card)
    assert [said in record.message for record in caplog.records] == [True]
    assert not copy_folder(best, "padded").exists()
