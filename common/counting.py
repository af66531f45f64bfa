"""Numbers of things in words."""


def counted(number: int, noun: str) -> str:
    """A number with its noun, whose plural ends with an s."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
