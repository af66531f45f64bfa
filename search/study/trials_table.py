"""trials.csv: a row per trial of a study."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd
from optuna.trial import FrozenTrial

from common.files import write_file_atomically
from search.config.objectives import Objectives
from search.database.attributes import ARCHITECTURE
from search.database.trial_facts import progress_of
from search.study.record import Record

TABLE_COLUMNS = [
    "number",
    "state",
    "layers",
    "hidden",
    "heads",
    "kv_heads",
    "ffn",
    "experts",
    "expert_ffn",
    "contiguous",
    "blocks",
    "parameters",
    "zero_shot",
    "tokens",
    "kl",
    "ce",
    "top1_agreement",
    "seconds",
    "error",
]
SELDOM = ("experts", "expert_ffn", "contiguous", "blocks", "zero_shot")
"""Columns that are left out where no trial has a value."""


def trials_table(trials: Iterable[FrozenTrial], objectives: Objectives) -> pd.DataFrame:
    """One row per trial, in the order that they are given in."""
    rows = []
    for trial in trials:
        attributes = trial.user_attrs
        row = {
            "number": trial.number,
            "state": trial.state.name,
            **attributes.get(ARCHITECTURE, {}),
        }
        progress = progress_of(trial)
        figures = {**attributes, **({} if progress is None else progress.figures)}
        for name in TABLE_COLUMNS[TABLE_COLUMNS.index("parameters") :]:
            row[name] = figures.get(name)
        if objectives.several and trial.values:
            row |= dict(zip(objectives.names, trial.values, strict=True))
        rows.append(row)
    extra = [name for name in objectives.names if name not in TABLE_COLUMNS]
    table = pd.DataFrame(rows, columns=[*TABLE_COLUMNS, *extra])
    unused = [name for name in SELDOM if table[name].isna().all()]
    return table.drop(columns=unused)


def write_trials(record: Record, path: Path) -> None:
    """Write the table as CSV."""
    write_file_atomically(
        path, trials_table(record.trials(), record.objectives).to_csv(index=False)
    )
