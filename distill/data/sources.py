"""What a corpus is: which files each of its sources has, and which of them are read as rows.

A source is a file, a pattern of files, a folder, or a data set of the Hub. A folder is a data set
in the Hub's layout, shards of rows, or text files (sources of a program, a book a file); what is
left out of it is said. Files of a folder are read in an order that is fixed but not that of their
names, since often no more is read than a study needs, which is then spread over the folder.
"""

import fnmatch
import glob
import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from distill.data.files import TEXT, CorpusFile
from distill.data.settings import CorpusFrom
from distill.errors import DistillError

TEXT_PATTERNS = ("*.txt", "*.md", "*.py", "*.rst")
"""Files of a folder that are text by default."""
COPY_BYTES = 1 << 20
"""Read at a time to compare files of one size."""


@dataclass(frozen=True)
class CorpusFiles:
    """Which files of a folder are the corpus."""

    include: list[str] | None = None
    """File-name patterns to read; by default the files that have rows, such as *.jsonl.gz and
    *.parquet, or *.txt, *.md, *.py and *.rst, whichever are more bytes."""
    exclude: list[str] = field(default_factory=lambda: [".*", "__pycache__"])
    """Patterns of file and folder names to leave out."""


@dataclass(frozen=True)
class Source:
    """One source of a corpus, with its files in the order that they are read in."""

    given: str
    files: tuple[CorpusFile, ...]
    text_column: str | None = None
    """Field of a row that is its text or chat; None: text, messages or conversations."""
    named_by_path: bool = False
    """Whether a text file is one document, called by its path in the folder."""
    notes: tuple[str, ...] = ()
    """What was left out."""

    @property
    def size(self) -> int:
        """Bytes of its files, 0 where one is not known."""
        sizes = [file.size for file in self.files]
        return sum(sizes) if all(sizes) else 0

    @property
    def identity(self) -> list[Any]:
        """What is another where its files are; not what is in them."""
        return [
            self.text_column,
            self.named_by_path,
            *([file.name, file.size, file.changed] for file in self.files),
            *(file.path for file in self.files if "://" in file.path),
        ]


def find_sources(
    given: str | Sequence[str], files: CorpusFiles, reading: CorpusFrom
) -> tuple[Source, ...]:
    """The sources of a corpus. Raises DistillError for one that is missing, empty or ambiguous."""
    names = [given] if isinstance(given, str) else list(given)
    if not names or not all(name.strip() for name in names):
        raise DistillError("the corpus has an empty name; give a file, a folder or a Hub data set")
    if reading.weights is not None and len(reading.weights) != len(names):
        raise DistillError(
            f"--corpus_from.weights has {len(reading.weights)} numbers, and --corpus "
            f"{len(names)} sources; give one for each"
        )
    return _with_copies(tuple(_source(name, files, reading) for name in names))


def _source(given: str, files: CorpusFiles, reading: CorpusFrom) -> Source:
    path = Path(given).expanduser()
    try:
        if path.is_dir():
            return _folder(given, path, files, reading)
        if path.is_file():
            return Source(given, (_require_not_rows(_local(path, path.name)),), reading.field)
        if any(mark in given for mark in "*?["):
            return _pattern(given, path, reading)
    except DistillError:
        raise
    except (OSError, ValueError) as problem:  # a name too long, or with a NUL
        raise DistillError(f"the corpus {given[:80]!r} cannot be opened: {problem}") from problem
    if given.count("/") <= 1 and not given.startswith((".", "/", "~")):
        return _data_set(given, given, reading)
    raise DistillError(
        f"the corpus {given} does not exist; give a file, a folder or a Hub data set"
    )


def _local(path: Path, name: str) -> CorpusFile:
    facts = path.stat()
    return CorpusFile(str(path.absolute()), name, facts.st_size, facts.st_mtime_ns)


