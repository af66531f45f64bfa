import bz2
import csv
import gzip
import io
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from distill import DistillError
from distill.data.files.formats import CorpusFile, Reading
from distill.data.files.rows import Row, Unusable, rows_of

ROWS = [{"text": f'Row {number}, with "quotes"\nand a second line, ä'} for number in range(50)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def read(path: Path, data: bytes | None = None) -> list[Row | Unusable]:
    if data is not None:
        path.write_bytes(data)
    return list(rows_of(CorpusFile(str(path), path.name, path.stat().st_size), Reading()))


def values(path: Path, data: bytes | None = None) -> list[Any]:
    found = read(path, data)
    assert all(isinstance(row, Row) for row in found)
    return [row.value for row in found if isinstance(row, Row)]


def separated(delimiter: str, names: str = "text") -> bytes:
    file = io.StringIO()
    writer = csv.writer(file, delimiter=delimiter)
    writer.writerow(names.split())
    for number, row in enumerate(ROWS):
        writer.writerow([row["text"], number][: len(names.split())])
    return file.getvalue().encode()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.jsonl", LINES),
        ("A.JSONL", LINES),
        ("a.NDJson", b"\xef\xbb\xbf" + LINES.replace(b"\n", b"\n\n")),
        ("lines.json", LINES),
        ("one-line.json", json.dumps(ROWS).encode()),
        ("list.json", json.dumps(ROWS, indent=2).encode()),
        ("list-of-few-a-line.json", LINES.strip().join((b"[", b"]")).replace(b"}\n", b"},\n")),
        ("objects.json", "\n".join(json.dumps(row, indent=4) for row in ROWS).encode()),
        ("held.json", json.dumps({"version": 3, "data": ROWS}, indent=1).encode()),
        ("held-in-a-line.json", json.dumps({"rows": ROWS}).encode()),
        ("a.csv", separated(",")),
        ("a.Csv", b"\xef\xbb\xbf" + separated(";")),
        ("a.tsv", separated("\t")),
    ],
)
def test_every_way_of_writing_rows(tmp_path: Path, name: str, data: bytes) -> None:
    assert values(tmp_path / name, data) == ROWS


@pytest.mark.parametrize(
    ("suffix", "compress"),
    [
        (".gz", gzip.compress),
        (".xz", lzma.compress),
        (".bz2", bz2.compress),
        (".zst", zstandard.compress),
    ],
)
@pytest.mark.parametrize(
    ("name", "data"),
    [("a.jsonl", LINES), ("a.json", json.dumps(ROWS).encode()), ("a.CSV", separated(","))],
)
def test_compressed_in_one_part_or_several(
    tmp_path: Path, suffix: str, compress: Callable[[bytes], bytes], name: str, data: bytes
) -> None:
    assert values(tmp_path / f"{name}{suffix}", compress(data)) == ROWS
    half = len(data) // 2
    assert (
        values(tmp_path / f"{name}{suffix.upper()}", compress(data[:half]) + compress(data[half:]))
        == ROWS
    )
    cut = compress(data)[:-9]
    with pytest.raises(DistillError, match=f"{name}.* cannot be read"):
        read(tmp_path / f"{name}{suffix}", cut)


def test_tables(tmp_path: Path) -> None:
    import datasets
    import pandas

    pandas.DataFrame(ROWS).to_parquet(tmp_path / "a.Parquet")
    assert values(tmp_path / "a.Parquet") == ROWS
    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved")
    assert values(tmp_path / "saved" / "data-00000-of-00001.arrow") == ROWS
    for name in ("b.parquet", "b.arrow"):
        with pytest.raises(DistillError, match=f"{name} cannot be read"):
            read(tmp_path / name, b"PAR1 no table")


def test_rows_keep_their_own_fields(tmp_path: Path) -> None:
    rows = [
        {"text": "a"},
        {"messages": [{"role": "user", "content": ["x", 1]}]},
        {"text": 3, "b": {}},
    ]
    data = "".join(json.dumps(row) + "\n" for row in rows)
    assert values(tmp_path / "a.jsonl", data.encode()) == rows
    assert values(tmp_path / "a.json", json.dumps(rows, indent=1).encode()) == rows


def test_text_of_a_csv_is_text_whatever_it_looks_like(tmp_path: Path) -> None:
    data = b'text,id\nNA,1\n"12",2\nnull,3\n"1e5",4\n'
    found = values(tmp_path / "a.csv", data)
    assert [row["text"] for row in found] == ["NA", "12", "null", "1e5"]


@pytest.mark.parametrize(
    ("name", "data", "line", "told"),
    [
        ("a.jsonl", b'{"text": "x"}\n{"text": \n{"text": "y"}\n', 2, "not JSON"),
        ("b.jsonl", b'{"text": "x"}\n{"text": "\xff\xfe"}\n{"text": "y"}\n', 2, "not UTF-8"),
        ("c.jsonl", b'no json\n{"text": "x"}\n{"text": "y"}\n', 1, "not JSON"),
        ("d.jsonl", b'{"text": "x"}\n{"text": "y"}\n{"text": "cut of', 3, "not JSON"),
        ("e.jsonl", b'{"text": "x"}\n' + b"[" * 99_999 + b'\n{"text": "y"}\n', 2, "nested"),
        ("f.csv", b"text\nx\nwith, a comma\ny\n", 3, "2 columns, and the first row names 1"),
        ("g.tsv", b'text\tid\nx\t1\n"a"b\t2\ny\t3\n', 3, "expected"),
    ],
)
def test_a_row_that_cannot_be_read_costs_that_row(
    tmp_path: Path, name: str, data: bytes, line: int, told: str
) -> None:
    found = read(tmp_path / name, data)
    (bad,) = [row for row in found if isinstance(row, Unusable)]
    assert f"line {line} of {name}" == bad.place
    assert told in bad.reason
    assert [row.value["text"] for row in found if isinstance(row, Row)] == ["x", "y"]


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("a.json", json.dumps(ROWS, indent=1).encode()[:-200], "cut off"),
        ("b.json", b'[{"text": "x"}, {"text": x}, {"text": "and a longer rest"}]', "not JSON"),
        ("c.csv", b'text\nx\n"never closed\n' + b"y\n" * 99, "a quote is never closed"),
        ("d.csv", b"text\nx\n\xff\xfe\n", "UTF-8"),
        ("e.json", b'[{"text": "\xff\xfe"}, \n{}]', "UTF-8"),
    ],
)
def test_a_file_of_which_the_rest_would_be_lost_is_refused(
    tmp_path: Path, name: str, data: bytes, told: str
) -> None:
    with pytest.raises(DistillError, match=f"{name} cannot be read: .*{told}"):
        read(tmp_path / name, data)


