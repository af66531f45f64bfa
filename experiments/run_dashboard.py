"""Show the studies of a database in the browser, while they run and after.

    python experiments/run_dashboard.py --storage sqlite:///runs/demo/study.db
    python experiments/run_dashboard.py --workspace runs/demo

Exit status: 0 ended by Ctrl-C or SIGTERM, 2 something given cannot be used.
"""

import logging
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

from common.log import plain_lines
from experiments.command import exit_status, parse

LOGGER = logging.getLogger(__name__)


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit status."""

    def work() -> None:
        from experiments.dashboard.config import DashboardCommand

        command = parse(DashboardCommand, arguments, description=__doc__)
        with plain_lines():
            LOGGER.info("optuna-dashboard: opening the database")
            from experiments.dashboard.session import run_dashboard

            run_dashboard(command)

    return exit_status(work, lambda: "the studies go on as they were")


if __name__ == "__main__":
    sys.exit(main())
