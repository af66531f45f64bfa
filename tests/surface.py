"""Names that users hold on to, as they are recorded in tests/data/surface, one a line."""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import optuna

RECORDED = Path(__file__).with_name("data") / "surface"
OF_OTHERS = ("ray", "ray-errors.log", ".lock")
"""In a workspace, by names that Ray and filelock choose."""
SELDOM = ("baselines",)
"""In a workspace, where a baseline is better than the winner: figures of processors differ."""
OF_TRANSFORMERS = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
)
PATTERNS = {
    re.compile(r"[0-9a-f]{16}"): "*",
    re.compile(r"(?<=/)\d{5}(?=/)"): "*",
    re.compile(r"(?<=^artifacts/)[0-9a-f-]{36}"): "*",
    re.compile(r"(?<=tfevents)\..*"): "*",
    re.compile(r"L\d+[- ]H\d+[- ]A\d+[-/]\d+[- ]F\d+"): "SHAPE",
}
"""What differs from study to study."""


def require_recorded(name: str, found: Iterable[str]) -> None:
    """Have the names be those in the file `name`.txt; the failure says which is gone or new."""
    path, now = RECORDED / f"{name}.txt", set(found)
    before = set(path.read_text("utf-8").splitlines()) if path.exists() else set()
    gone = [f"gone: {line}" for line in sorted(before - now)]
    new = [f"new: {line}" for line in sorted(now - before)]
    assert not gone + new, "\n".join([f"not as in {path.name}:", *gone, *new])


def files_of(directory: Path, depth: int) -> Iterator[str]:
    """Patterns of the files below a directory, and names in those of JSON, `depth` levels deep."""
    for path in directory.rglob("*"):
        name = path.relative_to(directory).as_posix()
        if not path.is_file() or name.split("/")[0] in (*OF_OTHERS, *SELDOM):
            continue
        yield _pattern(name)
        if path.suffix == ".json" and path.name not in OF_TRANSFORMERS:
            keys = _keys(json.loads(path.read_text("utf-8")), depth)
            yield from (_pattern(f"{name}: {key}") for key in keys)


def attributes_of(workspace: Path, study: str) -> Iterator[str]:
    """Attributes of a study and its trials."""
    found = optuna.load_study(study_name=study, storage=f"sqlite:///{workspace / 'study.db'}")
    yield from (f"study: {re.sub('^driver:.*', 'driver:*', name)}" for name in found.user_attrs)
    for trial in found.get_trials(deepcopy=False):
        yield from (f"trial: {key}" for key in _keys(trial.user_attrs, 2))


def _pattern(name: str) -> str:
    for pattern, general in PATTERNS.items():
        name = pattern.sub(general, name)
    return name


def _keys(value: Any, depth: int) -> Iterator[str]:
    """Names in what JSON holds, those inside after a dot."""
    if isinstance(value, list):
        for each in value:
            yield from _keys(each, depth)
    elif isinstance(value, dict) and depth:
        for name, inner in value.items():
            yield name
            yield from (f"{name}.{key}" for key in _keys(inner, depth - 1))
