"""What templates make of tools, calls, results and contents in parts, and what is refused of it."""

import datetime
import json
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from distill import DistillError, Document
from distill.data.chat.encoder import Encoder
from distill.data.messages import Message
from tests.distill.data.bytewise import bytewise, chat, decoded, encoded, reason
from tests.distill.data.chat.test_encoder import (
    CHATML,
    FORGETS_THOUGHTS,
    HEADERS,
    OPEN_TURNS,
    check,
)

LISTED = """\
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- for tool in tools %}{{- tool | tojson + '\\n' }}{% endfor %}
    {{- '<|im_end|>\\n' }}
{%- endif %}
"""
CALLS = """\
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' }}
    {%- if message.content is string %}{{- message.content }}
    {%- else %}
        {%- for part in message.content %}{{- part.text }}{% endfor %}
    {%- endif %}
    {%- for call in message.tool_calls %}CALL{% endfor %}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{% endif %}
"""
ARGUMENTS = {
    "object": "{{- '[' + call.function.name + call.function.arguments | tojson + ']' }}",
    "function": "{{- '[' + call.function | tojson + ']' }}",
    "string": "{{- '[' + call.function.name + call.function.arguments + ']' }}",
    "pairs": "{{- '[' + call.function.name }}{% if call.function.arguments is mapping %}"
    "{{- '{' }}{% for key, value in call.function.arguments.items() %}{{- key | tojson + ': ' }}"
    "{{- value | tojson }}{{ ', ' if not loop.last }}{% endfor %}{{- '}]' }}"
    "{% else %}{{- '{raw: ' + call.function.arguments + '}]' }}{% endif %}",
    "text": "{{- '[' ~ call.function.name ~ call.function.arguments ~ ']' }}",
    "either": "{{- '[' + call.function.name }}{% if call.function.arguments is string %}"
    "{{- call.function.arguments }}{% else %}{{- call.function.arguments | tojson }}{% endif %}]",
}
"""By what the template takes the arguments of a call for."""
PARTS = CALLS.replace("CALL", "")
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
OTHER = datetime.date(2025, 1, 2)
CITY = {"city": "Par\u00eds", "days": 2}


def template(kind: str) -> str:
    return LISTED + CALLS.replace("CALL", ARGUMENTS[kind])


def call(arguments: object = CITY, name: str = "weather") -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


def errand(
    *calls: dict[str, Any], tools: list[dict[str, Any]] | None = None, answer: Any = "sunny"
) -> Document:
    """A question, what is called for it, what that says, and the answer."""
    return Document.chat(
        (
            Message("user", "How is Paris?"),
            Message("assistant", None, {"tool_calls": list(calls or [call()])}),
            Message("tool", answer, {"name": "weather"}),
            Message("assistant", "Fine."),
        ),
        tools,
    )


def rendered(tokenizer: PreTrainedTokenizerFast, document: Document) -> str:
    found = encoded(Encoder.of(tokenizer, False, bos="never"), document)
    return decoded(tokenizer, found[0].ids)


# Tools


@pytest.mark.parametrize("given", [CITY, json.dumps(CITY, ensure_ascii=False)], ids=type)
@pytest.mark.parametrize("kind", ARGUMENTS)
def test_calls_are_written_once_whichever_form_a_template_takes(kind: str, given: Any) -> None:
    tokenizer = bytewise(template(kind))
    written = rendered(tokenizer, errand(call(given), tools=[TOOL]))
    asked = json.dumps(CITY, ensure_ascii=False)
    if kind == "function":
        assert f'[{{"name": "weather", "arguments": {asked}}}]' in written
    else:
        assert f"[weather{asked}]" in written
    assert json.dumps(TOOL) in written
    assert "\\" not in written


def test_the_assistants_calls_are_its_own() -> None:
    shown = "[weather" + json.dumps(CITY, ensure_ascii=False) + "]"
    check(
        bytewise(template("object")),
        errand(),
        ("<|im_start|>user\nHow is Paris?<|im_end|>\n<|im_start|>assistant\n", False),
        (f"{shown}<|im_end|>", True),
        ("\n<|im_start|>tool\nsunny<|im_end|>\n<|im_start|>assistant\n", False),
        ("Fine.<|im_end|>", True),
        ("\n", False),
    )


def test_call_without_a_generation_prompt_or_a_header_of_its_own() -> None:
    open_turns = OPEN_TURNS.split("\n")[0].replace(
        "turn.content +",
        "(turn.content if turn.content is defined else turn.tool_calls[0] | tojson) +",
    )
    header = open_turns.replace("turn.role | upper + ': '", "HEAD").replace(
        "HEAD", "(turn.role | upper + ': ' if turn.content is defined else 'CALL ')"
    )
    for source, before, own in (
        (open_turns, "ASSISTANT: ", ""),
        (header, "", "CALL "),
    ):
        check(
            bytewise(source),
            errand(),
            ("USER: How is Paris?\n" + before, False),
            (own + json.dumps(call(), ensure_ascii=False) + "\n", True),
            ("TOOL: sunny\nASSISTANT: ", False),
            ("Fine.\n<end>", True),
        )


