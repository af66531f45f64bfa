"""Tasks as the user names them: folders of task files, and names that lm-eval knows."""

from collections.abc import Sequence
from pathlib import Path

from common.errors import require

OF_A_PATH = ("/", ".", "~")
"""What a path may begin with; no task of lm-eval does."""


def names_of_tasks(given: str | Path | Sequence[str | Path] | None) -> list[str]:
    """Each of them, folders as paths are written; names may be joined by commas."""
    every = [given] if isinstance(given, str | Path) else given or []
    every = [
        part for each in every for part in ([each] if _is_folder(str(each)) else _apart(str(each)))
    ]
    return [str(Path(each)) if _is_folder(str(each)) else str(each) for each in every]


def check_task_names(names: Sequence[str]) -> None:
    """Raises SearchError for a path that is no folder, and for what is given twice.

    Whether lm-eval knows a name is found out where its tasks are loaded.
    """
    for name in names:
        require(bool(name.strip()), "--tasks has an empty name; give a folder or a task of lm-eval")
        a_path = name.startswith(OF_A_PATH) or "/" in name or Path(name).is_file()
        require(
            _is_folder(name) or not a_path,
            f"--tasks has {name}, which is no folder of task files",
        )
        require(names.count(name) == 1, f"--tasks has {name} twice; give it once")


def _apart(names: str) -> list[str]:
    return names.split(",")


def _is_folder(name: str) -> bool:
    return bool(name) and Path(name).expanduser().is_dir()
