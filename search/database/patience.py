"""Patience with a database: which faults pass, how long they are waited for, what is said else.

SQLite names its faults by number (https://www.sqlite.org/rescode.html), database servers only by
what broke.
"""

import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from optuna.exceptions import StorageInternalError
from sqlalchemy.engine import URL
from sqlalchemy.exc import (
    DBAPIError,
    IntegrityError,
    InterfaceError,
    OperationalError,
    PendingRollbackError,
    ProgrammingError,
)

from common.errors import SearchStopped
from search.database.storage_url import shown, without_secrets

LOGGER = logging.getLogger(__name__)
PATIENCE_SECONDS = 60.0
"""How long a database may be busy or away while a study goes on."""
CLOSING_SECONDS = 5.0
"""The same after Ctrl-C or SIGTERM."""
NOTICE_SECONDS = 5.0
"""After which it is said that a database is waited for."""
LONGEST_PAUSE = 5.0
"""Seconds between two tries, at most."""
LOST = (OperationalError, InterfaceError, PendingRollbackError)
"""What a broken connection raises; the last where Optuna asks once more on the broken one."""
FAULTS = (StorageInternalError, DBAPIError, PendingRollbackError)
"""What calls to Optuna and SQLAlchemy raise for any fault of a database."""
OWN_MISTAKES = (IntegrityError, ProgrammingError)
"""What no state of a database excuses."""
BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL)
"""Another process holds a lock."""
UNREADABLE = (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)
"""Disks fail for good as well, but those of a network come back."""
BROKEN = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
"""The file is no database any more."""
MENDED = {
    sqlite3.SQLITE_FULL: "make room on its disk",
    sqlite3.SQLITE_READONLY: "make the file and its folder writable, and leave it in its place",
    sqlite3.SQLITE_PERM: "make the file and its folder writable",
}
"""What waiting does not mend, and the user can."""
LEAST_WAITED = 1.0
"""Seconds that are worth saying."""
T = TypeVar("T")


def never() -> bool:
    """A search that is never about to end."""
    return False


@dataclass
class Patience:
    """Waiting for a database that is busy or away; several threads may do so at once."""

    url: URL
    """Of the database."""
    closing: Callable[[], bool] = never
    """Whether the search is about to end, and should not keep the user waiting."""
    seconds: float = field(default_factory=lambda: PATIENCE_SECONDS)
    """How long is waited at most."""
    given_up: float | None = None
    """Seconds that the thread that made this has waited in vain; then everything is tried once."""
    _owner: int = field(default_factory=threading.get_ident)
    _told: bool = False

    def wait(self, call: Callable[[], T], opening: bool = False) -> T:
        """Result of `call`, which is tried again while a fault that passes stays.

        While a database is `opening`, only one that is busy is waited for: anything else is likely
        a wrong URL, and raised as it is. Raises SearchStopped for what stays, or cannot pass.
        """
        began, pause, told = time.monotonic(), 0.1, False
        try:
            while True:
                try:
                    result = call()
                except FAULTS as problem:
                    waited = time.monotonic() - began
                    cause = self._waited_for(problem, waited, opening=opening)
                    told = told or self._tell_of(cause, waited)
                else:
                    if told:
                        LOGGER.info(f"the database answers after {time.monotonic() - began:.0f} s")
                    return result
                time.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
        finally:
            if told:
                self._told = False

    def _waited_for(self, problem: Exception, waited: float, *, opening: bool) -> Exception:
        """The cause of a problem that may pass; raises what ends the waiting."""
        cause = cause_of(problem)
        if isinstance(cause, OWN_MISTAKES) or not isinstance(cause, FAULTS):
            raise problem
        if opening and code_of(cause) not in BUSY:
            raise problem
        if passes(cause) and not self._is_too_long(waited):
            return cause
        # Others that wait do so no longer; but a dashboard's or a lease's wait is not the end.
        if self.given_up is None and threading.get_ident() == self._owner:
            self.given_up = waited
        raise self.stopped(cause, waited) from None

    def _tell_of(self, cause: Exception, waited: float) -> bool:
        """Say that the database is waited for, unless it was said; whether it was now."""
        if waited < NOTICE_SECONDS or self._told:
            return False
        self._told = True
        LOGGER.info(f"{self._fault(cause)}; waiting up to {self.seconds:.0f} s for it")
        return True

    def _is_too_long(self, waited: float) -> bool:
        limit = min(self.seconds, CLOSING_SECONDS) if self.closing() else self.seconds
        return self.given_up is not None or waited >= limit

    def stopped(self, cause: Exception, waited: float) -> SearchStopped:
        """That the database cannot be used any more, why, and what to do."""
        fault, code = self._fault(cause), code_of(cause)
        kept, again = "what it recorded is kept", "start the same command again"
        waited = max(waited, self.given_up or 0.0)
        if waited >= LEAST_WAITED:
            fault += f", even after {waited:.0f} s"
        if code in BUSY:
            return SearchStopped(
                f"{fault}: a backup or a copy that is being made, a viewer, or another process "
                f"that writes to it; {kept}: {again} when that is done"
            )
        if code in BROKEN:
            return SearchStopped(
                f"{fault}; put a copy of it in its place, or choose another --storage"
            )
        if code in MENDED:
            return SearchStopped(f"{fault}; {kept}: {MENDED[code]}, and {again}")
        if passes(cause):
            return SearchStopped(f"{fault}; {kept}: {again} when it answers")
        return SearchStopped(f"{fault}; {kept}: mend the cause, and {again}")

    def _fault(self, cause: Exception) -> str:
        reason = reason_of(cause, self.url)
        code = code_of(cause)
        if code in BUSY:
            return f"the database file {self.url.database} is locked by another program ({reason})"
        if code is not None:
            return f"the database file {self.url.database} cannot be used: {reason}"
        address = shown(self.url.render_as_string(hide_password=False))
        if passes(cause):
            return f"the database {address} does not answer any more: {reason}"
        return f"the database {address} refuses what is written: {reason}"


def cause_of(problem: Exception) -> Exception:
    """Without Optuna's wrapping."""
    cause = problem.__cause__ if isinstance(problem, StorageInternalError) else problem
    return cause if isinstance(cause, Exception) else problem


def code_of(cause: Exception) -> int | None:
    """SQLite's number of a fault; None for other databases."""
    original = getattr(cause, "orig", None)
    if not isinstance(original, sqlite3.Error):
        return None
    return int(getattr(original, "sqlite_errorcode", sqlite3.SQLITE_ERROR)) & 0xFF


def passes(cause: Exception) -> bool:
    """Whether a fault may go by itself."""
    code = code_of(cause)
    if code is None:
        return isinstance(cause, LOST)
    return code in BUSY or code in UNREADABLE


def reason_of(problem: Exception, url: URL) -> str:
    """The innermost reason in one line, without passwords."""
    cause = getattr(problem, "orig", None) or problem.__cause__ or problem
    inner = getattr(cause, "orig", None) or cause
    words = [each for each in inner.args if isinstance(each, str)]  # a number before, of MySQL
    lines = (words[0] if words else str(inner)).strip().splitlines() or [type(inner).__name__]
    return without_secrets(lines[0].strip(), url)
