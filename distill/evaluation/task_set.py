"""Task sets: tasks of lm-eval by their names, and folders of task files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from common.errors import DistillError
from common.fingerprint import fingerprint_files

DATA = "$data"
"""Stands in task files for a file of questions."""


@dataclass(frozen=True)
class TaskSet:
    """Tasks that are asked; nothing of them is read before it is asked for."""

    folders: tuple[Path, ...] = ()
    """Each holds a YAML file per task, of its name."""
    names: tuple[str, ...] = ()
    """Tasks, groups and tags that lm-eval knows."""

    @classmethod
    def of(cls, given: str | Path | Sequence[str | Path]) -> "TaskSet":
        """What is a folder is one; anything else is a name."""
        every = [given] if isinstance(given, str | Path) else list(given)
        paths = {each: Path(each).expanduser() for each in every}
        return cls(
            folders=tuple(path for path in paths.values() if path.is_dir()),
            names=tuple(str(each) for each, path in paths.items() if not path.is_dir()),
        )

    @property
    def files(self) -> list[Path]:
        """The task files, in the order of the folders and of their names."""
        return [file for folder in self.folders for file in sorted(folder.glob("*.yaml"))]

    @property
    def uses_data(self) -> bool:
        """Whether a task file wants a file of questions."""
        return any(DATA in file.read_text("utf-8") for file in self.files)

    @property
    def absolute(self) -> "TaskSet":
        """The same, wherever a process runs."""
        return TaskSet(tuple(folder.absolute() for folder in self.folders), self.names)

    @property
    def files_fingerprint(self) -> str:
        """Of the content of the task files."""
        return fingerprint_files(self.files)

    def check_files(self) -> list[str]:
        """The names of the tasks in the folders.

        Raises DistillError for a folder without task files, or with one that is none.
        """
        found: dict[str, Path] = {}
        for folder in self.folders:
            files = sorted(folder.glob("*.yaml"))
            if not files:
                raise DistillError(f"the folder of tasks {folder} has no task files (*.yaml)")
            for file in files:
                _check_file(file)
                if file.stem in found:
                    raise DistillError(
                        f"--tasks has two tasks {file.stem}, {found[file.stem]} and {file}; leave "
                        "one of them out"
                    )
                found[file.stem] = file
        return list(found)


def _check_file(file: Path) -> None:
    try:
        task = yaml.safe_load(file.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as problem:
        reason = str(problem).splitlines()[0]
        raise DistillError(f"the task file {file} is not YAML: {reason}") from problem
    if not isinstance(task, dict) or task.get("task") != file.stem:
        raise DistillError(f"the task file {file} must say 'task: {file.stem}', its own name")
