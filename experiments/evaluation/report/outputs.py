"""What an evaluation writes: evaluation.json, evaluation.csv and evaluation.html."""

import json
import math
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from common.files import write_file_atomically
from common.version import installed_version
from experiments.evaluation.config import EvaluateConfig
from experiments.evaluation.measuring.contenders import facts
from experiments.evaluation.measuring.measured import Measured
from experiments.evaluation.measuring.parts import LIBRARIES
from experiments.evaluation.report.comparison import Measure, measures
from experiments.evaluation.report.tables import csv_table, meaning, number, summaries, title

JSON, CSV, PAGE = "evaluation.json", "evaluation.csv", "evaluation.html"
SCHEMA_VERSION = 1
"""Of evaluation.json."""
GROUPS = {
    "model": "Size",
    "text": "On the text",
    "tasks": "Tasks",
    "speed": "On this device",
}
"""Of the measures, with the captions of their tables."""


@dataclass(frozen=True)
class Outputs:
    """The files of an evaluation."""

    config: EvaluateConfig
    """What was asked."""
    root: Path
    """Where they are written."""
    notes: tuple[str, ...]
    """What is to be known of the figures."""

    def write(self, every: Sequence[Measured]) -> list[Measure]:
        """Write all of them, with the figures that there are, which are returned."""
        found = measures(every)
        whole = self.content(every, found)
        write_file_atomically(self.root / JSON, json.dumps(_finite(whole), indent=2) + "\n")
        write_file_atomically(self.root / CSV, csv_table(found))
        write_file_atomically(self.root / PAGE, page(whole, found))
        return found

    def content(self, every: Sequence[Measured], found: Sequence[Measure]) -> dict[str, Any]:
        """What evaluation.json holds."""
        own = [note for measured in every for note in measured.notes]
        labels = [measured.contender.label for measured in every]
        settings = {measured.speed.setting for measured in every if measured.speed is not None}
        return {
            "schema_version": SCHEMA_VERSION,
            "models": [facts(measured.contender) for measured in every],
            "reference": every[0].contender.label,
            "summary": summaries(found, labels),
            "measures": [asdict(measure) for measure in found],
            "notes": [*self.notes, *own],
            "timed_on": sorted(settings),
            "settings": json.loads(json.dumps(asdict(self.config), default=str)),
            "versions": {
                "espalier": installed_version(),
                "python": platform.python_version(),
                **{name: version(name) for name in LIBRARIES},
            },
            "written": datetime.now(UTC).isoformat(timespec="seconds"),
        }


def page(whole: dict[str, Any], found: Sequence[Measure]) -> str:
    """One HTML file that needs nothing else, and no script."""
    labels = [model["label"] for model in whole["models"]]
    tables = {
        caption: [measure for measure in found if measure.group == group]
        for group, caption in GROUPS.items()
    }
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("evaluation.html.jinja").render(
        whole=whole, labels=labels, tables=tables, title=title, number=number, meaning=meaning
    )


def _finite(value: Any) -> Any:
    """The same, with null for numbers that JSON has no word for."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_finite(part) for part in value]
    return value
