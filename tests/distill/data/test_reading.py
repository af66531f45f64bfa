import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distill import CorpusFiles, CorpusFrom, DistillError, read_documents
from distill.data import reading
from distill.data.documents import Document
from distill.data.files.rows import Unusable
from distill.data.reading import Tally


def texts(path: Path, files: CorpusFiles | None = None, **options: Any) -> list[str]:
    found = read_documents(str(path), files, CorpusFrom(**options))
    return [document.text for document in found]


def test_text_file_is_split_at_blank_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"one\ntwo\n\n\n  three\r\n\r\nfour\n  \t\nfive\n\n  \n")
    assert [text.strip("\n") for text in texts(path)] == ["one\ntwo", "  three", "four", "five"]


def test_long_paragraph_is_split_at_a_line_end_near_eight_kilobytes(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    line = "ä" * 49 + "\n"
    path.write_text(line * 500, encoding="utf-8")
    pieces = texts(path)
    assert "".join(pieces) == line * 500
    assert len(pieces) > 4
    for piece in pieces[:-1]:
        assert piece.endswith("\n")
        assert 8192 <= len(piece.encode()) < 8192 + len(line.encode())


def test_a_line_without_end_is_cut_at_blanks_or_between_characters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "LINE_BYTES", 64)
    monkeypatch.setattr(reading, "PIECE_BYTES", 100)
    for text in ("word " * 400, "\u6f22\u5b57" * 300, "a" * 997, "a " + "\u00e4" * 300):
        path = tmp_path / "a.txt"
        path.write_text(text, encoding="utf-8")
        pieces = texts(path)
        assert "".join(pieces) == text
        assert len(pieces) > 3
        assert max(len(piece.encode()) for piece in pieces) <= 100 + 64


def test_copies_of_a_text_have_one_name_and_other_texts_another(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("same\n\nother\n\nsame\n\n")
    first, other, copy = read_documents(str(tmp_path / "a.txt"))
    assert first.name == copy.name != other.name


def write_broken_gzip(path: Path) -> None:
    path.write_bytes(gzip.compress(b'{"text": "long enough to be cut"}\n' * 999)[:40])


@pytest.mark.parametrize(
    ("name", "fill", "told"),
    [
        ("a.txt", lambda path: path.write_text("\n \n\n"), "empty"),
        ("a.jsonl", lambda path: path.write_text(""), ""),
        ("blank.jsonl", lambda path: path.write_text('{"text": " "}\n'), "empty"),
        ("b.txt", lambda path: path.write_bytes(b"fine\n\xff\xfe\n"), "UTF-8"),
        ("b.jsonl", lambda path: path.write_bytes(b'{"text": "\xff\xfe"}\n'), ""),
        ("c.jsonl", lambda path: path.write_text('{"body": "x"}\n'), "'text'"),
        ("d.jsonl", lambda path: path.write_text('{"text": null}\n'), "empty"),
        ("e.jsonl", lambda path: path.write_text('{"text": 3}\n'), "'text'"),
        ("f.jsonl", lambda path: path.write_text("no json\n"), "not JSON"),
        ("g.jsonl.gz", write_broken_gzip, "cannot be read"),
        ("h.parquet", lambda path: path.write_bytes(b"PAR1 no parquet"), "cannot be read"),
        ("folder", lambda path: path.mkdir(), "empty"),
        ("missing.txt", lambda path: None, "does not exist"),
    ],
)
def test_what_cannot_be_used_is_called_by_its_name(
    tmp_path: Path, name: str, fill: Callable[[Path], Any], told: str
) -> None:
    fill(tmp_path / name)
    with pytest.raises(DistillError) as problem:
        texts(tmp_path / name)
    assert name in str(problem.value)
    assert told in str(problem.value)


def test_undecodable_file_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "good.txt").write_text("good")
    (tmp_path / "poor.txt").write_bytes(b"caf\xe9 au lait")
    with pytest.raises(DistillError, match="poor.txt.*byte 3"):
        texts(tmp_path)
    assert texts(tmp_path, CorpusFiles(exclude=["poor*"])) == ["good"]


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


GOOD = [{"text": f"row {number}"} for number in range(299)]


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        ({"body": "x"}, "neither a field 'text'"),
        ({"text": ["x"]}, "must be a string"),
        ({"messages": [{"role": "model", "content": "x"}]}, "role 'model'"),
        ("only a string", "no object with fields"),
    ],
)
def test_few_bad_rows_are_left_out_and_many_are_refused(
    tmp_path: Path, bad: Any, told: str
) -> None:
    path = write(tmp_path / "a.jsonl", *GOOD[:57], bad, *GOOD[57:])
    assert texts(path) == [row["text"] for row in GOOD]
    with pytest.raises(DistillError, match=f"1 of 300 rows .*0.3%.*line 58 of a.jsonl: .*{told}"):
        texts(path, max_bad_share=0.0)
    path = write(tmp_path / "b.jsonl", *GOOD[:96], *[bad] * 4)
    with pytest.raises(DistillError, match=r"4 of 100 rows .*4.0%.* above .*max_bad_share 0.01: "):
        texts(path)
    assert len(texts(path, max_bad_share=0.04)) == 96


def test_a_mostly_bad_corpus_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", *[{"body": "x"}] * 200)
    with path.open("ab") as file:
        file.write(b"[" * 10**7)
    with pytest.raises(DistillError, match=r"200 of 200 rows .*100.0%"):
        texts(path)


def test_the_tally_says_the_first_three_reasons() -> None:
    tally = Tally(0.5)
    for item in [Document("", "x")] * 7 + [None] * 2:
        tally.count(item)
    assert tally.lines() == ["2 of 9 rows or files without text left out"]
    for number in range(5):
        tally.count(Unusable(f"line {number}", "why"))
    reasons = "line 0: why; line 1: why; line 2: why; and 2 more"
    assert tally.lines()[1] == f"5 rows of 14 could not be used and left out: {reasons}"
    assert Tally(**tally.state()).lines() == tally.lines()


@pytest.mark.parametrize("data", ["text".encode("utf-16-le"), b"SQLite format 3\0rest"])
def test_what_is_not_text_is_refused(tmp_path: Path, data: bytes) -> None:
    for path in (tmp_path / "a.txt", tmp_path / "folder" / "a.txt"):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        with pytest.raises(DistillError, match=r"a.txt is not text \(byte \d+ is 0\)"):
            texts(path if path.parent == tmp_path else path.parent)


def test_a_mark_of_the_byte_order_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfThe text")
    assert texts(tmp_path / "a.txt") == texts(tmp_path) == ["The text"]


@pytest.mark.parametrize("suffix", ["zst", "xz", "gz", "bz2"])
def test_texts_that_are_not_compressed_as_they_say(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"a.txt.{suffix}").write_text("plain")
    for given in (tmp_path / f"a.txt.{suffix}", tmp_path):
        with pytest.raises(DistillError, match="cannot be read"):
            texts(given)
