"""Distil a student from a teacher, both of them models that you have.

    python experiments/run_distill.py --teacher DIR --student DIR --corpus FILE --output DIR
    python experiments/run_distill.py --teacher DIR --student runs/mine:12 --corpus FILE \
        --output DIR --workers.count 8

Started again with the same output, it goes on from its last checkpoint, with any number of workers.
Exit status: 0 finished, 1 the loss diverged, workers kept being lost or the disk fails, 2 something
given cannot be used, 130 Ctrl-C, 143 SIGTERM.
"""

import os
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("DATASETS_VERBOSITY", "critical")

from experiments.command import DISK_FAULTS, parse


def main(arguments: list[str] | None = None) -> int:
    from transformers.utils import logging

    from distill.errors import DistillError, TrainingDiverged
    from pruning.errors import PruningError
    from search.distill_config import DistillConfig
    from search.errors import SearchError, SearchStopped
    from search.signals import interruptible

    started = time.monotonic()

    def say(text: str) -> None:
        minutes, seconds = divmod(int(time.monotonic() - started), 60)
        print(f"[{minutes:02}:{seconds:02}] {text}", flush=True)

    try:
        config = parse(DistillConfig, __doc__, arguments)
        logging.disable_progress_bar()
        from search.distill_session import run_distill

        with interruptible():
            run_distill(config, say)
    except (SearchError, PruningError, DistillError) as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    except (SearchStopped, TrainingDiverged) as problem:
        print(f"stopped: {problem}", file=sys.stderr)
        return 1
    except OSError as problem:
        if problem.errno not in DISK_FAULTS:
            raise
        print(f"stopped: {problem}; mend that, then start the same command again", file=sys.stderr)
        return 1
    except KeyboardInterrupt as interruption:
        print("interrupted: start the same command again to go on", file=sys.stderr)
        return 128 + getattr(interruption, "signum", signal.SIGINT)
    return 0


if __name__ == "__main__":
    sys.exit(main())