WITHOUT_CALLS = LISTED + CALLS.replace("CALL", "").replace(
    "{%- for part in message.content %}", "{%- for part in message.content or [] %}"
)
WITHOUT_RESULTS = template("object").replace(
    "{%- for message in messages %}", "{%- for message in messages if message.role != 'tool' %}"
)


@pytest.mark.parametrize(
    ("source", "document", "told"),
    [
        (WITHOUT_CALLS, errand(), "leaves out the call of 'weather' (message 2)"),
        (
            WITHOUT_CALLS,  # whose list of tools has the name
            errand(tools=[TOOL]),
            "leaves out the call of 'weather' (message 2)",
        ),
        (
            template("object"),
            Document.chat(
                (
                    Message("user", "What weather?"),
                    Message("assistant", "", {"function_call": {"name": "weather"}}),
                )
            ),
            "leaves out the call of 'weather' (message 2)",
        ),
        (
            template("object").replace(LISTED, ""),
            errand(tools=[TOOL, {"name": "other"}]),
            "leaves out the tool 'weather'",
        ),
        (
            template("object").replace("for tool in tools", "for tool in tools[:1]"),
            errand(tools=[TOOL, {"name": "other"}]),
            "leaves out the tool 'other'",
        ),
        (WITHOUT_RESULTS, errand(), "leaves out what a tool answers (message 3)"),
        (
            WITHOUT_RESULTS,
            errand(answer=[{"type": "text", "text": "sunny"}]),
            "leaves out a part (message 3)",
        ),
        (
            template("object").replace("tool | tojson", "tool | string"),
            errand(tools=[TOOL]),
            "writes a tool as a dictionary of Python",
        ),
        (
            template("function").replace("call.function | tojson", "call.function | string"),
            errand(),
            "writes a tool call as a dictionary of Python (message 2)",
        ),
        (
            template("pairs").replace("value | tojson", "value | string").split("{% else %}")[0]
            + "{% endif %}{% endfor %}{{- '<|im_end|>' }}{% endfor %}",
            errand(call({"in": {"city": "Paris"}})),
            "writes a tool call as a dictionary of Python (message 2)",
        ),
        (
            template("object").replace("+ call.function.arguments | tojson", ""),
            errand(),
            "leaves out arguments of a tool call (message 2)",
        ),
        (
            template("object").replace("arguments | tojson", "arguments.city"),
            errand(call({"city": "Paris", "day": "Monday"})),
            "leaves out arguments of a tool call (message 2)",
        ),
        (
            template("pairs").split("{% else %}")[0].replace("key | tojson", "'x'")
            + "{% endif %}{% endfor %}{{- '<|im_end|>' }}{% endfor %}",
            errand(),
            "leaves out arguments of a tool call (message 2)",
        ),
        (
            template("object"),
            errand(call('{"city": "Paris"')),  # no JSON, so there is no other form
            "writes arguments of a tool call as a string of JSON (message 2)",
        ),
        (CHATML, errand(), "does not take the first 4 messages"),
        (
            template("object") + "{{ raise_exception('no tools') }}",
            errand(),
            "(no tools)",
        ),
    ],
)
def test_tools_that_a_template_does_not_write_are_told(
    source: str, document: Document, told: str
) -> None:
    for assistant_only in (True, False):
        why = reason(bytewise(source), document, assistant_only)
        assert told in why
        assert document.text[:10] in why


# Parts


@pytest.mark.parametrize(
    "content",
    [
        [{"type": "text", "text": "two "}, {"type": "text", "text": "parts"}],
        [{"text": "two "}, {"type": "input_text", "text": "parts"}],
        [{"type": "text", "text": ""}, {"type": "text", "text": "two parts"}],
    ],
)
def test_parts_reach_the_template(content: Any) -> None:
    document = Document.chat((Message("user", content), Message("assistant", "yes")))
    check(
        bytewise(PARTS),
        document,
        ("<|im_start|>user\ntwo parts<|im_end|>\n<|im_start|>assistant\n", False),
        ("yes<|im_end|>", True),
        ("\n", False),
    )


TWO = [{"type": "text", "text": "'one'"}, {"type": "text", "text": "two"}]


