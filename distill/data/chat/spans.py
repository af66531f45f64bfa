"""Spans of a chat in which the assistant speaks.

An assistant's turn is what follows the generation prompt, up to and with the token that ends the
turn; the line break that many templates put after that token is nothing a model generates.
"""

import re
from dataclasses import replace

from distill.data.chat.template import Chat, ChatTemplate, Span, UnusableChat

_MARKED = re.compile(r"\{%-?\s*generation\s*-?%\}")
_PROBE = "\ue000"
"""Of the private-use area, so no content begins with it."""
_REMEDY = (
    "give the tokenizer a template with {% generation %} markers, or leave out --assistant_only"
)


def assistant_spans(template: ChatTemplate, chat: Chat, text: str) -> tuple[str, list[Span]]:
    """The rendered chat, and where in it the assistant speaks; `text` is the chat as rendered.

    As the template marks it with {% generation %}; else from the chat rendered up to each turn.
    Raises UnusableChat where that does not show it.
    """
    if _MARKED.search(template.text(chat)):
        return template.render_marked(chat)
    spans = []
    for turn, message in enumerate(chat.turns):
        if message["role"] == "assistant":
            start = _start(template, chat, turn=turn, text=text)
            end = _end(template, chat, turn=turn, text=text, start=start)
            without_break = text[start:end].rstrip()
            if without_break.endswith(template.added):
                end = start + len(without_break)
            spans.append((start, end))
    return text, spans


def _start(template: ChatTemplate, chat: Chat, *, turn: int, text: str) -> int:
    """Where the assistant begins to speak: after the generation prompt."""
    if turn == 0:
        raise UnusableChat(
            f"{chat} begins with the assistant, before anything asks it to speak; {_REMEDY}"
        )
    earlier = chat.until(turn)
    before = template.render(earlier, prompted=True)
    if text.startswith(before) and before == template.render(earlier):
        # no generation prompt: whatever stands between the turns is not the assistant's either
        around, _ = _around(template, chat, turn)
        if text.startswith(around) or "tool_calls" not in chat.turns[turn]:
            before = around
    if not text.startswith(before):
        raise _rewritten(chat, turn)
    return len(before)


def _end(template: ChatTemplate, chat: Chat, *, turn: int, text: str, start: int) -> int:
    """Where the next turn begins."""
    upto = template.render(chat.until(turn + 1))
    if text.startswith(upto):
        return len(upto)
    # a template that writes its last turn otherwise (with an empty thought before it, say) may
    # still write content and ending of every turn alike
    _, ending = _around(template, chat, turn)
    content = chat.turns[turn].get("content")
    whole = content.strip() + ending if isinstance(content, str) else ""
    if not ending.strip() or not whole or not text.startswith(whole, start):
        raise _rewritten(chat, turn)
    return start + len(whole)


def _around(template: ChatTemplate, chat: Chat, turn: int) -> tuple[str, str]:
    """What the template writes before and after the content of a turn, if it is the last."""
    probe = {"role": chat.turns[turn]["role"], "content": _PROBE}
    before, _, after = template.render(replace(chat, turns=[*chat.turns[:turn], probe])).rpartition(
        _PROBE
    )
    return before, after


def _rewritten(chat: Chat, turn: int) -> UnusableChat:
    return UnusableChat(
        "the tokenizer's chat template writes a turn otherwise when other turns follow it (message "
        f"{turn + 1} of {chat}), so what the assistant says cannot be told apart; {_REMEDY}"
    )
