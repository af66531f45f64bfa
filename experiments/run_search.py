"""Search for the best student of a teacher inside a budget.

    python experiments/run_search.py --teacher DIR --corpus FILE --budget.parameters 0.5

Exit status: 0 finished, 1 trials keep failing, 2 something given cannot be used, 130 Ctrl-C,
143 SIGTERM. Started again with the same study, it goes on from the database.
"""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from experiments.command import exit_status, parse, work_shown


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit status."""
    workspace, started = Path("runs/espalier"), time.monotonic()

    def work() -> None:
        nonlocal workspace
        from search.config import SearchConfig

        config = parse(SearchConfig, arguments, description=__doc__)
        workspace = config.workspace
        with work_shown(not config.plan, corpus=config.corpus, teacher=config.teacher):
            from search.run import run_search

            run_search(config, started=started)

    return exit_status(work, lambda: resume_hint(workspace))


def resume_hint(workspace: Path) -> str:
    """The line that ends a search that was interrupted."""
    if not workspace.exists():
        return "nothing was begun"
    return f"start the same command again to go on; everything is kept in {workspace} and the study"


if __name__ == "__main__":
    sys.exit(main())
