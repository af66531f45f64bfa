"""Sources of a corpus: which files each of them has, and which are read as rows.

A source is a file, a pattern of files, a folder, or a data set of the Hub. A folder is a data set
in the Hub's layout, shards of rows, or text files (sources of a program, a book a file); what is
left out of it is said. Files of a folder are read in an order that is fixed but not that of their
names, since often no more is read than a study needs, which is then spread over the folder.
"""

import fnmatch
import glob
import hashlib
import json
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from common.errors import DistillError
from common.given_paths import is_path, is_pattern, no_corpus
from distill.data.files.formats import TEXT, CorpusFile
from distill.data.files.rows import holds_json_rows
from distill.data.settings import CorpusFrom

TEXT_PATTERNS = ("*.txt", "*.md", "*.py", "*.rst")
"""Files of a folder that are text by default."""
SAVED_SPLITS = "dataset_dict.json"
"""Of a data set that `datasets` saved to the disk: which splits it has, a folder each."""
SAVED = "state.json"
"""Of one split that it saved."""
EVERY_FILE = {"train": ["**"]}
"""What `datasets` takes where no name tells a split."""
FACTS = (SAVED, "dataset_info.json", "dataset_infos.json", SAVED_SPLITS)
"""What `datasets` writes beside rows."""
LOOKED_INTO = 5
"""Text files of a folder of which it is seen whether they hold rows."""


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
    """One source of a corpus."""

    given: str
    """The source as the user named it."""
    files: tuple[CorpusFile, ...]
    """Its files, in the order that they are read in."""
    text_column: str | None = None
    """Field of a row that is its text or chat; None: text, messages or conversations."""
    named_by_path: bool = False
    """Whether a text file is one document, called by its path in the folder."""
    notes: tuple[str, ...] = ()
    """What was left out."""

    @property
    def size(self) -> int:
        """Bytes of its files, 0 where one is not known."""
        if any("://" in file.path for file in self.files):
            return 0
        return sum(file.size for file in self.files)

    @property
    def identity(self) -> list[Any]:
        """What is another where its files are; not what is in them."""
        return [
            self.text_column,
            self.named_by_path,
            *([file.path, file.name, file.size, file.changed] for file in self.files),
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
            return _folder(given, path, files=files, reading=reading)
        if path.is_file():
            return Source(given, (_require_not_rows(_local(path, path.name)),), reading.field)
        if is_pattern(given):
            return _pattern(given, path, files=files, reading=reading)
    except DistillError:
        raise
    except (OSError, ValueError) as problem:  # a name too long, or with a NUL
        raise DistillError(f"the corpus {given[:80]!r} cannot be opened: {problem}") from problem
    if is_path(given):
        raise no_corpus(given)
    return _data_set(given, given, files=files, reading=reading)


def _local(path: Path, name: str) -> CorpusFile:
    facts = path.stat()
    return CorpusFile(str(path.absolute()), name, facts.st_size, facts.st_mtime_ns)


def _require_not_rows(file: CorpusFile) -> CorpusFile:
    """Raises DistillError for a file that is called a text and holds rows of JSON."""
    if file.format == TEXT and holds_json_rows(file):
        raise DistillError(
            f"the corpus {file.path} is called a text, but its lines are rows of JSON; give it "
            "the suffix .jsonl or .json"
        )
    return file


def _pattern(given: str, path: Path, *, files: CorpusFiles, reading: CorpusFrom) -> Source:
    names = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207
    found = [Path(name) for name in names if Path(name).is_file()]
    if not found:
        raise DistillError(f"the corpus {given} matches no file")
    root = os.path.commonpath([each.parent for each in found])
    every = [_local(each, str(each.relative_to(root))) for each in found]
    chosen = _chosen(given, every, files)
    if not chosen:
        raise DistillError(f"the corpus {given} has no file that --corpus_files takes")
    return Source(given, _shuffled(map(_require_not_rows, chosen)), reading.field)


def _chosen(given: str, every: list[CorpusFile], files: CorpusFiles) -> list[CorpusFile]:
    """Those of the files that the user takes. Raises DistillError for rows and texts together."""
    chosen = [file for file in every if not _dropped(file.name.split("/"), files.exclude)]
    if files.include is not None:
        chosen = [file for file in chosen if _matches(file, files.include)]
    rows = [file.name for file in chosen if file.format != TEXT]
    if rows and len(rows) < len(chosen):
        texts = next(file.name for file in chosen if file.format == TEXT)
        raise DistillError(
            f"{given} has rows ({rows[0]}) and texts ({texts}) together; choose with "
            "--corpus_files.include, or give both as sources of their own"
        )
    return chosen


def _folder(given: str, root: Path, *, files: CorpusFiles, reading: CorpusFrom) -> Source:
    if _is_data_set(root, reading):
        return _data_set(given, str(root), files=files, reading=reading)
    if (root / SAVED_SPLITS).exists():
        root = _saved_split(root, reading.split)
    every = [file for file in _files_below(root, files.exclude) if file.name not in FACTS]
    if files.include is not None:
        chosen = _chosen(given, every, files)
        if not chosen:
            raise DistillError(f"no file of {given} is one of --corpus_files.include")
    else:
        rows = [file for file in every if file.format != TEXT]
        texts = [file for file in every if _matches(file, TEXT_PATTERNS)]
        as_rows = sum(file.size for file in rows) > sum(file.size for file in texts)
        chosen = rows if as_rows else texts
    if not chosen:
        raise DistillError(f"the corpus {given} is empty: no file with text is in it")
    rows_chosen = chosen[0].format != TEXT
    notes: list[str] = []
    if not rows_chosen:
        if reading.split != CorpusFrom.split:
            raise DistillError(
                f"--corpus_from.split is {reading.split!r}, but {given} has texts, which have no "
                "splits"
            )
        _require_texts(chosen)
    elif not (root / SAVED).exists():
        chosen, notes = _of_split(root, chosen, reading.split)
    if files.include is None:
        notes += _left_out(every, chosen, notes)
    return Source(given, _shuffled(chosen), reading.field, not rows_chosen, tuple(notes))


def _files_below(root: Path, exclude: Sequence[str]) -> list[CorpusFile]:
    """All files, also behind links; raises DistillError for a folder that cannot be read."""

    def unreadable(problem: OSError) -> None:
        raise DistillError(f"{problem.filename} cannot be read: {problem.strerror}") from problem

    found, seen = [], set()
    for folder, folders, names in os.walk(root, onerror=unreadable, followlinks=True):
        real = os.path.realpath(folder)
        below = Path(folder).relative_to(root).parts
        if real in seen or _dropped(below, exclude):
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        for name in sorted(names):
            path = Path(folder) / name
            if not _dropped((name,), exclude) and path.is_file():
                found.append(_local(path, "/".join((*below, name))))
    return found


def _saved_split(root: Path, split: str) -> Path:
    """The folder of a split that `datasets` saved to the disk."""
    try:
        splits = list(json.loads((root / SAVED_SPLITS).read_text())["splits"])
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise DistillError(f"{root / SAVED_SPLITS} is damaged: {problem}") from problem
    if split not in splits:
        raise DistillError(
            f"--corpus_from.split is {split!r}, but {root} has {', '.join(sorted(splits))}"
        )
    return root / split


def _require_texts(files: list[CorpusFile]) -> None:
    """Raises DistillError where the first of the .txt files are rows of JSON, all of them."""
    texts = [file for file in files if _matches(file, ("*.txt",))][:LOOKED_INTO]
    if texts and all(map(holds_json_rows, texts)):
        _require_not_rows(texts[0])


def _dropped(parts: Sequence[str], exclude: Sequence[str]) -> bool:
    return any(fnmatch.fnmatch(part, pattern) for part in parts for pattern in exclude)


def _matches(file: CorpusFile, patterns: Sequence[str]) -> bool:
    """Whether the name of the file matches, compressed or not, in capitals or not."""
    name = PurePosixPath(file.name).name.lower()
    names = {name, name.removesuffix(file.compression)} if file.compression else {name}
    return any(fnmatch.fnmatch(each, pattern.lower()) for each in names for pattern in patterns)


def _of_split(root: Path, rows: list[CorpusFile], split: str) -> tuple[list[CorpusFile], list[str]]:
    """The files whose names say that they are of the split, as `datasets` reads names.

    Files that are called by no split are training's, where no file is called training's.
    """
    from datasets.data_files import DataFilesDict, get_data_patterns

    base = glob.escape(str(root))
    patterns = get_data_patterns(base)
    if patterns in (EVERY_FILE, {}) and split == CorpusFrom.split:
        return rows, []
    found = DataFilesDict.from_patterns(patterns, base_path=base)
    named = {str(Path(each).absolute()): str(name) for name in found for each in found[name]}
    of = {file.name: named.get(file.path, "") for file in rows}
    wanted = split if split in of.values() or split != CorpusFrom.split else ""
    kept = [file for file in rows if of[file.name] == wanted]
    if not kept:
        raise DistillError(
            f"--corpus_from.split is {split!r}, but the files of {root} are of "
            f"{', '.join(sorted(set(of.values()) - {''})) or 'no split'}"
        )
    notes = []
    others = [file.name for file in rows if of[file.name] not in ("", wanted)]
    if others:
        several = f"{len(others)} files of other splits"
        what = "1 file of another split" if len(others) == 1 else several
        notes.append(f"{what} ({', '.join(sorted({of[name] for name in others}))})")
    unnamed = [file.name for file in rows if not of[file.name]]
    if unnamed and wanted:
        notes.append(f"{len(unnamed)} of no split ({', '.join(unnamed[:3])})")
    return kept, notes


def _left_out(every: list[CorpusFile], chosen: list[CorpusFile], said: list[str]) -> list[str]:
    """What else is in a folder that could have been meant."""
    taken = {file.name for file in chosen}
    rows = chosen[0].format != TEXT
    others = [file for file in every if file.name not in taken]
    if said:  # of rows it is
        others = [file for file in others if file.format == TEXT]
    if not others:
        return []
    kind = "rows" if rows else "text"
    if len(others) == 1:
        return [f"1 file that is not read as {kind} ({others[0].name})"]
    kinds = Counter(PurePosixPath(file.name).suffix or "no suffix" for file in others)
    shown = ", ".join(f"{count} {suffix}" for suffix, count in kinds.most_common(4))
    return [f"{len(others)} files that are not read as {kind} ({shown})"]


def _is_data_set(root: Path, reading: CorpusFrom) -> bool:
    """Whether the folder says itself which files are which split."""
    if reading.config is not None:
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


def _data_set(given: str, path: str, *, files: CorpusFiles, reading: CorpusFrom) -> Source:
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
    every = []
    for url in map(str, found[reading.split]):
        if "://" in url:
            every.append(CorpusFile(url, url))
        else:
            every.append(_local(Path(url), str(Path(url).relative_to(Path(path).absolute()))))
    chosen = _chosen(given, every, files)
    if not chosen:
        raise DistillError(f"the corpus {given} has no file that --corpus_files takes")
    return Source(given, _shuffled(chosen), reading.field)


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
