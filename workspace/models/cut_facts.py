"""What a student says of its cut: which layers and hidden channels of its teacher it has."""

import json
from pathlib import Path
from typing import Any

CUT_FACTS = "prune.json"
"""In a student's folder: what it was cut from, and how."""
OF_THE_CUT = ("architecture", "kept_layers", "kept_channels")
"""What stays true of a student when it has been trained."""


def facts_of_cut(directory: Path) -> dict[str, Any]:
    """What the student in that folder says of its cut; {} where it says nothing."""
    try:
        facts: dict[str, Any] = json.loads((directory / CUT_FACTS).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return {name: facts[name] for name in OF_THE_CUT if name in facts}


def write_cut_facts(directory: Path, facts: dict[str, Any]) -> None:
    """Write what a student says of its cut, if that is known, beside its weights."""
    if facts:
        (directory / CUT_FACTS).write_text(json.dumps(facts), "utf-8")
