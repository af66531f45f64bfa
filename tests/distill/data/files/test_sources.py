import json
from pathlib import Path
from typing import Any

import pandas
import pytest

from distill import CorpusFiles, CorpusFrom, DistillError, read_documents
from distill.data.files.sources import find_sources


def write(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def lines(word: str, count: int = 20) -> str:
    return "".join(json.dumps({"text": f"{word} {number}"}) + "\n" for number in range(count))


def texts(source: Path | str, files: CorpusFiles | None = None, **reading: Any) -> set[str]:
    return {document.text for document in read_documents(str(source), files, CorpusFrom(**reading))}


def notes(source: Path | str, **reading: Any) -> tuple[str, ...]:
    (found,) = find_sources(str(source), CorpusFiles(), CorpusFrom(**reading))
    return found.notes


def test_a_folder_of_shards_is_rows_and_its_card_is_not_learned(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        **{
            "part-0.jsonl": lines("a"),
            "part-1.JSONL": lines("b"),
            "more__part-2.ndjson": lines("c"),
            "README.md": "# A card\n\nabout it",
        },
    )
    assert texts(root) == {f"{word} {number}" for word in "abc" for number in range(20)}
    assert notes(root) == ("1 file that is not read as rows (README.md)",)


def test_a_folder_of_texts_stays_what_it_is(tmp_path: Path) -> None:
    code = "def function():\n    return 1\n" * 50
    root = write(tmp_path, **{"a.py": code, "sub__B.TXT": "text", "data.jsonl": lines("row", 3)})
    found = list(read_documents(str(root)))
    assert {document.name for document in found} == {"a.py", "sub/B.TXT"}
    assert {document.text for document in found} == {code, "text"}
    assert notes(root) == ("1 file that is not read as text (data.jsonl)",)


def test_include_decides_what_is_read(tmp_path: Path) -> None:
    root = write(tmp_path, **{"a.py": "code " * 99, "b.jsonl": lines("row"), "c.txt": "text"})
    assert texts(root, CorpusFiles(include=["*.jsonl"])) == {f"row {n}" for n in range(20)}
    assert texts(root, CorpusFiles(include=["*.txt"])) == {"text"}
    assert texts(root, CorpusFiles(include=["*.TXT", "*.py"], exclude=["a*"])) == {"text"}
    with pytest.raises(DistillError, match="has rows .* and texts .*corpus_files.include"):
        texts(root, CorpusFiles(include=["*"]))


def test_files_of_other_splits_are_left_out_and_said(tmp_path: Path) -> None:
    root = write(tmp_path, **{f"{name}.jsonl": lines(name) for name in ("train", "test", "dev")})
    assert texts(root) == {f"train {number}" for number in range(20)}
    assert notes(root) == ("2 files of other splits (test, validation)",)
    assert texts(root, split="test") == {f"test {number}" for number in range(20)}
    with pytest.raises(DistillError, match=r"split is 'dev', .* of test, train, validation"):
        texts(root, split="dev")


CARD = """---
configs:
- config_name: english
  data_files:
  - split: train
    path: en/train-*
  - split: test
    path: en/test-*
- config_name: german
  data_files: de/*.jsonl.gz
---
# A card
"""


@pytest.fixture
def data_set(tmp_path: Path) -> Path:
    """A folder in the Hub's layout, with two configurations."""
    import gzip

    write(tmp_path, **{"README.md": CARD, "de__x.jsonl.gz": ""})
    (tmp_path / "de" / "x.jsonl.gz").write_bytes(gzip.compress(lines("de").encode()))
    (tmp_path / "en").mkdir()
    for split in ("train", "test"):
        rows = [{"content": f"{split} {number}", "id": number} for number in range(20)]
        pandas.DataFrame(rows).to_parquet(tmp_path / "en" / f"{split}-00000-of-00001.parquet")
    return tmp_path


def test_a_data_set_in_the_layout_of_the_hub(data_set: Path) -> None:
    given: dict[str, Any] = {"config": "english", "field": "content"}
    assert texts(data_set, **given) == {f"train {number}" for number in range(20)}
    assert texts(data_set, split="test", **given) == {f"test {number}" for number in range(20)}
    assert texts(data_set, config="german") == {f"de {number}" for number in range(20)}


def test_what_a_data_set_has_not_is_said_with_what_it_has(data_set: Path) -> None:
    with pytest.raises(DistillError, match=r"corpus_from.config.*english.*german"):
        texts(data_set)
    with pytest.raises(DistillError, match=r"corpus_from.config.*english"):
        texts(data_set, config="french")
    with pytest.raises(DistillError, match=r"split is 'dev', but .* has test, train"):
        texts(data_set, config="english", split="dev")
    with pytest.raises(DistillError, match=r"max_bad_share.*'content', 'id' .*corpus_from.field"):
        texts(data_set, config="english")


def test_what_datasets_saved_to_disk(tmp_path: Path) -> None:
    import datasets

    rows = datasets.Dataset.from_list([{"text": f"saved {number}"} for number in range(20)])
    rows.save_to_disk(tmp_path / "one")
    datasets.DatasetDict(train=rows, test=rows.select([0])).save_to_disk(tmp_path / "several")
    assert texts(tmp_path / "one") == texts(tmp_path / "several") == set(rows["text"])
    assert texts(tmp_path / "several", split="test") == {"saved 0"}


def test_patterns_and_several_sources(tmp_path: Path) -> None:
    write(tmp_path, **{f"a-{n}.jsonl": lines(f"a{n}", 2) for n in range(3)}, **{"b.txt": "b"})
    assert len(texts(tmp_path / "a-*.jsonl")) == 6
    assert len(texts(tmp_path / "**" / "a-[01].jsonl")) == 4
    found = read_documents([str(tmp_path / "a-0.jsonl"), str(tmp_path / "b.txt")])
    assert [document.text for document in found] == ["a0 0", "a0 1", "b"]


def test_the_order_of_a_folder_is_fixed_but_not_that_of_its_names(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for root in (one, other):
        write(root, **{f"{n:02}.txt": f"text {n}" for n in range(20)})
    found = [[document.name for document in read_documents(str(root))] for root in (one, other)]
    assert found[0] == found[1]
    assert found[0] != sorted(found[0]) == [f"{n:02}.txt" for n in range(20)]


def test_copies_of_a_file_are_known(tmp_path: Path) -> None:
    root = write(tmp_path, **{"a.txt": "same", "b.txt": "same", "c.txt": "else", "d.txt": "longer"})
    copies = {document.name: document.copies for document in read_documents(str(root))}
    assert set(copies["a.txt"]) == set(copies["b.txt"]) == {"a.txt", "b.txt"}
    assert copies["c.txt"] == copies["d.txt"] == ()


def test_rows_that_are_called_a_text_are_refused(tmp_path: Path) -> None:
    root = write(
        tmp_path, **{"rows.txt": lines("row"), "rows": lines("row"), "text.txt": "{ no }\n"}
    )
    for name in ("rows.txt", "rows"):
        with pytest.raises(DistillError, match=f"{name} is called a text, .* .jsonl"):
            texts(root / name)
    assert texts(root / "text.txt") == {"{ no }\n"}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("missing.txt", "does not exist"),
        ("no-*.jsonl", "matches no file"),
        ("folder", "is empty: no file with text"),
        ("x" * 5000, "cannot be opened"),
        ("a\0b", "does not exist"),
    ],
)
def test_what_cannot_be_found_is_called_by_its_name(tmp_path: Path, given: str, told: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(DistillError, match=told):
        texts(f"{tmp_path}/{given}")


def test_names_and_weights_that_make_no_sense(tmp_path: Path) -> None:
    path = str(write(tmp_path, **{"a.txt": "a"}) / "a.txt")
    with pytest.raises(DistillError, match="empty name"):
        find_sources(["", path], CorpusFiles(), CorpusFrom())
    with pytest.raises(DistillError, match="1 numbers, and --corpus 2 sources"):
        find_sources([path, path], CorpusFiles(), CorpusFrom(weights=[1.0]))
    for weights in ([0.0, 1.0], [-1.0, 1.0], [float("nan"), 1.0], [float("inf"), 1.0]):
        with pytest.raises(DistillError, match="a weight must be above 0"):
            CorpusFrom(weights=weights)


def test_folders_with_odd_names_and_links(tmp_path: Path) -> None:
    root = write(tmp_path / "v[1]", **{"part[0].jsonl": lines("a"), "README.md": "# card"})
    assert len(texts(root)) == 20
    own = write(tmp_path / "own", **{"b.jsonl": lines("b")})
    (own / "linked").symlink_to(root)
    (own / "loop").symlink_to(own)
    (own / "broken.jsonl").symlink_to(tmp_path / "nowhere")
    assert len(texts(own)) == 40


def test_splits_that_were_saved_have_their_own_names(tmp_path: Path) -> None:
    import datasets

    rows = {
        name: datasets.Dataset.from_list([{"text": f"{name} {n}"} for n in range(5)])
        for name in ("train_sft", "test_sft", "train_gen", "heldout")
    }
    datasets.DatasetDict(rows).save_to_disk(tmp_path / "saved")
    for name in rows:
        assert texts(tmp_path / "saved", split=name) == {f"{name} {n}" for n in range(5)}
    with pytest.raises(DistillError, match=r"split is 'train', .*heldout, test_sft"):
        texts(tmp_path / "saved")


def test_files_of_no_split_are_said_or_are_training(tmp_path: Path) -> None:
    named = {f"{name}.jsonl": lines(name) for name in ("train", "test", "metadata")}
    one = write(tmp_path / "one", **named)
    assert texts(one) == {f"train {n}" for n in range(20)}
    assert notes(one) == ("1 file of another split (test)", "1 of no split (metadata.jsonl)")
    other = write(tmp_path / "other", **{f"{n}.jsonl": lines(n) for n in ("web", "books", "dev")})
    assert len(texts(other)) == 40
    assert notes(other) == ("1 file of another split (validation)",)


def test_an_older_layout_of_the_hub(tmp_path: Path) -> None:
    write(tmp_path, **{"dataset_infos.json": "{}", "data__train-00000-of-00001.jsonl": lines("a")})
    assert len(texts(tmp_path)) == 20


def test_include_and_exclude_hold_for_patterns(tmp_path: Path) -> None:
    write(tmp_path, **{"a.jsonl": lines("a"), "b.jsonl": lines("b"), "README.md": "# card"})
    files = CorpusFiles(exclude=["b*"])
    assert texts(tmp_path / "*.jsonl", files) == {f"a {n}" for n in range(20)}
    with pytest.raises(DistillError, match="has rows .* and texts"):
        texts(tmp_path / "*")
    with pytest.raises(DistillError, match="no file of .* is one of --corpus_files.include"):
        texts(tmp_path, CorpusFiles(include=["*.csv"]))


def test_what_of_a_folder_of_texts_is_not_read_is_said(tmp_path: Path) -> None:
    write(tmp_path, **{"README.md": "text", **{f"{n}.cpp": "int main" for n in range(3)}})
    assert notes(tmp_path) == ("3 files that are not read as text (3 .cpp)",)
    with pytest.raises(DistillError, match="split is 'test', .* no splits"):
        texts(tmp_path, split="test")


def test_text_files_of_a_folder_that_are_rows_are_refused(tmp_path: Path) -> None:
    rows = json.dumps({"text": "word " * 20_000}) + "\n"
    with pytest.raises(DistillError, match=r"called a text, .* rows of JSON"):
        texts(write(tmp_path / "rows", **{"a.txt": rows, "b.txt": rows}))
    indented = json.dumps([{"text": "x"}] * 9, indent=2)
    with pytest.raises(DistillError, match=r"called a text, .* rows of JSON"):
        texts(write(tmp_path / "list", **{"a.txt": indented}) / "a.txt")
