"""Fingerprints: short names for content and settings; differences between two sets of settings."""

import hashlib
import json
from pathlib import Path
from typing import Any

EARLIER = {"teacher_precision": "fp32"}
"""Settings that are recorded only where they are otherwise: what runs of earlier versions had."""


def fingerprint(*parts: Any) -> str:
    """A short name for anything that JSON can hold."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def fingerprint_files(paths: list[Path]) -> str:
    """A short name for the content of files and their names, not for where they lie."""
    digest = hashlib.sha256()
    for path in sorted(paths, key=lambda p: p.name):
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def differences(recorded: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What differs between two sets of named settings, each in words."""
    recorded, now = EARLIER | recorded, EARLIER | now
    return [
        line
        for name in sorted(recorded.keys() | now.keys())
        for line in _difference(name, recorded.get(name), now=now.get(name))
    ]


def _difference(name: str, before: Any, *, now: Any) -> list[str]:
    """The lines for one setting; for a group, of those settings in it that differ."""
    if _same(before, now):
        return []
    if isinstance(before, dict) and isinstance(now, dict):
        return [
            line
            for inner in sorted(before.keys() | now.keys())
            for line in _difference(f"{name}.{inner}", before.get(inner), now=now.get(inner))
        ]
    return [f"{name} (was {_brief(before)}, is {_brief(now)}{_meaning(name)})"]


def _same(before: Any, after: Any) -> bool:
    """Whether two settings agree; in a group, one that is not there is None, as an earlier version
    had it, which did not know it."""
    if isinstance(before, dict) and isinstance(after, dict):
        return all(_same(before.get(k), after.get(k)) for k in before.keys() | after.keys())
    return bool(before == after)


def _meaning(name: str) -> str:
    return ": the packed tokens, of another text or written otherwise" if name == "corpus" else ""


def _brief(value: Any) -> str:
    text = {dict: "given", type(None): "not given"}.get(type(value), str(value))
    return text if len(text) <= 60 else text[:57] + "..."