def test_a_long_list_is_read_a_piece_at_a_time(tmp_path: Path) -> None:
    rows = [{"text": "word " * 200, "number": number} for number in range(5000)]
    path = tmp_path / "a.json"
    path.write_text(json.dumps(rows))
    reading = Reading()
    found = rows_of(CorpusFile(str(path), path.name, path.stat().st_size), reading)
    first = next(found)
    assert isinstance(first, Row)
    assert first.value == rows[0]
    assert 0 < reading.done < path.stat().st_size / 2
    assert values(path) == rows


def test_lists_that_follow_each_other_are_all_read(tmp_path: Path) -> None:
    data = f"{json.dumps(ROWS[:20], indent=1)}\n{json.dumps(ROWS[20:], indent=1)}\n".encode()
    assert values(tmp_path / "a.json", data) == ROWS
    with pytest.raises(DistillError, match="not JSON"):
        read(
            tmp_path / "a.json",
            json.dumps(ROWS, indent=1).encode() + b"}}} garbage, and more of it",
        )


def test_only_the_object_that_is_the_file_is_unwrapped(tmp_path: Path) -> None:
    rows = [{"content": "long", "entities": [{"text": "NYC"}]}]
    assert values(tmp_path / "a.json", json.dumps(rows * 3, indent=1).encode()) == rows * 3
    wide = {"data": [{"text": "word " * 50}] * 2000}
    assert len(values(tmp_path / "b.json", json.dumps(wide).encode())) == 2000
    path = tmp_path / "c.json"
    path.write_text(json.dumps({"id": 1, "chosen": [{"role": "user", "content": "x"}]}))
    file = CorpusFile(str(path), path.name, path.stat().st_size)
    (row,) = rows_of(file, Reading(), "chosen")
    assert isinstance(row, Row)
    assert row.value["id"] == 1


def test_a_broken_first_line_costs_one_row(tmp_path: Path) -> None:
    for first in (b'{"text": "x\x01"}', b'{"text": "x"},', b"[" * 20_000, b'{"n": ' + b"1" * 5000):
        found = read(tmp_path / "a.jsonl", first + b"\n" + LINES)
        assert isinstance(found[0], Unusable)
        assert [row.value for row in found[1:] if isinstance(row, Row)] == ROWS


def test_the_file_is_read_that_is_named(tmp_path: Path) -> None:
    import pandas

    for name, word in (
        ("part[1].parquet", "right"),
        ("part1.parquet", "wrong"),
        ("a?b.parquet", "?"),
    ):
        pandas.DataFrame([{"text": word}]).to_parquet(tmp_path / name)
        assert values(tmp_path / name) == [{"text": word}]


def test_tables_without_rows_and_with_columns_that_nobody_reads(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    text = pyarrow.array(["x", "y"])
    odd = pyarrow.array([[("a", 1)], [("b", 2)]], pyarrow.map_(pyarrow.string(), pyarrow.int64()))
    parquet.write_table(pyarrow.table({"text": text, "odd": odd}), tmp_path / "a.parquet")
    assert values(tmp_path / "a.parquet") == [{"text": "x"}, {"text": "y"}]
    parquet.write_table(pyarrow.table({"text": text[:0]}), tmp_path / "b.parquet")
    assert values(tmp_path / "b.parquet") == []
    assert values(tmp_path / "c.parquet", b"") == []


@pytest.mark.parametrize(
    "data",
    [
        b'"the\nid",text\n1,x\n2,y\n',
        b"\n\nid,text\n1,x\n2,y\n",
        b"sep=;\nid;text\n1;x\n2;y\n",
        b'"id, nr";text\n1;x\n2;y\n',
    ],
)
def test_headers_of_every_kind(tmp_path: Path, data: bytes) -> None:
    assert [row["text"] for row in values(tmp_path / "a.csv", data)] == ["x", "y"]


def test_a_quote_that_swallows_rows_and_rows_that_are_too_short(tmp_path: Path) -> None:
    lines = [f"{n}\t{chr(34) if n in (50, 90) else ''}text {n}" for n in range(100)]
    with pytest.raises(DistillError, match=r"swallows the rows behind it \(line 52 of a.tsv\)"):
        read(tmp_path / "a.tsv", ("id\ttext\n" + "\n".join(lines)).encode())
    found = read(tmp_path / "b.csv", b"text,label\nA good start\nthe end,pos\n")
    assert isinstance(found[0], Unusable)
    assert "1 columns" in found[0].reason


@pytest.mark.parametrize("name", ["a.jsonl.zst", "a.jsonl.xz", "a.csv.gz", "a.json.bz2"])
def test_what_is_not_compressed_as_it_says(tmp_path: Path, name: str) -> None:
    with pytest.raises(DistillError, match=f"{name} cannot be read"):
        read(tmp_path / name, LINES)
