"""Cut one student out of a teacher, and measure it before any training.

    python experiments/run_prune.py --teacher DIR --corpus FILE --layers 24 --hidden 3072 \
        --heads 32 --ffn 9216 --output student
    python experiments/run_prune.py --teacher DIR --corpus FILE --budget.parameters 0.5 \
        --shape uniform --output student
    python experiments/run_prune.py --explain llama

Writes an ordinary Hugging Face checkpoint with the teacher's tokenizer. Exit status: 0 written, 1
the disk fails, 2 something given cannot be used, 130 Ctrl-C, 143 SIGTERM; stopped early, it leaves
nothing behind.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from experiments.command import exit_status, parse, work_shown


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit status."""

    def work() -> None:
        from experiments.prune.config import config_class

        kind = config_class(sys.argv[1:] if arguments is None else arguments)
        config = parse(kind, arguments, description=__doc__)
        cuts = config.explain is None and not config.plan
        named = {"corpus": config.corpus, "teacher": config.teacher} if cuts else {}
        with work_shown(cuts, **named):
            from common.signals import interruptible
            from experiments.prune.session import run_prune

            with interruptible():
                run_prune(config)

    return exit_status(work, lambda: "nothing was written")


if __name__ == "__main__":
    sys.exit(main())
