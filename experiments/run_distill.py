"""Distil a student from a teacher, both of them models that you have.

    python experiments/run_distill.py --teacher DIR --student DIR --corpus FILE --output DIR
    python experiments/run_distill.py --teacher DIR --student runs/mine:12 --corpus FILE \
        --output DIR --workers.count 8

Started again with the same output, it goes on from its last checkpoint, with any number of workers.
Exit status: 0 finished, 1 the loss diverged, workers kept being lost or the disk fails, 2 something
given cannot be used, 130 Ctrl-C, 143 SIGTERM.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from experiments.command import exit_status, parse, work_shown


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit status."""

    def work() -> None:
        from experiments.distill.config import DistillConfig

        config = parse(DistillConfig, arguments, description=__doc__)
        models = {"teacher": config.teacher, "student": config.student}
        with work_shown(not config.plan, corpus=config.corpus, **models):
            from common.signals import interruptible
            from experiments.distill.session import run_distill

            with interruptible():
                run_distill(config)

    return exit_status(work, lambda: "start the same command again to go on")


if __name__ == "__main__":
    sys.exit(main())
