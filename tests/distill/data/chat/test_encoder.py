"""Which tokens a chat becomes, and which of them are the assistant's, for the kinds of template."""

import re
from typing import Any

import numpy as np
import pytest
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

from distill import DistillError, Document
from distill.data.chat.encoder import Encoder, tokens_within
from tests.distill.data.bytewise import bytewise, chat, decoded, encoded, reason

CHATML = """\
{%- if messages[0]['role'] != 'system' %}
    {{- '<|im_start|>system\\nBe kind.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
HEADERS = """\
{%- for message in messages %}
    {%- if loop.first %}{{- bos_token }}{% endif %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
    {{- message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""
MARKED = """\
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' }}
    {%- if message.role == 'assistant' %}
        {%- generation %}{{- message.content + '<|im_end|>' }}{% endgeneration %}
    {%- else %}
        {{- message.content + '<|im_end|>' }}
    {%- endif %}
    {{- '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{% endif %}
"""
FORGETS_THOUGHTS = """\
{%- for message in messages %}
    {%- set content = message.content %}
    {%- if not loop.last %}{% set content = content.split('</think>')[-1].strip() %}{% endif %}
    {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{% endif %}
"""
EMPTY_THOUGHT_LAST = """\
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' }}
    {%- if loop.last and message.role == 'assistant' %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
    {{- message.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{% endif %}
"""
WITHOUT_PROMPT = """\
{{- bos_token }}
{%- for message in messages %}
    {%- if (message.role == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('roles must alternate user/assistant') }}
    {%- endif %}
    {%- if message.role == 'user' %}{{- '[INST] ' + message.content + ' [/INST]' }}
    {%- else %}{{- ' ' + message.content + eos_token }}{% endif %}
{%- endfor %}
"""
OPEN_TURNS = """\
{%- for turn in messages %}{{- turn.role | upper + ': ' + turn.content + '\\n' }}{% endfor %}
{%- if add_generation_prompt %}{{- 'ASSISTANT: ' }}{% endif %}
"""


def check(
    tokenizer: PreTrainedTokenizerFast, document: Document, *pieces: tuple[str, bool]
) -> None:
    """The document is these pieces, token for token, and the ones marked True count."""
    parts = [(tokenizer(text, add_special_tokens=False).input_ids, is_) for text, is_ in pieces]
    (found,) = encoded(Encoder.of(tokenizer, assistant_only=True), document)
    assert found.ids.tolist() == [token for ids, _ in parts for token in ids]
    assert found.counted.tolist() == [is_ for ids, is_ in parts for _ in ids]


TALK = ("user: hi", "assistant: hello ", "user: and?", "assistant: no")


def test_chatml_counts_content_and_end_of_turn_but_not_the_break_after_it() -> None:
    check(
        bytewise(CHATML),
        chat(*TALK),
        ("<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n", False),
        ("<|im_start|>assistant\n", False),
        ("hello <|im_end|>", True),
        ("\n<|im_start|>user\nand?<|im_end|>\n<|im_start|>assistant\n", False),
        ("no<|im_end|>", True),
        ("\n", False),
    )


def test_system_turn_empty_answer_and_a_chat_that_ends_with_the_user() -> None:
    check(
        bytewise(CHATML),
        chat("system: S", "user: a", "assistant: ", "user: assistant\n"),
        ("<|im_start|>system\nS<|im_end|>\n<|im_start|>user\na<|im_end|>\n", False),
        ("<|im_start|>assistant\n", False),
        ("<|im_end|>", True),
        ("\n<|im_start|>user\nassistant\n<|im_end|>\n", False),
    )


def test_header_template_has_one_begin_token_and_no_other_end() -> None:
    header = "<|start_header_id|>{}<|end_header_id|>\n\n"
    check(
        bytewise(HEADERS),
        chat("system: S", *TALK),
        ("<s>" + header.format("system") + "S<|eot_id|>", False),
        (header.format("user") + "hi<|eot_id|>" + header.format("assistant"), False),
        ("hello<|eot_id|>", True),
        (header.format("user") + "and?<|eot_id|>" + header.format("assistant"), False),
        ("no<|eot_id|>", True),
    )


def test_marked_template_counts_what_it_marks() -> None:
    tokenizer = bytewise(MARKED)
    document = chat(*TALK)
    check(
        tokenizer,
        document,
        ("<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n", False),
        ("hello <|im_end|>", True),
        ("\n<|im_start|>user\nand?<|im_end|>\n<|im_start|>assistant\n", False),
        ("no<|im_end|>", True),
        ("\n", False),
    )
    turns = document.messages or ()
    messages: Any = [{"role": turn.role, "content": turn.content} for turn in turns]
    theirs: Any = tokenizer.apply_chat_template(
        messages, return_dict=True, return_assistant_tokens_mask=True
    )
    (ours,) = encoded(Encoder.of(tokenizer, True), document)
    assert ours.ids.tolist() == theirs["input_ids"]
    assert ours.counted.tolist() == [bool(mask) for mask in theirs["assistant_masks"]]


def test_marks_decide_even_where_prefixes_would_not_hold() -> None:
    template = FORGETS_THOUGHTS.replace(
        "{{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>\\n' }}",
        "{{- '<|im_start|>' + message.role + '\\n' }}{% generation %}{{- content }}"
        "{% endgeneration %}{{- '<|im_end|>\\n' }}",
    )
    check(
        bytewise(template),
        chat("assistant: <think>x</think>b "),
        ("<|im_start|>assistant\n", False),
        ("<think>x</think>b ", True),  # a blank at the end, of which no offsets speak
        ("<|im_end|>\n", False),
    )


def test_template_that_rewrites_earlier_turns_is_refused_where_it_did() -> None:
    tokenizer = bytewise(FORGETS_THOUGHTS)
    thought = "<think>hm</think>\n\n"
    rewritten = chat("user: a", f"assistant: {thought}b", "user: c", "assistant: d")
    why = reason(tokenizer, rewritten)
    assert re.search(r"message 2 .*'a'.*generation.*--assistant_only", why)
    (whole,) = encoded(Encoder.of(tokenizer, False), rewritten)
    assert whole.counted.all()
    check(
        tokenizer,
        chat("user: a", f"assistant: {thought}b"),
        ("<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n", False),
        (f"{thought}b<|im_end|>", True),
        ("\n", False),
    )
    forgotten_question = chat("user: a</think>b", "assistant: c")
    assert "message 2 " in reason(tokenizer, forgotten_question)


def test_template_that_only_strips_blanks_from_earlier_turns_is_understood() -> None:
    check(
        bytewise(FORGETS_THOUGHTS),
        chat("user: a", "assistant:   b ", "user: c", "assistant: d "),
        ("<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n", False),
        ("b<|im_end|>", True),
        ("\n<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\n", False),
        ("d <|im_end|>", True),
        ("\n", False),
    )


def test_template_that_only_adds_to_the_last_turn_is_understood() -> None:
    check(
        bytewise(EMPTY_THOUGHT_LAST),
        chat("user: a", "assistant: b", "user: c", "assistant: d"),
        ("<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n", False),
        ("b<|im_end|>", True),
        ("\n<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\n", False),
        ("<think>\n\n</think>\n\nd<|im_end|>", True),
        ("\n", False),
    )


@pytest.mark.parametrize("answer", ["hello", "I", "", "end>"])
def test_template_without_a_generation_prompt(answer: str) -> None:
    check(
        bytewise(WITHOUT_PROMPT),
        chat("user: hi", f"assistant: {answer}", "user: I?", "assistant: no"),
        ("<s>[INST] hi [/INST] ", False),
        (f"{answer}<end>", True),
        ("[INST] I? [/INST] ", False),
        ("no<end>", True),
    )


def test_header_that_no_generation_prompt_shows_is_not_the_assistants() -> None:
    check(
        bytewise(OPEN_TURNS.split("\n")[0]),
        chat("user: a", "assistant: A", "user: b"),
        ("USER: a\nASSISTANT: ", False),
        ("A\n", True),
        ("USER: b\n", False),
        ("<end>", False),
    )


def test_turns_that_nothing_ends_end_at_the_break_and_the_chat_with_an_end_of_text() -> None:
    check(
        bytewise(OPEN_TURNS),
        chat("user: a", "assistant: b"),
        ("USER: a\nASSISTANT: ", False),
        ("b\n<end>", True),
    )


def test_texts_count_wholly_between_chats() -> None:
    tokenizer = bytewise(CHATML)
    check(tokenizer, Document("name", "a <|im_end|>"), ("<s>a <|im_end|><end>", True))
    documents = [chat(*TALK), Document("name", "plain"), chat("user: x", "assistant: y")]
    encoder = Encoder.of(tokenizer, True)
    together = encoded(encoder, *documents)
    for document, row in zip(documents, together, strict=True):
        (alone,) = encoded(encoder, document)
        assert alone.ids.tolist() == row.ids.tolist()
        assert alone.counted.tolist() == row.counted.tolist()


def test_token_across_the_border_of_a_turn_is_the_assistants() -> None:
    tokenizer = bytewise(CHATML, merges=[("Ċ", "Ċ"), ("Ġ", "Ġ")])
    (found,) = encoded(Encoder.of(tokenizer, True), chat("user: a", "assistant: \nb  "))
    counted = [t for t, is_ in zip(found.ids, found.counted, strict=True) if is_]
    assert tokenizer.convert_ids_to_tokens(counted) == ["ĊĊ", "b", "ĠĠ", "<|im_end|>"]


def test_tokens_within_spans() -> None:
    # a character of two tokens (2-3), a blank without width (ends at 5), a gap (6-7)
    offsets = [(0, 2), (2, 3), (2, 3), (5, 5), (5, 6), (7, 8)]
    assert tokens_within(offsets, [(2, 3)]).tolist() == [False, True, True, False, False, False]
    assert tokens_within(offsets, [(3, 5)]).tolist() == [False, False, False, True, False, False]
    assert tokens_within(offsets, [(5, 6)]).tolist() == [False, False, False, False, True, False]
    assert tokens_within(offsets, [(0, 1), (7, 8)]).tolist() == [True, *[False] * 4, True]
    assert tokens_within(offsets, []).tolist() == [False] * 6
    assert tokens_within([], [(0, 1)]).tolist() == []


def test_slow_tokenizer_is_counted_by_prefixes() -> None:
    tokenizer = ByT5Tokenizer(extra_ids=0, additional_special_tokens=["<|im_start|>", "<|im_end|>"])
    tokenizer.chat_template = CHATML
    assert not tokenizer.is_fast
    (slow,) = encoded(Encoder.of(tokenizer, True), chat(*TALK))
    spoken = decoded(tokenizer, slow.ids[slow.counted])
    assert spoken.replace(" ", "") == "hello<|im_end|>no<|im_end|>"
    assert np.flatnonzero(np.diff(slow.counted.astype(int))).size == 4


def test_without_weights_chats_are_whole_and_no_offsets_are_needed() -> None:
    tokenizer = bytewise(FORGETS_THOUGHTS)
    (found,) = encoded(Encoder.of(tokenizer, False), chat("assistant: b"))
    assert tokenizer.decode(found.ids) == "<|im_start|>assistant\nb<|im_end|>\n"
    assert found.counted.all()


@pytest.mark.parametrize("assistant_only", [True, False])
def test_tokenizer_without_a_template(assistant_only: bool) -> None:
    encoder = Encoder.of(bytewise(None), assistant_only)
    with pytest.raises(DistillError, match="has chats, but the tokenizer has no chat template"):
        encoder.encode([chat(*TALK)])
    several = bytewise({"rag": CHATML, "tool_use": CHATML})
    with pytest.raises(DistillError, match="no default"):
        Encoder.of(several, assistant_only).encode([chat(*TALK)])
    assert encoded(encoder, Document("name", "plain"))[0].counted.all()


@pytest.mark.parametrize("assistant_only", [True, False])
def test_chat_that_the_template_does_not_take_is_called_by_its_beginning(
    assistant_only: bool,
) -> None:
    document = chat("system: Some rules", "user: a")
    why = reason(bytewise(WITHOUT_PROMPT), document, assistant_only)
    assert re.search("2 messages of .*'Some rules'.*must alternate", why)


def test_chat_that_begins_with_the_assistant_needs_marks() -> None:
    why = reason(bytewise(CHATML), chat("assistant: Welcome", "user: a"))
    assert "'Welcome' begins with the assistant" in why
    check(
        bytewise(MARKED),
        chat("assistant: Welcome"),
        ("<|im_start|>assistant\n", False),
        ("Welcome<|im_end|>", True),
        ("\n", False),
    )
