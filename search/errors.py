"""What `search` raises; the text of each says the remedy."""


class SearchError(ValueError):
    """The user's mistake: nothing was started (exit status 2)."""


class SearchStopped(RuntimeError):
    """The search cannot go on for a reason that is not the user's input (exit status 1)."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM; carries the signal's number, which gives the exit status."""

    def __init__(self, signum: int):
        super().__init__(signum)
        self.signum = signum


def require(condition: bool, text: str) -> None:
    """Raises SearchError with `text` where `condition` does not hold."""
    if not condition:
        raise SearchError(text)
