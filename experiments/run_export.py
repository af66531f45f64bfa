"""Write a copy of a student: of one whose layers differ, in a form that other software reads, or
of one of a multimodal teacher, put back into it.

    python experiments/run_export.py --student best --form padded --output best-padded
    python experiments/run_export.py --student best --form decilm --output best-decilm
    python experiments/run_export.py --student best --form multimodal --multimodal DIR --output both

The copy computes the same, which is checked. Exit status: 0 written, 1 the disk fails, 2 something
given cannot be used, 130 Ctrl-C, 143 SIGTERM; stopped early, it leaves nothing behind.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from experiments.command import exit_status, parse, work_shown


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit status."""

    def work() -> None:
        from experiments.export.config import ExportConfig

        config = parse(ExportConfig, arguments, description=__doc__)
        with work_shown(student=config.student, multimodal=config.multimodal):
            from common.signals import interruptible
            from experiments.export.session import run_export

            with interruptible():
                run_export(config)

    return exit_status(work, lambda: "nothing was written")


if __name__ == "__main__":
    sys.exit(main())