@pytest.mark.parametrize(
    ("source", "content", "told"),
    [
        (HEADERS, TWO, "writes the content as a list of Python (message 1)"),
        (HEADERS, ["one", "two"], "writes the content as a list of Python (message 1)"),
        (
            PARTS.replace("{{- part.text }}", "{{- part }}"),
            TWO,
            "writes a part of a content as a dictionary of Python (message 1)",
        ),
        (
            PARTS.replace("in message.content %}", "in message.content[:1] %}"),
            TWO,
            "leaves out a part (message 1)",
        ),
        (
            PARTS.replace("{{- part.text }}", ""),
            [{"type": "text", "text": "user"}],  # which is a word of the template
            "leaves out a part (message 1)",
        ),
        (PARTS, ["one", "two"], "leaves out a part (message 1)"),
        (CHATML, TWO, "does not take the first 2 messages"),
        (PARTS, [*TWO, {"type": "image"}], "has a part of type 'image' (message 1)"),
        (PARTS, [{"type": "input_audio", "input_audio": {}}], "type 'input_audio' (message 1)"),
        (PARTS, [{"type": "image_url", "image_url": {"url": "u"}}], "type 'image_url'"),
    ],
)
def test_parts_that_a_template_does_not_write_are_told(
    source: str, content: Any, told: str
) -> None:
    document = Document.chat((Message("user", content), Message("assistant", "yes")))
    assert told in reason(bytewise(source), document)


def test_other_fields_reach_the_template() -> None:
    source = PARTS.replace(
        "{{- '<|im_end|>", "{{- message.name }}{{ message.reasoning_content }}{{- '<|im_end|>"
    )
    document = Document.chat(
        (
            Message("user", "a", {"name": "Ann"}),
            Message("assistant", "b", {"reasoning_content": "hm", "weight": 1}),
        )
    )
    written = rendered(bytewise(source), document)
    assert written == "<|im_start|>user\naAnn<|im_end|>\n<|im_start|>assistant\nbhm<|im_end|>\n"


def test_thoughts_that_a_template_forgets_are_no_fault() -> None:
    source = FORGETS_THOUGHTS.replace("message.content %}", "message.content[0].text %}")
    turns = [("user", "a"), ("assistant", "<think>hm</think>b"), ("user", "c"), ("assistant", "d")]
    document = Document.chat(
        tuple(Message(role, [{"type": "text", "text": text}]) for role, text in turns)
    )
    written = rendered(bytewise(source), document)
    assert "hm" not in written
    assert "b<|im_end|>" in written


# The day, and templates that are no templates


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ('strftime_now("%d %b %Y")', "26 Jul 2024"),
        ("strftime_now('%Y-%m-%d %H:%M')", "2024-07-26 00:00"),
        ('strftime_now(format="%-d. %B, %A, 100%%d")', "26. July, Friday, 100%d"),
        ('("on " + strftime_now("%j")) | upper', "ON 208"),
        ("strftime_now('%Y') | int + 1", "2025"),
        ("strftime_now('today')", "today"),
    ],
)
def test_a_template_is_told_the_same_day_every_day(asked: str, told: str) -> None:
    before = "{%- if strftime_now is defined %}{% set today = " + asked + " %}{% endif %}"
    marked = CHATML.replace("message.content", "message.content + 'GEN'")
    for source in (
        before + "{{- today }}" + CHATML,
        f"  {{%- if true %}}{{{{- {asked} }}}}{{% endif %}}" + CHATML,
        before + "{%- generation %}{{- today }}{% endgeneration %}" + marked,
        {"default": before + "{{- today }}" + CHATML},
    ):
        assert rendered(bytewise(source), chat("user: a")).startswith(f"{told}<|im_start|>"), source
    encoder = Encoder.of(bytewise("{{ strftime_now('%F') }}"), False, day=OTHER)
    (other,) = encoded(encoder, chat("a: b"))
    assert bytewise(None).decode(other.ids) == "2025-01-02<end>"


@pytest.mark.parametrize("assistant_only", [True, False])
def test_template_that_asks_for_the_day_is_otherwise_as_it_was(assistant_only: bool) -> None:
    """Also where it begins with blanks or line breaks."""
    for first in ("", "\n", "\n\n  ", "  {% if true %}\n  x{% endif %}\n", "{# no #}\n"):
        with_day = bytewise(first + CHATML + "{% set y = strftime_now('%Y') %}")
        without = bytewise(first + CHATML)
        (one,), (other,) = (
            encoded(Encoder.of(tokenizer, assistant_only), chat("user: a", "assistant: b"))
            for tokenizer in (with_day, without)
        )
        assert one.ids.tolist() == other.ids.tolist()
        assert one.counted.tolist() == other.counted.tolist()


@pytest.mark.parametrize("source", ["{% if %}", "{{ a", "{% for x in y %}"])
def test_template_that_is_no_template_ends_it(source: str) -> None:
    with pytest.raises(DistillError, match="^the tokenizer's chat template cannot be used: .+"):
        Encoder.of(bytewise(source), False).encode([chat("user: a")])
