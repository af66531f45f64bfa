"""Multiple-choice questions from held-out text: which of four lines really comes next."""

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from distill.data.chat.beginning import beginning_of
from distill.data.settings import AUTO

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CHOICES = 4
SHORTEST_LINE = 12
"""Characters that a line must have to be a choice; a bracket alone asks nothing."""
CONTEXT_LINES = 12
"""Lines before the one that is asked for."""


@dataclass(frozen=True)
class ContextLimit:
    """Most tokens of a context with a choice and all that a text begins with."""

    tokenizer: "PreTrainedTokenizerBase"
    """Makes tokens of them."""
    max_length: int
    """Tokens that the model reads."""
    bos: str = AUTO
    """How texts begin, as in `CorpusFrom`."""

    def fitted(self, context: list[str], choices: list[str]) -> list[str]:
        """The longest end of `context`, at least a line, that leaves room for every choice."""
        room = self.max_length - len(beginning_of(self.tokenizer, self.bos))
        for start in range(len(context) - 1):
            text = "".join(line + "\n" for line in context[start:])
            texts = [text + choice for choice in choices]
            rows = self.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
            if max(len(row) for row in rows) <= room:
                return context[start:]
        return context[-1:]


def write_next_line_questions(
    texts: list[str], path: Path, *, count: int, seed: int, limit: ContextLimit | None = None
) -> int:
    """Write up to `count` questions as JSON lines: a context, four lines, which one follows it.

    The wrong lines stand elsewhere in the same texts. With a `limit`, contexts lose lines from
    their start until they fit. Returns how many were written.
    """
    generator = random.Random(seed)
    lines = [[line for line in text.splitlines() if line.strip()] for text in texts]
    places = [
        (rows, at)
        for rows in lines
        for at in range(CONTEXT_LINES, len(rows))
        if len(rows[at].strip()) >= SHORTEST_LINE
    ]
    pool = sorted({rows[at] for rows, at in places})
    questions = []
    if len(pool) >= CHOICES:
        for rows, at in generator.sample(places, min(count, len(places))):
            others = generator.sample(pool, CHOICES)
            choices = [line for line in others if line != rows[at]][: CHOICES - 1]
            answer = generator.randrange(CHOICES)
            choices.insert(answer, rows[at])
            context = rows[at - CONTEXT_LINES : at]
            if limit is not None:
                context = limit.fitted(context, choices)
            text = "".join(line + "\n" for line in context)
            questions.append({"context": text, "choices": choices, "answer": answer})
    path.write_text("".join(json.dumps(question) + "\n" for question in questions))
    return len(questions)
