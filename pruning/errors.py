"""What `pruning` raises when a model or a shape cannot be pruned; the text says the remedy."""

MOST_LETTERS = 200
"""Of another library's reason: it is quoted inside a sentence."""


class PruningError(ValueError):
    """The model, the checkpoint or the architecture asked for cannot be used as given."""


def reason_of(problem: BaseException) -> str:
    """The first line of another library's message, or the name of its exception.

    With the next one where it only announces it.
    """
    lines = [" ".join(line.split()) for line in str(problem).splitlines() if line.strip()]
    text = lines[0] if lines else type(problem).__name__
    if text.endswith(":") and len(lines) > 1:
        text = f"{text} {lines[1]}"
    return text if len(text) <= MOST_LETTERS else text[: MOST_LETTERS - 3] + "..."
