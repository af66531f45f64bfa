"""Hold models side by side: on tasks, on a text, and by their speed and memory on this device.

    python experiments/run_evaluate.py --models teacher best --tasks hellaswag arc_easy
    python experiments/run_evaluate.py --models teacher best other --corpus my-text.jsonl.gz

The others are compared with the first, paired on the same questions and pieces of text. Writes a
table, evaluation.json, evaluation.csv and evaluation.html into --output; what is measured there is
not measured again. Exit status: 0 done, 1 the disk fails, 2 something given cannot be used, 130
Ctrl-C, 143 SIGTERM.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from experiments.command import exit_status, parse, work_shown


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit status."""

    def work() -> None:
        from experiments.evaluation.config import EvaluateConfig

        config = parse(EvaluateConfig, arguments, description=__doc__)
        given = {"models": config.models, "reference": config.reference}
        with work_shown(corpus=config.corpus, **given):
            from common.signals import interruptible
            from experiments.evaluation.session import run_evaluate

            with interruptible():
                run_evaluate(config)

    return exit_status(work, lambda: "what is measured stays; the same command goes on")


if __name__ == "__main__":
    sys.exit(main())
