"""Write the report of a study from its database: at any time, from any machine that reaches it.

    python experiments/run_report.py --storage postgresql://USER@HOST/DATABASE --study NAME
    python experiments/run_report.py --workspace runs/demo

Exit status: 0 written, 1 the disk fails, 2 something given cannot be used, 130 Ctrl-C, 143 SIGTERM.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

from experiments.command import exit_status, parse


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit status."""

    def work() -> None:
        from experiments.report.config import ReportConfig

        config = parse(ReportConfig, arguments, description=__doc__)
        from common.signals import interruptible
        from experiments.report.session import run_report

        with interruptible():
            run_report(config)

    return exit_status(work, lambda: "start the same command again")


if __name__ == "__main__":
    sys.exit(main())
