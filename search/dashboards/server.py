"""optuna-dashboard on a study, served by this process, so that the URL of its database stays here.

The page shows and takes notes. What else it offers, such as to delete a study or to end a trial, is
refused: it asks nobody for a password, and a click must not end a search.
"""

import contextlib
import logging
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from optuna.artifacts import FileSystemArtifactStore
from optuna.storages import RDBStorage

from search.dashboards.page_storage import PageStorage

NOTE = re.compile(r"/api/studies/\d+(/\d+)?/note")
"""What may be written: the note of a study or a trial."""
REFUSED = (
    b'{"reason": "This page shows the study and takes notes. Use espalier search to change it, and '
    b'optuna to delete it."}'
)


class _Server(ThreadingMixIn, WSGIServer):
    """Answers while a slow figure is drawn for another."""

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True


class _Silent(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Requests are not worth a line."""


@contextlib.contextmanager
def optuna_page(
    storage: RDBStorage, host: str, *, port: int, artifacts: Path | None = None
) -> Iterator[None]:
    """The page of all studies in a database, as long as the context lasts.

    `artifacts` is the folder of files that studies in it have.
    """
    import optuna_dashboard  # slow: brings scikit-learn, and most studies show no dashboard

    logging.getLogger("optuna_dashboard").setLevel(logging.CRITICAL)  # the browser says it
    store = None
    if artifacts is not None:
        store = FileSystemArtifactStore(str(artifacts))
    page = optuna_dashboard.wsgi(PageStorage(storage), artifact_store=store)
    server = make_server(host, port, shown_only(page), server_class=_Server, handler_class=_Silent)
    thread = threading.Thread(target=server.serve_forever, daemon=True, name="dashboard")
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def shown_only(page: Callable[..., Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
    """The WSGI application without what changes a study; notes are taken."""

    def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ.get("PATH_INFO", "")
        reads = method in ("GET", "HEAD")
        if reads or (method == "PUT" and NOTE.fullmatch(path.rstrip("/"))):
            return page(environ, start_response)
        start_response("403 Forbidden", [("Content-Type", "application/json")])
        return [REFUSED]

    return application