def _require_not_rows(file: CorpusFile) -> CorpusFile:
    """Raises DistillError for a file that is called a text and holds rows of JSON."""
    from distill.data.rows import holds_json_rows

    if file.format == TEXT and holds_json_rows(file):
        raise DistillError(
            f"the corpus {file.path} is called a text, but its lines are rows of JSON; give it "
            "the suffix .jsonl, or put it into a folder to have its braces and quotes learned"
        )
    return file


def _pattern(given: str, path: Path, reading: CorpusFrom) -> Source:
    names = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207
    found = [Path(name) for name in names if Path(name).is_file()]
    if not found:
        raise DistillError(f"the corpus {given} matches no file")
    root = os.path.commonpath([each.parent for each in found])
    files = [_local(each, str(each.relative_to(root))) for each in found]
    return Source(given, _shuffled(map(_require_not_rows, files)), reading.field)


def _folder(given: str, root: Path, files: CorpusFiles, reading: CorpusFrom) -> Source:
    if _is_data_set(root, reading):
        return _data_set(given, str(root), reading)
    every = [
        _local(path, "/".join(path.relative_to(root).parts))
        for path in sorted(root.rglob("*"))
        if not _dropped(path.relative_to(root).parts, files.exclude) and path.is_file()
    ]
    if files.include is not None:
        chosen = [file for file in every if _matches(file, files.include)]
        rows = [file for file in chosen if file.format != TEXT]
        if rows and len(rows) < len(chosen):
            raise DistillError(
                f"--corpus_files.include takes rows ({rows[0].name}) and texts of {given} "
                "together; give the folder twice, or one of the two"
            )
    else:
        rows = [file for file in every if file.format != TEXT]
        texts = [file for file in every if _matches(file, TEXT_PATTERNS)]
        as_rows = sum(file.size for file in rows) > sum(file.size for file in texts)
        rows = rows if as_rows else []
        chosen = rows or texts
    notes: list[str] = []
    if rows:
        chosen, notes = _of_split(root, rows, reading.split)
    if not chosen:
        raise DistillError(f"the corpus {given} is empty: no file with text is in it")
    notes += _left_out(every, chosen, bool(rows))
    return Source(given, _shuffled(chosen), reading.field, not rows, tuple(notes))


def _dropped(parts: tuple[str, ...], exclude: Sequence[str]) -> bool:
    return any(fnmatch.fnmatch(part, pattern) for part in parts for pattern in exclude)


def _matches(file: CorpusFile, patterns: Sequence[str]) -> bool:
    """Whether the file has such a name, compressed or not, in capitals or not."""
    name = PurePosixPath(file.name).name.lower()
    names = {name, name.removesuffix(file.compression)} if file.compression else {name}
    return any(fnmatch.fnmatch(each, pattern.lower()) for each in names for pattern in patterns)


def _of_split(root: Path, rows: list[CorpusFile], split: str) -> tuple[list[CorpusFile], list[str]]:
    """The files whose names say that they are of the split, as `datasets` reads names."""
    from datasets.data_files import DataFilesDict, get_data_patterns

    found = DataFilesDict.from_patterns(get_data_patterns(str(root)), base_path=str(root))
    splits = {str(name): {str(Path(each).absolute()) for each in found[name]} for name in found}
    if set(splits) == {"train"} and split == "train":
        return rows, []
    kept = [file for file in rows if file.path in splits.get(split, set())]
    if not kept:
        raise DistillError(
            f"--corpus_from.split is {split!r}, but the files of {root} are of "
            f"{', '.join(sorted(splits)) or 'no split'}"
        )
    others = len(rows) - len(kept)
    if not others:
        return kept, []
    what = "1 file of another split" if others == 1 else f"{others} files of other splits"
    return kept, [f"{what} ({', '.join(sorted(set(splits) - {split}))})"]


