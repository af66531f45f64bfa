"""optuna-dashboard on a study, as long as its driver runs."""

import contextlib
import logging
import threading
from collections.abc import Iterator
from wsgiref.simple_server import WSGIRequestHandler, make_server

from optuna.storages import BaseStorage

from search.cluster.cluster import LOCALHOST

LOGGER = logging.getLogger(__name__)


class _Silent(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Requests are not worth a line."""


@contextlib.contextmanager
def study_dashboard(storage: BaseStorage) -> Iterator[None]:
    """optuna-dashboard on the study, served from this process so that its URL stays here."""
    import optuna_dashboard  # slow: brings scikit-learn, and most studies show no dashboard

    logging.getLogger("optuna_dashboard").setLevel(logging.CRITICAL)  # the browser says it
    server = make_server(LOCALHOST, 0, optuna_dashboard.wsgi(storage), handler_class=_Silent)
    thread = threading.Thread(target=server.serve_forever, daemon=True, name="dashboard")
    thread.start()
    LOGGER.info(f"optuna-dashboard: http://{LOCALHOST}:{server.server_port}/dashboard")
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
