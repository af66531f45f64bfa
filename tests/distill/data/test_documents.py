import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from distill import DistillError, Document, read_documents
from distill.data.documents import document_of
from distill.data.messages import Message

TURNS = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]


def write_rows(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_chats_and_texts_in_one_file(tmp_path: Path) -> None:
    import pandas

    rows: list[dict[str, Any]] = [
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
        found = list(read_documents(str(tmp_path / name)))
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


def test_kinds_may_change_far_into_a_file(tmp_path: Path) -> None:
    rows = [{"text": "x" * 2000}] * 6000 + [{"messages": TURNS, "source": {"new": 1}}] * 10
    found = list(read_documents(str(write_rows(tmp_path / "a.jsonl", *rows))))
    assert [document.messages is None for document in found] == [True] * 6000 + [False] * 10


def test_conversations_of_from_and_value(tmp_path: Path) -> None:
    said = [("system", "S"), ("human", "a"), ("gpt", "b"), ("user", "c"), ("assistant", "d")]
    row = {"conversations": [{"from": who, "value": what} for who, what in said]}
    (found,) = read_documents(str(write_rows(tmp_path / "a.jsonl", row)))
    roles = ["system", "user", "assistant", "user", "assistant"]
    assert found.messages == tuple(
        Message(role, what) for role, (_, what) in zip(roles, said, strict=True)
    )


def test_a_chat_is_hashable_and_called_by_roles_and_contents() -> None:
    talk = (Message("user", "hi"), Message("assistant", "hello"))
    chat = Document.chat(talk)
    copy = Document.chat(tuple(Message(turn["role"], turn["content"]) for turn in TURNS))
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


def test_names_of_plain_chats_stay_what_they_are() -> None:
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
def test_shapes_of_chats(tmp_path: Path, row: Any, messages: Any, tools: Any) -> None:
    (found,) = read_documents(str(write_rows(tmp_path / "a.jsonl", row)))
    assert found.messages == messages
    assert found.tools == tools
    assert found == Document.chat(messages, tools)


def test_what_a_table_fills_with_nulls_is_not_there(tmp_path: Path) -> None:
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
    lines, table = (list(read_documents(str(tmp_path / name))) for name in ("a.jsonl", "a.parquet"))
    assert lines == table
    assert table[1].messages is not None
    assert table[1].messages[1] == Message("assistant", None, {"tool_calls": [other]})


GOOD = {"messages": TURNS}


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"messages": "hi"}, "messages are 'hi'; they must be a list"),
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
        ({"messages": '[{"role": "user"'}, "messages are '.*; they must be a list"),
        ({"messages": {"role": ["user"], "content": []}}, "messages are .*; they must be a"),
        ({"messages": TURNS, "tools": "weather"}, "tools are 'weather'; they must be a"),
        ({"messages": TURNS, "tools": [3]}, "tools are .3.; they must be a list"),
        ({"messages": TURNS, "tools": {"name": "f"}}, "tools are .*; they must be a list"),
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
        (["text"], "no object"),
        ({"text": 3}, "its field 'text' is 3; it must be a string"),
        ({f"field{n}": n for n in range(9)}, "but 'field0', .*, \\.\\.\\. .*corpus_from.field"),
    ],
)
def test_malformed_rows_say_what_is_wrong(row: Any, told: str) -> None:
    with pytest.raises(DistillError, match=told):
        document_of(row, "line 1")


@pytest.mark.parametrize(
    "row",
    [
        {"text": " \n"},
        {"text": None},
        {"messages": []},
        {"text": None, "messages": None},
        {"messages": [{"role": "user", "content": " "}]},
    ],
)
def test_rows_without_text_are_no_documents(row: Any) -> None:
    assert document_of(row, "line 1") is None


def test_what_stands_beside_a_chat_is_not_lost() -> None:
    said = [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]
    found = document_of({"system": "be brief", "conversations": said}, "")
    assert found is not None and found.messages is not None
    assert found.messages[0] == Message("system", "be brief")
    own = document_of({"system": "be brief", "messages": [{"role": "system", "content": "S"}]}, "")
    assert own is not None and own.messages == (Message("system", "S"),)
    functions = [{"name": "weather"}]
    called = document_of({"messages": TURNS, "functions": functions}, "")
    assert called is not None
    assert called.tools == [{"type": "function", "function": {"name": "weather"}}]
    with pytest.raises(DistillError, match="its functions are"):
        document_of({"messages": TURNS, "functions": ["weather"]}, "")


def test_a_field_of_another_name() -> None:
    own = document_of({"body": "x", "text": "y"}, "", "body")
    assert own is not None and own.text == "x"
    assert document_of({"body": None}, "", "body") is None
    listed = document_of({"body": "[1, 2]"}, "", "body")
    assert listed is not None and listed.text == "[1, 2]"
    chat = Document.chat((Message("user", "hi"), Message("assistant", "hello")))
    said = [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]
    for column in (TURNS, said, json.dumps(TURNS), json.dumps(said)):
        assert document_of({"dialogue": column, "text": "y"}, "", "dialogue") == chat
    with pytest.raises(DistillError, match="'body' is Python's way of writing a list"):
        document_of({"body": str(TURNS)}, "", "body")
    with pytest.raises(DistillError, match="no field 'body' .*but 'text'"):
        document_of({"text": "x"}, "", "body")
