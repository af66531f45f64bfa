"""Search for the best student of a teacher inside a budget.

    python experiments/run_search.py --teacher DIR --corpus FILE --budget.parameters 0.5

Exit status: 0 finished, 1 trials keep failing, 2 something given cannot be used, 130 Ctrl-C,
143 SIGTERM. Started again with the same study, it goes on from the database.
"""

import errno
import os
import re
import signal
import sys
from pathlib import Path
from typing import NoReturn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("DATASETS_VERBOSITY", "critical")

from jsonargparse import ArgumentParser, set_parsing_settings

WRONG_TYPE = re.compile(r"""Parser key "(.+?)":;? Expected an? <class '(.+?)'>\. Got value: (.*)""")


DISK_FAULTS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)


class Parser(ArgumentParser):
    """One clear sentence for a wrong option, instead of the usage and a stack of reasons."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        lines = [line.strip(" -") for line in message.splitlines() if line.strip()]
        text = "; ".join(lines).replace(":; ", ": ")
        text = WRONG_TYPE.sub(r"--\1 is \3; it must be of type \2", text)
        print(f"error: {text} (see --help)", file=sys.stderr)
        raise SystemExit(2)


def main(arguments: list[str] | None = None) -> int:
    from distill.errors import DistillError
    from pruning.errors import PruningError
    from search.config import SearchConfig
    from search.errors import SearchError, SearchStopped

    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = Parser(description=__doc__, exit_on_error=True)
    parser.add_argument("--config", action="config", help="YAML file with any of the options below")
    parser.add_class_arguments(SearchConfig)
    workspace = Path("runs/espalier")
    try:
        values = vars(parser.instantiate(parser.parse_args(arguments)))
        values.pop("config")
        config = SearchConfig(**values)
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
