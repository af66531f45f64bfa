"""Files and directories that appear whole or not at all, on disks with room for them.

All is written under a temporary name beside its place, flushed to the disk and renamed, so that a
reader sees the whole of it or what was there before, also after a power cut.
"""

import contextlib
import json
import os
import shutil
import stat
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any


def write_directory_atomically(target: Path, fill: Callable[[Path], None]) -> None:
    """Call `fill(directory)` on a fresh sibling of `target`, then put it in `target`'s place.

    Its files may be read and written by whom the umask lets.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = _sibling(target)
    try:
        fill(aside)
        _share(aside)
        _flush_all(aside)
        if target.exists():
            old = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.old")
            target.rename(old)
            aside.rename(target)
            shutil.rmtree(old, ignore_errors=True)
        else:
            aside.rename(target)
        _flush(target.parent)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


@contextlib.contextmanager
def fresh_directory(output: Path, *, error: type[Exception]) -> Iterator[Path]:
    """A directory that becomes `output` at the end, or vanishes on any exception.

    Raises `error` where `output` exists and is not empty.
    """
    output = require_fresh(output, error=error)
    made = [parent for parent in output.parents if not parent.exists()]
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        aside = _sibling(output)
    except OSError as problem:
        raise error(
            f"the output {output} cannot be made: {problem.strerror}; name another"
        ) from problem
    try:
        yield aside
        _flush_all(aside)
        aside.rename(output)
        _flush(output.parent)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        for parent in made:
            with contextlib.suppress(OSError):
                parent.rmdir()
        raise


def require_fresh(output: Path, *, error: type[Exception]) -> Path:
    """`output` without links. Raises `error` where it exists and is not empty."""
    output = output.resolve()
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise error(f"the output {output} exists and is not empty; name a new directory")
    return output


def write_file_atomically(target: Path, text: str) -> None:
    """Write `text` to `target`, so that a reader sees all of it or what was there before."""
    with replacing(target) as aside:
        aside.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """The path of a file to write, which takes the place of `target` at the end."""
    aside = target.with_name(f".{target.name}.tmp")
    yield aside
    _flush(aside)
    aside.replace(target)


def append_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Add rows to a file that has a line of JSON for each; one that a kill cut off is ended first,
    so that it takes no other with it."""
    with path.open("a+b") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            file.write(b"" if file.read(1) == b"\n" else b"\n")
        file.writelines(json.dumps(row).encode() + b"\n" for row in rows)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows that `append_rows` added, but for what a kill cut off; none where there is no
    file."""
    rows = []
    for line in path.read_text("utf-8").splitlines() if path.exists() else []:
        with contextlib.suppress(ValueError):
            rows.append(json.loads(line))
    return rows


def sweep(directory: Path) -> None:
    """Remove half-written files and directories of writers that were killed, below `directory`.

    What was moved aside and not yet replaced is put back.
    """
    for old in list(directory.rglob(".*.old")):
        kept = old.with_name(old.name[1:].rsplit(".", 2)[0])
        if not kept.exists():
            old.rename(kept)
    for pattern in (".*.tmp", ".*.old"):
        for path in list(directory.rglob(pattern)):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def free_bytes(directory: Path) -> int:
    """Bytes free on the disk of `directory`, which need not exist yet."""
    existing = directory.absolute()
    while not existing.exists():
        existing = existing.parent
    return shutil.disk_usage(existing).free


def require_space(directory: Path, needed: int, *, error: type[Exception]) -> None:
    """Raises `error` where the disk of `directory` has fewer than `needed` bytes free."""
    free = free_bytes(directory)
    if needed > free:
        raise error(
            f"{directory} needs {needed / 1e9:,.2f} GB of disk, but only {free / 1e9:,.2f} GB are "
            "free; make room or name another disk"
        )


def _sibling(target: Path) -> Path:
    """A new, empty directory beside `target`."""
    aside = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
    aside.mkdir()
    return aside


def _share(directory: Path) -> None:
    """Give all files the mode that the umask gives a new one.

    safetensors makes files that nobody but their owner may read.
    """
    probe = directory / ".mode"
    probe.touch()
    mode = stat.S_IMODE(probe.stat().st_mode)
    probe.unlink()
    for path in directory.rglob("*"):
        if path.is_file() and not path.is_symlink() and stat.S_IMODE(path.stat().st_mode) != mode:
            with contextlib.suppress(OSError):  # a disk without modes
                path.chmod(mode)


def _flush_all(directory: Path) -> None:
    for path in (*directory.rglob("*"), directory):
        _flush(path)


def _flush(path: Path) -> None:
    """Have the system put a file or directory on the disk, so that a power cut cannot tear it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
