"""Errors of all packages: the text of each says the remedy, its class the exit status."""

MOST_LETTERS = 200
"""Of another library's reason: it is quoted inside a sentence."""


class EspalierError(ValueError):
    """The user's mistake: nothing was started (exit status 2)."""


class PruningError(EspalierError):
    """The model, the checkpoint or the architecture asked for cannot be used as given."""


class DistillError(EspalierError):
    """The corpus, the targets or the settings given cannot be used."""


class OutOfMemory(DistillError):
    """A forward pass does not fit the memory of its device."""


class SearchError(EspalierError):
    """A setting of a study or a command cannot be used."""


class EspalierStopped(RuntimeError):
    """Work that cannot go on for a reason that is not the user's input (exit status 1)."""


class SearchStopped(EspalierStopped):
    """The search cannot go on, since trials keep failing or a service is gone."""


class TrainingDiverged(EspalierStopped):
    """The loss became NaN or infinite; the message says at which step."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM.

    Attributes:
        signum: Number of the signal, which gives the exit status.
    """

    def __init__(self, signum: int):
        super().__init__(signum)
        self.signum = signum


def require(condition: bool, text: str) -> None:
    """Raises SearchError with `text` where `condition` does not hold."""
    if not condition:
        raise SearchError(text)


def reason_of(problem: BaseException) -> str:
    """The first line of another library's message, or the name of its exception.

    With the next one where it only announces it.
    """
    lines = [" ".join(line.split()) for line in str(problem).splitlines() if line.strip()]
    text = lines[0] if lines else type(problem).__name__
    if isinstance(problem, KeyError):  # whose message is the key alone
        text = f"unknown key {text}"
    if text.endswith(":") and len(lines) > 1:
        text = f"{text} {lines[1]}"
    return text if len(text) <= MOST_LETTERS else text[: MOST_LETTERS - 3] + "..."
