import gzip
import hashlib
import json
from pathlib import Path

import pytest

from distill import DistillError, Document, read_documents
from distill.data.messages import Message


def texts(path: Path, include=("*.txt",), exclude=()) -> list[str]:
    return [document.text for document in read_documents(str(path), include, exclude)]


def test_text_file_is_split_at_blank_lines(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"one\ntwo\n\n\n  three\r\n\r\nfour\n  \t\nfive\n\n  \n")
    assert [text.strip("\n") for text in texts(path)] == ["one\ntwo", "  three", "four", "five"]


def test_long_paragraph_is_split_at_a_line_end_near_eight_kilobytes(tmp_path):
    path = tmp_path / "a.txt"
    line = "ä" * 49 + "\n"
    path.write_text(line * 500, encoding="utf-8")
    pieces = texts(path)
    assert "".join(pieces) == line * 500
    assert len(pieces) > 4
    for piece in pieces[:-1]:
        assert piece.endswith("\n")
        assert 8192 <= len(piece.encode()) < 8192 + len(line.encode())


def test_tables(tmp_path):
    import pandas

    rows = [{"text": "first", "id": 1}, {"text": "  ", "id": 2}, {"text": "second\n\nnot split"}]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "a.jsonl").write_text(lines)
    with gzip.open(tmp_path / "a.jsonl.gz", "wt") as file:
        file.write(lines)
    pandas.DataFrame(rows).to_parquet(tmp_path / "a.parquet")
    for name in ("a.jsonl", "a.jsonl.gz", "a.parquet"):
        assert texts(tmp_path / name) == ["first", "second\n\nnot split"], name


def test_folder_with_patterns(tmp_path):
    for name in ("b.txt", "a.md", "sub/c.txt", "sub/d.py", "tests/e.txt", "sub/empty.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("" if "empty" in name else f"in {name}")
    found = list(read_documents(str(tmp_path), ("*.txt", "*.md"), ("tests", "b.*")))
    assert [document.name for document in found] == ["a.md", "sub/c.txt"]
    assert [document.text for document in found] == ["in a.md", "in sub/c.txt"]


def test_copies_of_a_text_have_one_name_and_other_texts_another(tmp_path):
    (tmp_path / "a.txt").write_text("same\n\nother\n\nsame\n\n")
    first, other, copy = read_documents(str(tmp_path / "a.txt"), (), ())
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
        ("d.jsonl", lambda path: path.write_text('{"text": "x"}\n{"text": null}\n'), "'text'"),
        ("e.jsonl", lambda path: path.write_text('{"text": 3}\n'), "'text'"),
        ("f.jsonl", lambda path: path.write_text("no json\n"), "cannot be read"),
        ("g.jsonl.gz", write_broken_gzip, "cannot be read"),
        ("h.parquet", lambda path: path.write_bytes(b"PAR1 no parquet"), "cannot be read"),
        ("folder", lambda path: path.mkdir(), "empty"),
        ("missing.txt", lambda path: None, "does not exist"),
    ],
)
def test_what_cannot_be_used_is_called_by_its_name(tmp_path, name, fill, told):
    fill(tmp_path / name)
    with pytest.raises(DistillError) as problem:
        texts(tmp_path / name)
    assert str(tmp_path / name) in str(problem.value)
    assert told in str(problem.value)


def test_undecodable_file_of_a_folder_is_named(tmp_path):
    (tmp_path / "good.txt").write_text("good")
    (tmp_path / "poor.txt").write_bytes(b"caf\xe9 au lait")
    with pytest.raises(DistillError, match="poor.txt.*byte 3"):
        texts(tmp_path)
    assert texts(tmp_path, exclude=("poor*",)) == ["good"]


TURNS = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]


