"""Loading of tasks by lm-eval: of files without a network, of its own names with their data sets.

Where the Hub cannot be reached, a data set comes from the local cache of `datasets`.
"""

import contextlib
import difflib
import io
import json
import logging
import string
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from common.errors import DistillError, reason_of
from common.fingerprint import fingerprint
from distill.evaluation.task_set import TaskSet

LOGGER = logging.getLogger(__name__)
FEWSHOT_SEED = 1234
"""lm-eval's own default."""
NEAR_NAMES = 3
"""Names that are offered for one that is none."""


def check_tasks(tasks: TaskSet) -> list[str]:
    """The names of all tasks, of groups and tags with those in them.

    Raises DistillError for a folder without task files or with one that is none, for a name that
    lm-eval does not know, and for a task whose data set cannot be loaded or that would run code
    that a model writes.
    """
    in_files, loaded = tasks.check_files(), _nothing()
    for name in tasks.names:
        LOGGER.info(f"tasks: loading {name}")
        with silent():
            _merge(loaded, _named([name]))
    for name in loaded["tasks"]:
        if name in in_files:
            raise DistillError(
                f"--tasks has two tasks {name}, lm-eval's own and one in a folder; leave one out"
            )
    return [*in_files, *loaded["tasks"], *loaded["groups"]]


def load_tasks(tasks: TaskSet, data: Path | None, scratch: Path) -> dict[str, Any]:
    """lm-eval's tasks and groups, as its `evaluate` takes them, with few-shot examples that are the
    same each time.

    Args:
        tasks: Which ones.
        data: File that `$data` stands for in task files.
        scratch: Empty directory for them and for their prepared data, kept while they are used.
    """
    named = _named(tasks.names)
    loaded = _of_files(tasks, data, scratch) if tasks.folders else _nothing()
    _merge(loaded, named)
    for task in loaded["tasks"].values():
        task.set_fewshot_seed(FEWSHOT_SEED)
        if task.get_config("num_fewshot") is None:
            task.set_config(key="num_fewshot", value=0)
    return loaded


def named_fingerprint(names: Sequence[str]) -> str:
    """Of what lm-eval's own tasks ask: their configurations and every question."""
    with silent():
        loaded = _named(names)["tasks"]
    parts = {
        name: [
            task.config.to_dict(),
            fingerprint([json.dumps(doc, sort_keys=True, default=str) for doc in task.eval_docs]),
        ]
        for name, task in loaded.items()
    }
    return fingerprint(parts)


def _merge(loaded: dict[str, Any], others: Mapping[str, Any]) -> None:
    for kind, known in loaded.items():
        known.update(others.get(kind, {}))


def _nothing() -> dict[str, Any]:
    return {"tasks": {}, "groups": {}, "group_map": {}}


def _of_files(tasks: TaskSet, data: Path | None, scratch: Path) -> dict[str, Any]:
    """The tasks of the folders; data sets that are prepared for them go to `scratch`."""
    from datasets import config
    from lm_eval.tasks import TaskManager

    names = []
    for file in tasks.files:
        text = string.Template(file.read_text("utf-8")).safe_substitute(data=str(data))
        (scratch / file.name).write_text(text, "utf-8")
        names.append(file.stem)
    kept, config.HF_DATASETS_CACHE = config.HF_DATASETS_CACHE, scratch
    try:
        loaded = TaskManager(include_path=scratch, include_defaults=False).load(names)
    finally:
        config.HF_DATASETS_CACHE = kept
    found: dict[str, Any] = _nothing() | dict(loaded)
    return found


def _named(names: Sequence[str]) -> dict[str, Any]:
    """lm-eval's own tasks. Raises DistillError where one cannot be had."""
    loaded: dict[str, Any] = _nothing()
    for name in names:
        found = _load_named(name)
        _merge(loaded, found)
        for task_name, task in found["tasks"].items():
            _check_kind(name, task_name, task)
    return loaded


def _load_named(name: str) -> Any:
    manager = _manager()
    if name not in manager.task_index:
        raise DistillError(
            f"--tasks has {name!r}, which is neither a folder of task files nor a task of lm-eval "
            f"{version('lm_eval')}{_meant(name, manager.all_tasks)}"
        )
    try:
        with _no_foreign_code():
            return manager.load([name])
    except Exception as problem:  # data sets raise whatever comes up
        raise DistillError(
            f"the task {name} of --tasks cannot be loaded: {reason_of(problem)}; its data set "
            "comes from the Hub, or from the cache of a machine that has loaded it before"
        ) from problem


@contextlib.contextmanager
def _no_foreign_code() -> Iterator[None]:
    """Inside, no metric is fetched from the Hub, where each is a program that would be run."""
    from evaluate import config

    kept, config.HF_EVALUATE_OFFLINE = config.HF_EVALUATE_OFFLINE, True
    try:
        yield
    finally:
        config.HF_EVALUATE_OFFLINE = kept


@cache
def _manager() -> Any:
    """lm-eval's index of its tasks, which takes seconds to read."""
    from lm_eval.tasks import TaskManager

    return TaskManager()


def _meant(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, NEAR_NAMES)
    return f"; did you mean {' or '.join(near)}?" if near else "; `lm-eval ls tasks` lists them"


def _check_kind(given: str, name: str, task: Any) -> None:
    """Raises DistillError for a task that runs code of a model, or that asks about pictures."""
    if getattr(task, "UNSAFE_CODE", False):
        raise DistillError(
            f"--tasks has {given}, and {name} runs code that the model writes; leave it out"
        )
    if getattr(task, "MULTIMODAL", False):
        raise DistillError(
            f"--tasks has {given}, and {name} asks about more than text; leave it out"
        )


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Without the log lines and progress bars of lm-eval."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    quiet = io.StringIO()
    try:
        with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
            yield
    finally:
        logger.setLevel(level)
