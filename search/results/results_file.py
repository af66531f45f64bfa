"""results.json: written last, since it marks a study as finished, and read at its next start."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter

from common.errors import SearchError
from common.files import write_file_atomically
from search.config.names import EVIDENCE_FULL
from search.results.results import SCHEMA_VERSION, Results
from search.results.statements import NOTE

T = TypeVar("T")


def write_results(results: Results, path: Path) -> None:
    """Write results.json."""
    write_file_atomically(path, to_json(results))


def read_results(path: Path) -> Results | None:
    """The results in results.json; None where there are none that can be read.

    Raises:
        SearchError: Where a newer version of Espalier wrote them.
    """
    try:
        known = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return parsed_results(known, str(path))


def parsed_results(known: Any, source: str) -> Results | None:
    """Results from the parsed content of such a file; None where it is none.

    Raises:
        SearchError: Where a newer version of Espalier wrote them; it names the `source`.
    """
    try:
        version = known.get("schema_version", SCHEMA_VERSION)
    except AttributeError:
        return None
    if version != SCHEMA_VERSION:
        raise SearchError(
            f"{source} is of schema version {version}, and this version of Espalier knows "
            f"{SCHEMA_VERSION}; go on with the version that wrote it, or choose another --workspace"
        )
    try:
        asked = known["asked"]
        asked.setdefault("evidence", EVIDENCE_FULL)  # of before --evidence: it had all of it,
        asked.setdefault("seeds", asked["fingerprint"].get("seeds"))  # and its seeds stand there
        known["verdicts"] = [  # of before tones: sentences alone
            {"tone": NOTE, "text": each} if isinstance(each, str) else each
            for each in known["verdicts"]
        ]
        return from_json(Results, known)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def to_json(value: Any) -> str:
    """A dataclass as the text of a JSON file."""
    return json.dumps(value, indent=2, default=_plain)


def from_json(kind: type[T], value: Any) -> T:
    """A dataclass of this kind from the parsed content of a JSON file.

    Raises:
        ValueError: Where a field is missing or of another type.
    """
    return TypeAdapter(kind).validate_python(value)


def _plain(value: Any) -> dict[str, Any]:
    """The keys of a dataclass in JSON: those of its own `to_dict`, else its fields."""
    if hasattr(value, "to_dict"):
        return dict(value.to_dict())
    return {f.name: getattr(value, f.name) for f in fields(value)}