def write_rows(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_chats_and_texts_in_one_file(tmp_path):
    import pandas

    rows = [
        {"text": "plain", "id": 1},
        {"messages": [{"role": "system", "content": "S", "weight": 2}, *TURNS]},
        {"text": None, "messages": TURNS},
        {"text": "as rendered", "messages": TURNS},
        {"text": "no chat", "messages": []},
        {"messages": []},
        {"messages": [{"role": "user", "content": " "}]},
    ]
    write_rows(tmp_path / "a.jsonl", *rows)
    for row in rows:
        row.setdefault("text", None)
        row.setdefault("messages", None)
    pandas.DataFrame(rows).to_parquet(tmp_path / "a.parquet")
    talk = (Message("user", "hi"), Message("assistant", "hello"))
    for name in ("a.jsonl", "a.parquet"):
        found = list(read_documents(str(tmp_path / name), (), ()))
        assert [document.messages for document in found] == [
            None,
            (Message("system", "S", {"weight": 2}), *talk),
            talk,
            talk,
            None,
        ], name
        assert [document.text for document in found] == [
            "plain",
            "S\nhi\nhello",
            "hi\nhello",
            "hi\nhello",
            "no chat",
        ], name


def test_kinds_may_change_far_into_a_file(tmp_path):
    rows = [{"text": "x" * 2000}] * 6000 + [{"messages": TURNS, "source": {"new": 1}}] * 10
    found = list(read_documents(str(write_rows(tmp_path / "a.jsonl", *rows)), (), ()))
    assert [document.messages is None for document in found] == [True] * 6000 + [False] * 10


def test_conversations_of_from_and_value(tmp_path):
    said = [("system", "S"), ("human", "a"), ("gpt", "b"), ("user", "c"), ("assistant", "d")]
    row = {"conversations": [{"from": who, "value": what} for who, what in said]}
    (found,) = read_documents(str(write_rows(tmp_path / "a.jsonl", row)), (), ())
    roles = ["system", "user", "assistant", "user", "assistant"]
    assert found.messages == tuple(
        Message(role, what) for role, (_, what) in zip(roles, said, strict=True)
    )


def test_a_chat_is_hashable_and_called_by_roles_and_contents():
    talk = (Message("user", "hi"), Message("assistant", "hello"))
    chat, copy = Document.chat(talk), Document.chat(tuple(Message(**turn) for turn in TURNS))
    assert chat == copy
    assert len({chat, copy}) == 1
    other = Document.chat((Message("assistant", "hi"), Message("user", "hello")))
    assert other.text == chat.text
    assert other.name != chat.name
    with_tools = Document.chat(talk, [{"name": "f"}])
    named = Document.chat((Message("user", "hi", {"name": "Ann"}), talk[1]))
    parts = Document.chat((Message("user", [{"type": "text", "text": "hi"}]), talk[1]))
    found = (chat, other, with_tools, named, parts)
    assert len({each.name for each in found}) == len(set(found)) == len(found)
    assert with_tools.text == named.text == parts.text == chat.text


def test_names_of_plain_chats_stay_what_they_are():
    """They decide the split; a test document of one version is never trained on by the next."""
    talk = (Message("user", "h\u00ed"), Message("assistant", ""))
    named = json.dumps([["user", "h\u00ed"], ["assistant", ""]], ensure_ascii=False)
    assert Document.chat(talk).name == hashlib.sha256(named.encode()).hexdigest()
    empty = Message("assistant", "", {})
    assert Document.chat((talk[0], empty), []).name == Document.chat(talk).name


WEATHER = {"function": {"name": "weather", "arguments": {"city": "Paris"}}}
SCHEMA = {"type": "function", "function": {"name": "weather"}}


@pytest.mark.parametrize(
    ("row", "messages", "tools"),
    [
        (
            {
                "messages": [
                    TURNS[0],
                    {"role": "assistant", "content": None, "tool_calls": [WEATHER | {"id": None}]},
                    {"role": "tool", "content": "sunny", "tool_call_id": "1", "name": None},
                ],
                "tools": [SCHEMA | {"strict": None}],
            },
            (
                Message("user", "hi"),
                Message("assistant", None, {"tool_calls": [WEATHER]}),
                Message("tool", "sunny", {"tool_call_id": "1"}),
            ),
            [SCHEMA],
        ),
        (
            {"messages": json.dumps([*TURNS, {"role": "ipython", "content": "3"}])},
            (Message("user", "hi"), Message("assistant", "hello"), Message("ipython", "3")),
            None,
        ),
        (
            {"messages": TURNS, "tools": json.dumps([SCHEMA])},
            (Message("user", "hi"), Message("assistant", "hello")),
            [SCHEMA],
        ),
        (
            {"messages": TURNS, "tools": [json.dumps(SCHEMA)]},
            (Message("user", "hi"), Message("assistant", "hello")),
            [SCHEMA],
        ),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "text", "text": "hi", "image": None}]},
                    {"role": "assistant", "content": ["hello"], "tool_calls": []},
                ],
                "tools": [],
            },
            (Message("user", [{"type": "text", "text": "hi"}]), Message("assistant", ["hello"])),
            None,
        ),
        (
            {
                "messages": [
                    TURNS[0],
                    {"role": "assistant", "content": "hello", "reasoning_content": "hm"},
                    {"role": "function", "content": "3", "name": "f"},
                ],
                "tools": None,
            },
            (
                Message("user", "hi"),
                Message("assistant", "hello", {"reasoning_content": "hm"}),
                Message("function", "3", {"name": "f"}),
            ),
            None,
        ),
        (
            {"messages": {"role": ["user", "assistant"], "content": ["hi", "hello"]}},
            (Message("user", "hi"), Message("assistant", "hello")),
            None,
        ),
        (
            {"conversations": TURNS},
            (Message("user", "hi"), Message("assistant", "hello")),
            None,
        ),
        (
            {"messages": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]},
            (Message("user", "hi"), Message("assistant", "hello")),
            None,
        ),
    ],
)
def test_shapes_of_chats(tmp_path, row, messages, tools):
    (found,) = read_documents(str(write_rows(tmp_path / "a.jsonl", row)), (), ())
    assert found.messages == messages
    assert found.tools == tools
    assert found == Document.chat(messages, tools)


