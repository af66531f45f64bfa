import json
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from distill import Corpus, CorpusFiles, CorpusFrom, CorpusPlan, DistillError, Packing, SplitSizes

BLOCK = 32
SMALL = SplitSizes(selection_tokens=4 * BLOCK, test_tokens=4 * BLOCK)
DATED = (
    "{{ strftime_now('%d %B %Y') }}{% for m in messages %}[{{ m.role }}] {{ m.content }}"
    "{% endfor %}"
)


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def texts(count: int = 800) -> list[dict[str, Any]]:
    return [{"text": f"Paragraph {n} says {n * n} and then {n % 7}. " * 3} for n in range(count)]


def plan(path: Path, **reading: Any) -> CorpusPlan:
    packing = Packing(BLOCK, SMALL, reading=CorpusFrom(**reading))
    return CorpusPlan.of(str(path), CorpusFiles(), packing=packing)


def packed(path: Path, tokenizer: PreTrainedTokenizerFast, root: Path, **reading: Any) -> Corpus:
    return plan(path, **reading).packed(tokenizer, "bytes", root=root)


def test_what_was_packed_is_found_again_and_what_changed_is_packed_anew(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, lines: list[str]
) -> None:
    path = write(tmp_path / "a.jsonl", *texts())
    first = packed(path, tokenizer, tmp_path / "work")
    first_lines = lines.copy()
    again = packed(path, tokenizer, tmp_path / "work")
    assert again.directory == first.directory
    assert first_lines[0].startswith("corpus: packing 1 file, 0.1 MB")
    assert lines == [*first_lines, *first_lines[1:]]
    lines.clear()
    write(path, *texts()[:-1], {"text": "something else"})
    changed = packed(path, tokenizer, tmp_path / "work")
    assert lines[0] == first_lines[0]
    assert changed.digest != first.digest


def test_the_same_text_elsewhere_is_the_same_corpus(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    write(tmp_path / "a.jsonl", *texts())
    (tmp_path / "b.json").write_text(json.dumps(texts(), indent=2))
    one, other = (packed(tmp_path / n, tokenizer, tmp_path / "w") for n in ("a.jsonl", "b.json"))
    assert one.directory != other.directory
    assert one.digest == other.digest


def test_a_template_is_told_the_same_day_every_day(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    tokenizer.chat_template = DATED
    chats = [
        {
            "messages": [
                {"role": "user", "content": f"what is {n}?"},
                {"role": "assistant", "content": f"it is {n}"},
            ]
        }
        for n in range(400)
    ]
    path = write(tmp_path / "a.jsonl", *chats)
    first = packed(path, tokenizer, tmp_path / "first")
    text = tokenizer.decode(first.blocks("train")[0].tolist())
    assert "26 July 2024" in text
    again = packed(path, tokenizer, tmp_path / "again")
    other = packed(path, tokenizer, tmp_path / "other", date="2026-01-02")
    assert first.digest == again.digest != other.digest
    assert "02 January 2026" in tokenizer.decode(other.blocks("train")[0].tolist())


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([{"body": "x"}] * 400, r"32 of 32 rows .* cannot be used.*'text'"),
        ([{"text": " "}] * 20, "is empty: no document with text"),
        ([{"messages": [{"role": "user", "content": "x"}]}] * 400, "no chat template"),
        ([{"text": "x"}] * 9 + [{"text": 3}], r"1 of 10 rows .*10.0%"),
    ],
)
def test_most_faults_are_found_before_anything_is_packed(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, rows: list[dict[str, Any]], told: str
) -> None:
    path = write(tmp_path / "a.jsonl", *rows)
    with pytest.raises(DistillError, match=told):
        plan(path).check(tokenizer)


def test_chats_that_the_template_refuses_are_left_out_and_counted(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, lines: list[str]
) -> None:
    tokenizer.chat_template = (
        "{% for m in messages %}{% if loop.first and m.role != 'user' %}"
        "{{ raise_exception('a user begins') }}{% endif %}{{ m.content }}{% endfor %}"
    )
    turn = [{"role": "user", "content": "question " * 5}, {"role": "assistant", "content": "a"}]
    good = [{"messages": [*turn[:1], {"role": "assistant", "content": str(n)}]} for n in range(400)]
    path = write(tmp_path / "a.jsonl", *good[:50], {"messages": turn[::-1]}, *good[50:])
    plan(path).check(tokenizer)
    corpus = packed(path, tokenizer, tmp_path / "w")
    (line,) = [line for line in lines if "could not be used" in line]
    assert line.startswith(
        "corpus: 1 row of 401 could not be used and left out: line 51 of a.jsonl"
    )
    assert "a user begins" in line
    assert sum(corpus.facts[f"{s}_documents"] for s in ("train", "selection", "test")) == 400
    with pytest.raises(DistillError, match="1 of 401 rows"):
        packed(path, tokenizer, tmp_path / "strict", max_bad_share=0.001)


def test_what_another_start_began_and_nobody_needs_is_removed(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    path = write(tmp_path / "a.jsonl", *texts())
    left = tmp_path / "work" / ".corpus-0123456789abcdef.part"
    left.mkdir(parents=True)
    packed(path, tokenizer, tmp_path / "work")
    assert not left.exists()
