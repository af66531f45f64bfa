"""The `espalier` command: the programs of the project under one name.

    espalier search --teacher DIR --corpus FILE --budget.parameters 0.5
    espalier prune --teacher DIR --corpus FILE --ffn 9216 --output student
    espalier distill --teacher DIR --student DIR --corpus FILE --output DIR
    espalier export --student DIR --form padded --output DIR
    espalier dashboard --storage URL
    espalier report --storage URL --study NAME
    espalier push DIR --repo user/name
    espalier evaluate --models DIR DIR --tasks hellaswag arc_easy

`espalier search --help` shows the options; exit statuses are those of the program.
"""

import difflib
import sys
from importlib import import_module

from common.version import installed_version

PROGRAMS = {
    "search": "experiments.run_search",
    "prune": "experiments.run_prune",
    "distill": "experiments.run_distill",
    "export": "experiments.run_export",
    "dashboard": "experiments.run_dashboard",
    "report": "experiments.run_report",
    "push": "experiments.run_push",
    "evaluate": "experiments.run_evaluate",
}
"""Name of a program -> its module, imported only when it is run."""


def main(arguments: list[str] | None = None) -> int:
    """Run the program that the first argument names with the others; returns its exit status."""
    given = sys.argv[1:] if arguments is None else arguments
    name, *rest = given or ["--help"]
    if name in ("-h", "--help"):
        print(__doc__)
        return 0
    if name == "--version":
        print(f"espalier {installed_version()}")
        return 0
    if name not in PROGRAMS:
        near = difflib.get_close_matches(name, PROGRAMS, 1)
        meant = f"; did you mean {near[0]}?" if near else ""
        names = ", ".join(PROGRAMS)
        print(f"error: {name!r} is no program of espalier; give {names}{meant}", file=sys.stderr)
        return 2
    sys.argv = [f"espalier {name}", *rest]  # whose first word begins the usage lines
    status: int = import_module(PROGRAMS[name]).main(rest)
    return status


if __name__ == "__main__":
    sys.exit(main())