def test_what_a_table_fills_with_nulls_is_not_there(tmp_path):
    """Rows of a table have the fields of all its rows, also inside of calls and tools."""
    import pandas

    other = {"function": {"name": "add", "arguments": {"a": 1}}}
    rows = [
        {
            "messages": [
                TURNS[0],
                {"role": "assistant", "content": None, "tool_calls": [call]},
                {"role": "tool", "content": "3", "name": "f"},
            ],
            "tools": [{"name": "f", extra: 1}],
        }
        for call, extra in ((WEATHER, "x"), (other, "y"))
    ]
    write_rows(tmp_path / "a.jsonl", *rows)
    pandas.DataFrame(rows).to_parquet(tmp_path / "a.parquet")
    lines, table = (
        list(read_documents(str(tmp_path / name), (), ())) for name in ("a.jsonl", "a.parquet")
    )
    assert lines == table
    assert table[1].messages[1] == Message("assistant", None, {"tool_calls": [other]})


GOOD = {"messages": TURNS}


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"messages": "hi"}, "messages that are 'hi'; they must be a list"),
        ({"messages": ["hi"]}, "message 1 is 'hi'; it must have the fields 'role' and 'content'"),
        ({"messages": [*TURNS, {"role": "user"}]}, "message 3 is .*'role' and 'content'"),
        ({"messages": [{"content": "x"}]}, "message 1 is .*'role' and 'content'"),
        ({"messages": [{"role": "gpt", "content": "x"}]}, "role 'gpt'; .*user, assistant"),
        ({"messages": [{"role": None, "content": "x"}]}, "role None; .*user, assistant"),
        ({"messages": [{"role": ["user"], "content": "x"}]}, "role .*user, assistant"),
        ({"messages": [{"role": "user", "content": None}]}, "message 1 is .*'role' and 'content'"),
        ({"messages": [{"role": "user", "content": 3}]}, "content 3; it must be a string or a"),
        ({"messages": [{"role": "user", "content": [3]}]}, "content .3.; .* a list of parts"),
        ({"messages": [{"role": "user", "content": {"a": 1}}]}, "content .*; it must be a string"),
        ({"messages": '[{"role": "user"'}, "messages that are '.*; they must be a list"),
        ({"messages": {"role": ["user"], "content": []}}, "messages that are .*; they must be a"),
        ({"messages": TURNS, "tools": "weather"}, "has tools that are 'weather'; they must be a"),
        ({"messages": TURNS, "tools": [3]}, "has tools that are .3.; they must be a list"),
        ({"messages": TURNS, "tools": {"name": "f"}}, "has tools that are .*; they must be a list"),
        (
            {"messages": [{"role": "assistant", "content": "", "tool_calls": [{"id": 1}]}]},
            "message 1 has the tool_calls .*; .* each must name a function",
        ),
        ({"conversations": [{"who": "user", "what": "x"}]}, "'from' and 'value'"),
        ({"conversations": [{"from": "human", "text": "x"}]}, "'from' and 'value'"),
        ({"conversations": [{"from": "bing", "value": "x"}]}, "from 'bing'; .*user, assistant"),
        ({"body": "x"}, "neither a field 'text'"),
        ({"text": "\ud800"}, "surrogate"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "surrogate"),
        (["text"], "not an object"),
    ],
)
def test_malformed_rows_are_called_by_line(tmp_path, row, told):
    path = write_rows(tmp_path / "a.jsonl", GOOD, row, GOOD)
    with pytest.raises(DistillError, match=f"^line 2 of {path}.*{told}"):
        list(read_documents(str(path), (), ()))


def test_malformed_row_of_a_parquet_file_is_called_by_number(tmp_path):
    import pandas

    path = tmp_path / "a.parquet"
    wrong = {"messages": [{"role": "model", "content": "x"}]}
    pandas.DataFrame([GOOD, wrong]).to_parquet(path)
    with pytest.raises(DistillError, match=f"^row 2 of {path}: message 1 has the role 'model'"):
        list(read_documents(str(path), (), ()))
