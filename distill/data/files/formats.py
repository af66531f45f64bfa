"""Files of a corpus: their format by name, and their decompressed bytes.

Names are read without regard to case: `ROWS.JSONL.GZ` holds compressed JSON lines.
"""

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, Any

import zstandard

JSON, CSV, TSV, PARQUET, ARROW, TEXT = "json", "csv", "tsv", "parquet", "arrow", "text"
FORMATS = {
    ".jsonl": JSON,
    ".ndjson": JSON,
    ".json": JSON,
    ".csv": CSV,
    ".tsv": TSV,
    ".parquet": PARQUET,
    ".arrow": ARROW,
}
"""Formats that have rows, by suffix; any other file is text."""
COMPRESSED = (".gz", ".zst", ".xz", ".bz2")
BROKEN = (OSError, EOFError, zlib.error, lzma.LZMAError, zstandard.ZstdError)
"""What reading a damaged file raises."""
CHUNK_BYTES = 1 << 16


@dataclass(frozen=True)
class CorpusFile:
    """A file of a source: on this machine, or on the Hub by its hf:// address."""

    path: str
    """Where it is: a path, or an hf:// address."""
    name: str
    """Relative to its folder; of a single file its file name."""
    size: int = 0
    """Bytes; 0 where it is not known."""
    changed: int = 0
    """When it was changed, in nanoseconds; 0 where it is not known."""
    copies: tuple[str, ...] = ()
    """Names of other files with the same text."""

    @property
    def format(self) -> str:
        """One of the formats above."""
        return FORMATS.get(self._suffixes()[0], TEXT)

    @property
    def compression(self) -> str:
        """The suffix that tells how it is compressed, or nothing."""
        return self._suffixes()[1]

    def _suffixes(self) -> tuple[str, str]:
        name = PurePosixPath(self.name.lower())
        packed = name.suffix if name.suffix in COMPRESSED else ""
        return (PurePosixPath(name.stem).suffix if packed else name.suffix), packed


class Reading:
    """How far a source has been read."""

    def __init__(self) -> None:
        self._before = 0
        self._inside = 0

    @property
    def done(self) -> int:
        """Bytes of the files as they lie on the disk."""
        return self._before + self._inside

    @contextmanager
    def opened(self, file: CorpusFile) -> Iterator[io.BufferedIOBase]:
        """The file's bytes, decompressed."""
        with raw_file(file.path) as raw:
            yield _decompressed(_Counted(raw, self._count), file.compression)

    def _count(self, read: int) -> None:
        self._inside += read

    def passed(self, file: CorpusFile) -> None:
        """The file was read to its end."""
        self._before, self._inside = self._before + file.size, 0


class _Counted(io.RawIOBase):
    """A file that tells how many of its bytes were read; closing it leaves the file open."""

    def __init__(self, raw: IO[bytes], count: Callable[[int], None]):
        self._raw, self._count = raw, count

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        read = self._raw.read(len(buffer))
        buffer[: len(read)] = read
        self._count(len(read))
        return len(read)


def raw_file(path: str) -> Any:
    """The file as it lies there, opened."""
    if "://" not in path:
        return open(path, "rb")  # noqa: PTH123, SIM115
    import fsspec  # slow to import, and only the Hub needs it

    return fsspec.open(path, "rb").open()


def _decompressed(raw: Any, suffix: str) -> io.BufferedIOBase:
    match suffix:
        case ".gz":
            return gzip.GzipFile(fileobj=raw)
        case ".xz":
            return lzma.LZMAFile(raw)
        case ".bz2":
            return bz2.BZ2File(raw)
        case ".zst":
            return io.BufferedReader(_Zstandard(raw), CHUNK_BYTES)
    return io.BufferedReader(raw, CHUNK_BYTES)


class _Zstandard(io.RawIOBase):
    """All frames of a .zst file, one after the other.

    The library's own reader ends with the first frame, and quietly where the file is cut off.
    """

    def __init__(self, raw: IO[bytes]):
        self._raw = raw
        self._new = zstandard.ZstdDecompressor().decompressobj
        self._frame: Any = None
        self._ready = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            held = self._frame.unused_data if self._frame is not None and self._frame.eof else b""
            packed = held or self._raw.read(CHUNK_BYTES)
            if not packed:
                if self._frame is not None and not self._frame.eof:
                    raise EOFError("the compressed file is cut off")
                return 0
            if self._frame is None or self._frame.eof:
                self._frame = self._new()
            self._ready = self._frame.decompress(packed)
        taken = self._ready[: len(buffer)]
        buffer[: len(taken)] = taken
        self._ready = self._ready[len(taken) :]
        return len(taken)
