"""Standard output kept free of lines that a library prints below Python."""

import contextlib
import ctypes
import os
import sys
import threading
from collections.abc import Iterator

OUTPUT = 1
"""File descriptor of the standard output."""
_ONE_AT_A_TIME = threading.Lock()
"""The descriptor is the process's: two that redirect it must not restore it crosswise."""


@contextlib.contextmanager
def no_stray_lines() -> Iterator[None]:
    """Drop what compiled code prints inside.

    HiGHS prints some lines whatever its options say. Lines that Python prints meanwhile, as in
    other threads, still arrive; a process that is started meanwhile has no standard output.
    """
    with _ONE_AT_A_TIME, contextlib.ExitStack() as stack:
        kept = _duplicate()
        if kept is None:
            yield
            return
        stack.callback(os.close, kept)
        _flush()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        stack.callback(os.close, nowhere)
        if _is_output(sys.stdout):
            stack.enter_context(_printing_to(kept))
        stack.callback(os.dup2, kept, OUTPUT)
        stack.callback(_flush_compiled)  # its buffer would be written after the return
        os.dup2(nowhere, OUTPUT)
        yield


def _duplicate() -> int | None:
    """A second descriptor of the output; None where it is closed, and nothing can be printed."""
    try:
        return os.dup(OUTPUT)
    except OSError:
        return None


@contextlib.contextmanager
def _printing_to(descriptor: int) -> Iterator[None]:
    with (
        os.fdopen(
            descriptor, "w", encoding=sys.stdout.encoding, buffering=1, closefd=False
        ) as stream,
        contextlib.redirect_stdout(stream),
    ):
        yield


def _is_output(stream: object) -> bool:
    try:
        return stream.fileno() == OUTPUT  # type: ignore[attr-defined, no-any-return]
    except (AttributeError, OSError, ValueError):  # replaced or closed
        return False


def _flush() -> None:
    with contextlib.suppress(AttributeError, OSError, ValueError):
        sys.stdout.flush()
    _flush_compiled()


def _flush_compiled() -> None:
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).fflush(None)
