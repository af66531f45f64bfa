"""Search for the best student of a teacher inside a budget.

    python experiments/run_search.py --teacher DIR --corpus FILE --budget.parameters 0.5

Exit status: 0 finished, 1 trials keep failing, 2 something given cannot be used, 130 Ctrl-C,
143 SIGTERM. Started again with the same study, it goes on from the database.
"""

import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("DATASETS_VERBOSITY", "critical")

from experiments.command import DISK_FAULTS, parse


def main(arguments: list[str] | None = None) -> int:
    from distill.errors import DistillError
    from pruning.errors import PruningError
    from search.config import SearchConfig
    from search.errors import SearchError, SearchStopped

    workspace = Path("runs/espalier")
    try:
        config = parse(SearchConfig, __doc__, arguments)
        workspace = config.workspace
        from search.run import run_search

        run_search(config)
    except (SearchError, PruningError, DistillError) as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    except SearchStopped as problem:
        print(f"stopped: {problem}", file=sys.stderr)
        return 1
    except OSError as problem:
        if problem.errno not in DISK_FAULTS:
            raise
        print(f"stopped: {problem}; mend that, then {resume_hint(workspace)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as interruption:
        print(f"interrupted: {resume_hint(workspace)}", file=sys.stderr)
        return 128 + getattr(interruption, "signum", signal.SIGINT)
    return 0


def resume_hint(workspace: Path) -> str:
    return f"start the same command again to go on; everything is kept in {workspace} and the study"


if __name__ == "__main__":
    sys.exit(main())
