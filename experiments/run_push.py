"""Upload a student to the Hugging Face Hub, with its card.

    python experiments/run_push.py best --repo user/name --dry_run
    python experiments/run_push.py best --repo user/name

It is private unless --no_private is given. The token is that of HF_TOKEN or `hf auth login`. Exit
status: 0 uploaded, 1 the Hub fails, 2 something given cannot be used, 130 Ctrl-C, 143 SIGTERM; the
same command goes on after a failure.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

from experiments.command import exit_status, parse


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit status."""
    given = sys.argv[1:] if arguments is None else arguments

    def work() -> None:
        from experiments.push.config import PushConfig, with_folder

        config = parse(PushConfig, with_folder(given), description=__doc__)
        from common.signals import interruptible
        from experiments.push.session import run_push

        with interruptible():
            run_push(config)

    return exit_status(work, lambda: "start the same command again to go on")


if __name__ == "__main__":
    sys.exit(main())
