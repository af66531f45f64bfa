"""Files that are copied byte for byte from one model's folder into another's."""

import shutil
from pathlib import Path


def copy_files(source: Path, patterns: tuple[str, ...], *, directory: Path) -> list[Path]:
    """Copy what matches, content only: modes are those of new files. Returns what was written."""
    files = sorted({file for pattern in patterns for file in source.glob(pattern)})
    written = []
    for file in files:
        if file.is_file():
            target = directory / file.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
            written.append(target)
    return written