def _left_out(every: list[CorpusFile], chosen: list[CorpusFile], rows: bool) -> list[str]:
    """What else is in a folder that could have been meant."""
    taken = {file.name for file in chosen}
    others = [file for file in every if file.name not in taken]
    others = [file for file in others if (file.format == TEXT) == rows or file.compression]
    if not others:
        return []
    kinds = Counter(PurePosixPath(file.name).suffix or "no suffix" for file in others)
    shown = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(4))
    kind = "rows" if rows else "text"
    if len(others) == 1:
        return [f"1 file that is no {kind} ({others[0].name})"]
    return [f"{len(others)} files that are no {kind} ({shown})"]


def _is_data_set(root: Path, reading: CorpusFrom) -> bool:
    """Whether the folder says itself which files are which split."""
    if reading.config is not None or (root / "dataset_dict.json").exists():
        return True
    if (root / "state.json").exists() and (root / "dataset_info.json").exists():
        return True
    card = root / "README.md"
    if not card.is_file():
        return False
    import yaml

    parts = card.read_text("utf-8", errors="replace").split("---\n", 2)
    try:
        header = yaml.safe_load(parts[1]) if len(parts) == 3 and not parts[0].strip() else None
    except yaml.YAMLError:
        return False
    return isinstance(header, dict) and bool(header.get("configs"))


def _data_set(given: str, path: str, reading: CorpusFrom) -> Source:
    """A data set of the Hub, or in its layout: which files it has is for `datasets` to find."""
    from datasets import load_dataset_builder

    try:
        builder = load_dataset_builder(path, reading.config, revision=reading.revision)
        found = {str(name): list(urls) for name, urls in builder.config.data_files.items()}
    except Exception as problem:  # datasets raises a dozen unrelated types
        raise DistillError(_no_data_set(given, problem)) from problem
    if reading.split not in found:
        raise DistillError(
            f"--corpus_from.split is {reading.split!r}, but {given} has {', '.join(sorted(found))}"
        )
    files = []
    for url in map(str, found[reading.split]):
        if "://" in url:
            files.append(CorpusFile(url, url))
        else:
            files.append(_local(Path(url), str(Path(url).relative_to(Path(path).absolute()))))
    texts = [file.name for file in files if file.format == TEXT]
    if texts and len(texts) < len(files):
        raise DistillError(f"{given} has rows and texts ({texts[0]}) in one split")
    return Source(given, _shuffled(files), reading.field)


def _no_data_set(given: str, problem: Exception) -> str:
    reason = " ".join(str(problem).split()) or type(problem).__name__
    if "Config name is missing" in reason or "not found. Available" in reason:
        return f"the corpus {given} has several configurations (--corpus_from.config): {reason}"
    return f"the corpus {given} is neither a file, a folder nor a readable data set: {reason[:300]}"


def _shuffled(files: Any) -> tuple[CorpusFile, ...]:
    """In an order that their names decide, but that is not that of their names."""
    return tuple(sorted(files, key=lambda file: hashlib.sha256(file.name.encode()).digest()))


def _with_copies(sources: tuple[Source, ...]) -> tuple[Source, ...]:
    """With the names of its copies at every file that is one document."""
    sizes: dict[int, list[CorpusFile]] = defaultdict(list)
    for source in sources:
        for file in source.files if source.named_by_path else ():
            sizes[file.size].append(file)
    same: dict[bytes, list[str]] = defaultdict(list)
    digests: dict[str, bytes] = {}
    for files in sizes.values():
        for file in files if len(files) > 1 else ():
            digests[file.path] = _digest(file.path)
            same[digests[file.path]].append(file.name)

    def marked(file: CorpusFile) -> CorpusFile:
        names = same.get(digests.get(file.path, b""), [])
        return replace(file, copies=tuple(names)) if len(names) > 1 else file

    return tuple(
        replace(source, files=tuple(map(marked, source.files))) if source.named_by_path else source
        for source in sources
    )


def _digest(path: str) -> bytes:
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as problem:
        raise DistillError(f"{path} cannot be read: {problem.strerror}") from problem
